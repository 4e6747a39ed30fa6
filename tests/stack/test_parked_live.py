"""An agent that parks on a running appliance with the real model, and what may die meanwhile."""

import concurrent.futures
import contextlib
import json
import os
import signal
import time
import urllib.request

import psutil
import pytest
from appliance_process import Appliance, copy_home, wait_until
from traffic import assert_conserved, counters

pytestmark = pytest.mark.slow

TOGETHER = 200
QUICK = ("min=0", "idle_s=1", "stabilization_s=0", "peak_s=0", "miss_cost_s=0", "park_s=600")


@pytest.fixture(scope="module")
def appliance(template_home, tmp_path_factory):
    """A demo appliance that parks what is idle for a second."""
    home = copy_home(template_home, tmp_path_factory.mktemp("parked") / "home")
    with Appliance(home) as running:
        running.start(demo=True)
        running.run("set_scaling", "minilm", *QUICK)
        yield running


def embed(appliance, key, text="a mill by the river"):
    """Status and seconds of one request."""
    request = urllib.request.Request(
        f"{appliance.api}/v1/embeddings",
        data=json.dumps({"model": "minilm", "input": text}).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    started = time.monotonic()
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
        return answer.status, time.monotonic() - started


def states(appliance):
    """How many agents the gateway sees in each state."""
    return {
        dict(labels)["state"]: count
        for (name, labels), count in counters(appliance).items()
        if name == "millwright_agents" and count
    }


def pids(appliance, part):
    """Of its processes whose arguments contain `part`."""
    found = set()
    for process in appliance.processes():
        with contextlib.suppress(psutil.Error):  # it has ended this moment
            if part in process.cmdline():
                found.add(process.pid)
    return found


def until_parked(appliance, key):
    """There is an agent, and nobody has asked it anything for a while."""
    if not states(appliance):
        embed(appliance, key)
    wait_until(lambda: states(appliance) == {"parked": 1}, 60, f"it parks: {appliance.log_tails()}")


def desired(appliance):
    (deployment,) = appliance.run_json("fleet")["deployments"]
    return deployment["desired"]


def test_parked_then_answered_then_adopted(appliance, key):
    """Idle, it gives its memory back; the first request has it back, same process; the number follows."""
    until_parked(appliance, key)
    pid = appliance.pid_of("agents")
    wait_until(lambda: desired(appliance) == 0, 20, "nobody is wanted")
    wait_until(lambda: states(appliance) == {"parked": 1}, 20, "and it is parked")
    status, took_s = embed(appliance, key)
    print(f"\nfirst answer from parked: {took_s * 1000:.0f} ms")
    assert (status, appliance.pid_of("agents")) == (200, pid)
    until_parked(appliance, key)
    assert appliance.pid_of("agents") == pid
    assert_conserved(appliance)


def test_many_at_once_from_parked(appliance, key):
    """All of 200 that come while it loads are answered."""
    until_parked(appliance, key)
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        answers = list(pool.map(lambda number: embed(appliance, key, f"sentence {number}"), range(TOGETHER)))
    print(f"\n{TOGETHER} from parked: last after {max(took_s for _, took_s in answers) * 1000:.0f} ms")
    assert {status for status, _ in answers} == {200}
    assert_conserved(appliance)


def test_worker_killed_while_parked(appliance, key):
    """The gateway resumes it without any worker; the next worker adopts it and parks it again."""
    until_parked(appliance, key)
    worker = appliance.pid_of("worker")
    os.kill(worker, signal.SIGKILL)
    assert embed(appliance, key)[0] == 200
    wait_until(lambda: pids(appliance, "worker") - {worker}, 30, "another worker")
    until_parked(appliance, key)
    assert embed(appliance, key)[0] == 200


def test_gateway_killed_while_parked(appliance, key):
    """The next gateway learns from the agent that it is parked, and resumes it."""
    until_parked(appliance, key)
    old = appliance.pid_of("appliance.gateway")
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: pids(appliance, "appliance.gateway") - {old}, 30, "another gateway")
    wait_until(lambda: answers(appliance), 30, "it listens")
    assert embed(appliance, key)[0] == 200


def test_parked_ends_after_its_time(appliance, key):
    """Then its process is gone, and the next request starts another."""
    until_parked(appliance, key)
    appliance.run("set_scaling", "minilm", "park_s=1")
    try:
        wait_until(lambda: not pids(appliance, "agents"), 60, "it ends")
    finally:
        appliance.run("set_scaling", "minilm", *QUICK)
    assert embed(appliance, key)[0] == 200
    assert_conserved(appliance)


def answers(appliance):
    try:
        return counters(appliance)
    except OSError:
        return None

"""An agent that grows where none can be added, on a running appliance with the real model."""

import concurrent.futures
import json
import os
import signal
import threading
import urllib.request

import pytest
from appliance_process import Appliance, copy_home, wait_until
from traffic import assert_conserved

pytestmark = pytest.mark.slow

CLIENTS = 24
#: One agent at most, of one engine thread at its start, which should have four requests in flight.
SMALL = (
    "min=1", "max=1", "threads=1", "target_in_flight=4", "stabilization_s=0", "peak_s=0",
    "stable_window_s=6", "panic_window_s=2",
)  # fmt: skip
SMALLEST, LARGEST = (1, 1), (2, 1)


@pytest.fixture(scope="module")
def appliance(template_home, tmp_path_factory):
    """A demo appliance on a machine that is taken for one of two cores."""
    home = copy_home(template_home, tmp_path_factory.mktemp("vertical") / "home")
    with Appliance(home) as running:
        running.start(demo=True)
        running.run("set_scaling", "minilm", *SMALL)
        yield running


class Clients:
    """Requests in a closed loop, one after the other in each thread, until the block ends."""

    def __init__(self, appliance, key):
        self._appliance, self._key = appliance, key
        self._over = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(CLIENTS)
        self.statuses, self.vectors = [], []

    def ask(self):
        """One request; what it was answered with."""
        request = urllib.request.Request(
            f"{self._appliance.api}/v1/embeddings",
            data=json.dumps({"model": "minilm", "input": "a mill by the river"}).encode(),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self.vectors.append(json.load(answer)["data"][0]["embedding"])
                self.statuses.append(answer.status)
        except OSError as error:
            self.statuses.append(repr(error))

    def _run(self):
        while not self._over.is_set():
            self.ask()

    def __enter__(self):
        for _ in range(CLIENTS):
            self._pool.submit(self._run)
        return self

    def __exit__(self, *_error):
        self._over.set()
        self._pool.shutdown(wait=True)


def shape(appliance):
    """What the only agent says it is, None while it is not ready."""
    agents = [one for one in appliance.run_json("fleet")["agents"] if one["state"] == "ready"]
    if len(agents) != 1:
        return None
    return agents[0]["workers"], agents[0]["threads"]


def wait_shape(appliance, wanted, words):
    wait_until(lambda: shape(appliance) == wanted, 90, f"{words}: {appliance.log_tails()}")


def decisions(appliance):
    """The newest, in words."""
    return [one["reason"] for one in appliance.run_json("decisions", "minilm")["decisions"]]


def test_it_grows_and_goes_back(appliance, key):
    """By load into the second core, back when idle; all is answered, and alike; the decisions say why."""
    wait_shape(appliance, SMALLEST, "it is cut by its limit")
    pid = appliance.pid_of("agents")
    with Clients(appliance, key) as clients:
        wait_shape(appliance, LARGEST, "it grows")
        count = len(clients.statuses)
        wait_until(lambda: len(clients.statuses) > count + 200, 60, "it serves as it is now")
    assert set(clients.statuses) == {200}
    first = clients.vectors[0]
    assert all(max(abs(a - b) for a, b in zip(first, one, strict=True)) < 0.05 for one in clients.vectors)
    wait_shape(appliance, SMALLEST, "it goes back")
    assert appliance.pid_of("agents") == pid
    assert any("no agent can be added" in words for words in decisions(appliance))
    assert any("that is not asked any more" in words for words in decisions(appliance))
    assert_conserved(appliance)


def test_what_dies_while_it_is_large(appliance, key):
    """The worker is killed, then the agent: it grows again, and every request is answered."""
    wait_shape(appliance, SMALLEST, "it is small")
    with Clients(appliance, key) as clients:
        wait_shape(appliance, LARGEST, "it grows")
        os.kill(appliance.pid_of("worker"), signal.SIGKILL)
        os.kill(appliance.pid_of("agents"), signal.SIGKILL)
        wait_until(lambda: appliance.log_tails() and shape(appliance) is not None, 60, "it is back")
        wait_shape(appliance, LARGEST, "it grows again")
    assert set(clients.statuses) == {200}
    wait_shape(appliance, SMALLEST, "it goes back")
    assert_conserved(appliance)


def test_without_a_limit_it_has_all_cores(appliance, key):
    """The limit is taken away: the running agent is changed, and a request finds it as it should be."""
    appliance.run("set_scaling", "minilm", "threads=none")
    try:
        wait_shape(appliance, LARGEST, "it has both cores")
        clients = Clients(appliance, key)
        clients.ask()
        assert clients.statuses == [200]
    finally:
        appliance.run("set_scaling", "minilm", "threads=1")
    wait_shape(appliance, SMALLEST, "it is cut again")

"""Processes killed outright under load: no request fails, and what was killed comes back."""

import os
import signal

import psutil
import pytest
from appliance_process import wait_until
from traffic import Traffic, assert_conserved

pytestmark = pytest.mark.slow

RPS = 50


def kill_under_load(appliance, key, part, seconds=8):
    """Kill the process while requests arrive; returns the load's summary and the new process id."""
    old = appliance.pid_of(part)
    with Traffic(appliance, key, rps=RPS, seconds=seconds) as traffic:
        wait_until(lambda: flows(appliance), 10, "requests flow")
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(old) or is_zombie(old), 5, "it is gone")
        wait_until(lambda: successor(appliance, part, old), 30, f"{part} is back")
    return traffic.summary, successor(appliance, part, old)


def flows(appliance):
    agents = appliance.run_json("fleet")["agents"]
    return any(agent["state"] == "ready" for agent in agents)


def is_zombie(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def successor(appliance, part, old):
    found = [one.pid for one in appliance.processes() if part in one.cmdline() and one.pid != old]
    return found[0] if found else None


@pytest.mark.parametrize("part", ["agents", "control", "worker"])
def test_killed_process_costs_no_request(appliance, key, part):
    """With the only agent, the control plane or the worker killed, every request is answered."""
    summary, _ = kill_under_load(appliance, key, part)
    print(f"\nkill -9 {part}: {summary.requests} requests, longest {summary.latency.max_ms:.0f} ms")
    assert summary.requests >= RPS * 6
    assert (summary.failed, summary.statuses) == (0, {"200": summary.answered})
    assert_conserved(appliance)


def test_decisions_tell_of_the_restart(appliance):
    """The loop leaves a row that says why it started an agent again."""
    program = (
        "import django; django.setup(); from appliance.models import Decision; "
        "print('\\n'.join(Decision.objects.values_list('reason', flat=True)))"
    )
    done = appliance.run("shell", "-v", "0", "-c", program)
    assert "start" in done.stdout.lower()


def test_worker_and_agent_killed_together(appliance, key):
    """The new worker finds the agent gone, and held requests are served once it is back."""
    worker = appliance.pid_of("worker")
    agent = appliance.pid_of("agents")
    with Traffic(appliance, key, rps=RPS, seconds=10) as traffic:
        wait_until(lambda: flows(appliance), 10, "requests flow")
        os.kill(worker, signal.SIGKILL)
        os.kill(agent, signal.SIGKILL)
    print(f"\nboth: longest {traffic.summary.latency.max_ms:.0f} ms")
    assert (traffic.summary.failed, traffic.summary.statuses) == (0, {"200": traffic.summary.answered})
    assert_conserved(appliance)


def test_new_worker_adopts_running_agents(appliance, key):
    """A worker killed with SIGKILL leaves the agent serving, and its successor keeps that very process."""
    agent = appliance.pid_of("agents")
    kill_under_load(appliance, key, "worker", seconds=6)
    wait_until(lambda: flows(appliance), 20, "the agent is ready")
    assert appliance.pid_of("agents") == agent

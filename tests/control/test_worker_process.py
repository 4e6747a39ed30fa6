"""The real worker with a real gateway and real agents (a fake engine): kills, restarts, signals."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from provisioning.local import LocalNode, end_all

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
SET_UP = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0); call_command("migrate", database="history", verbosity=0)
from django.conf import settings
from appliance.authority import ensure_authority
from appliance.deployments import deploy
from appliance.keys import create_key
from appliance.models import InferenceModel
ensure_authority(settings.ENVIRONMENT)
digest = "ab" * 32
(settings.ENVIRONMENT.models_dir / digest).mkdir()
InferenceModel.objects.create(name="tiny", source="dir:/tiny", state="ready", digest=digest,
    manifest={"engine": "fake", "digest": digest, "size_bytes": 1000})
deploy("mini", model="tiny", actor="test")
print(create_key("test", actor="test").secret)
"""
FLEET = """
import django; django.setup()
import json
from appliance.control.lease import worker_alive
from appliance.models import Agent, Decision, Deployment
print(json.dumps({
    "alive": worker_alive(), "deployments": Deployment.objects.count(),
    "agents": list(Agent.objects.values("id", "pid", "port", "state", "attempt")),
    "actions": sum(Decision.objects.values_list("actions", flat=True), []),
}))
"""
UNDEPLOY = """
import django; django.setup()
from appliance.deployments import undeploy
undeploy("mini", actor="test")
"""


class Home:
    """A state directory with a gateway and a worker of its own."""

    def __init__(self, path):
        self.path = path
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            second.bind(("127.0.0.1", 0))
            self.control_port, self.port = first.getsockname()[1], second.getsockname()[1]
        self.environment = {
            **os.environ, "APPLIANCE_HOME": str(path), "APPLIANCE_PORT": str(self.control_port),
            "GATEWAY_PORT": str(self.port), "DJANGO_SETTINGS_MODULE": "appliance.settings",
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        self.processes = []
        self.key = self.run(SET_UP).strip()

    def run(self, program):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=self.environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments, **given):
        with (self.path / "logs" / "test.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL, stderr=log, **given,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def worker(self, **given):
        return self.start("manage.py", "worker", **given)

    def fleet(self):
        return json.loads(self.run(FLEET))

    def ask(self):
        """One request; its status and how long it took."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/embeddings",
            json.dumps({"model": "mini", "input": "hello"}).encode(),
            {"authorization": f"Bearer {self.key}", "content-type": "application/json"},
        )
        begun = time.monotonic()
        with urllib.request.urlopen(request, timeout=70) as answer:
            return answer.status, time.monotonic() - begun

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(10)
        end_all(self.path, 2.0)


def wait_for(condition, timeout_s=20.0):
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("the condition was not met in time")


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    try:
        home.start("-m", "appliance.gateway", "--name", "gateway-1")
        wait_for((home.path / "run" / "gateway-1.sock").exists)
        yield home
    finally:
        home.close()


def ready_agent(home):
    return wait_for(lambda: next((one for one in home.fleet()["agents"] if one["state"] == "ready"), None))


def test_agents_survive_and_come_back(home):
    """A killed agent's successor answers the request that was held; a killed worker's adopts the agent."""
    worker = home.worker()
    wait_for(lambda: LocalNode(home.path).running())
    assert home.ask()[0] == 200
    before = ready_agent(home)

    os.kill(before["pid"], signal.SIGKILL)
    status, waited_s = home.ask()
    assert (status, waited_s < 60) == (200, True)
    again = wait_for(
        lambda: next((one for one in home.fleet()["agents"] if one["pid"] != before["pid"]), None)
    )
    assert (again["id"], again["port"]) == (before["id"], before["port"])
    assert f"restart {before['id']}: the process was ended by signal 9" in home.fleet()["actions"]

    worker.kill()
    worker.wait(10)
    assert not home.fleet()["alive"]
    home.worker()
    wait_for(lambda: home.fleet()["alive"])
    assert {one.pid for one in LocalNode(home.path).running().values()} == {again["pid"]}
    assert home.ask()[0] == 200

    home.run(UNDEPLOY)
    wait_for(lambda: home.fleet()["deployments"] == 0)
    assert LocalNode(home.path).running() == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_worker_alone(home, number):
    """Either signal ends it, also where SIGINT was ignored at the start; agents go on, the lease is free."""
    worker = home.worker(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    agent = ready_agent(home)
    worker.send_signal(number)
    assert worker.wait(10) == 0
    assert [one.pid for one in LocalNode(home.path).running().values()] == [agent["pid"]]
    assert not home.fleet()["alive"]

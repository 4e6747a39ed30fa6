"""Starts the control process on a home of its own, with rows in it, for a browser to look at."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from dashboard_builders import ScriptedApi, ScriptedGateway

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a-long-password"
_SEED = """
import time
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from appliance.models import *
from appliance.publish import write_routes
User.objects.create_superuser("admin", "", "{password}")
now = timezone.now()
node = Node.objects.create(
    name="local", address="127.0.0.1", seen_at=now + timedelta(hours=1),
    hardware={{"cores_physical": 2, "ram_bytes": 8_000_000_000, "cpu_model": "Example CPU"}},
)
model = InferenceModel.objects.create(
    name="minilm", source="pypi:example==1.0", state="ready", digest="ab" * 32,
    manifest={{"size_bytes": 24_000_000}},
)
deployment = Deployment.objects.create(name="minilm", model=model, min_agents=1, max_agents=4, desired=2)
revision = Revision.objects.create(deployment=deployment, number=1, model=model, digest=model.digest)
deployment.revision = revision
deployment.save()
profile = {{"workers": 2, "batch_size": 8, "threads": 1}}
for name, error in (("minilm-aaaaaa", ""), ("minilm-bbbbbb", "exit code 3: <img src=x onerror=alert(1)>")):
    Agent.objects.create(
        id=name, deployment=deployment, revision=revision, node=node, host="127.0.0.1", port=20001,
        profile=profile, state="failed" if error else "ready", error=error,
    )
reasons = (
    "mean concurrency 14.2 over 60 s asks for 2 agents of 11.2 each",
    "one agent failed and is replaced: 'minilm-9d02be' ended with exit code 3",
    "no request for 300 s: back to the minimum",
)
for index, reason in enumerate(reasons):
    Decision.objects.create(
        at=now - timedelta(minutes=4 * index + 1), deployment="minilm", trigger="tick",
        before=2 - index % 2, want=2, after=1 + index % 2, reason=reason,
    )
t = int(time.time())
for ago in range(1, 240):
    MetricPoint.objects.create(
        series="deployment:minilm", resolution_s=1, at=t - ago,
        values={{
            "rps": 36 + ago % 9, "p50_ms": 6 + ago % 3, "p95_ms": 17 + ago % 5, "in_flight": ago % 5,
            "queued": int(ago % 11 == 0), "ready": 1, "tokens_per_s": 480, "failed_per_s": 0,
        }},
    )
    MetricPoint.objects.create(
        series="node:local", resolution_s=1, at=t - ago,
        values={{"cpu_percent": 40 + ago % 13, "memory_percent": 25}},
    )
write_routes()
"""


class Stage:
    """What a test may touch: the address, the home, and the scripted gateway's two sides."""

    def __init__(self, home, environment, url, gateway, api):
        self.home, self.environment, self.url, self.gateway, self.api = home, environment, url, gateway, api
        self.process = None

    def start(self):
        """Start the control process, and wait until it answers."""
        log = (self.home / "logs" / "control.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "control"],
                cwd=ROOT,
                env=self.environment,
                stderr=log,
                stdout=log,
            )
        until = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=2):
                    return
            except OSError:
                assert self.process.poll() is None, self.log()
                assert time.monotonic() < until, self.log()
                time.sleep(0.05)

    def stop(self, number=signal.SIGTERM):
        """End it, and give its exit code."""
        self.process.send_signal(number)
        return self.process.wait(15)

    def log(self):
        return (self.home / "logs" / "control.log").read_text()


@contextmanager
def stage(home: Path, *, seeded: bool = True, gateway: bool = True, more: str = ""):
    """A control process that runs inside the block. `more` is a program that adds rows to the seed's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home.mkdir(mode=0o700, exist_ok=True)
    for part in ("run", "logs"):
        (home / part).mkdir(mode=0o700, exist_ok=True)
    api = ScriptedApi(home / "routes.json")
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "appliance.settings",
        "APPLIANCE_HOME": str(home),
        "APPLIANCE_PORT": str(port),
        "GATEWAY_PORT": str(api.port),
    }
    seed = (_SEED.format(password=PASSWORD) if seeded else _only_user()) + more
    for command in (
        ["migrate", "-v0"],
        ["migrate", "-v0", "--database", "history"],
        ["shell", "-v0", "-c", seed],
    ):
        subprocess.run(
            [sys.executable, "manage.py", *command], cwd=ROOT, env=environment, check=True, timeout=120
        )
    inner = ScriptedGateway(home / "run") if gateway else None
    scene = Stage(home, environment, f"http://127.0.0.1:{port}", inner, api)
    try:
        scene.start()
        yield scene
    finally:
        if scene.process is not None and scene.process.poll() is None:
            scene.process.kill()
            scene.process.wait(10)
        api.close()
        if inner is not None:
            inner.close()


def _only_user() -> str:
    return (
        "from django.contrib.auth.models import User; "
        f"User.objects.create_superuser('admin', '', '{PASSWORD}')"
    )

"""The appliance as its users start it: `manage.py up --demo`, an API key, TLS between gateway and agents."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.processes import BenchError, process_running, wait_until
from tests.bench.servers import ROOT, Server, find_free_port

#: The first start fetches and converts the model.
READY_S = 240.0
_FOREIGN = ("TLS_CERT", "TLS_KEY", "DATABASE_URL", "REDIS_URL", "APPLIANCE_BIND", "APPLIANCE_HOSTS")


class Ours:
    """An appliance in a state directory of its own; started again it keeps model and key."""

    def __init__(self, scratch: Path) -> None:
        self.name = "millwright"
        self.settings = "as `make run` sets it up: through the gateway, with an API key, TLS to the agents"
        self._scratch = scratch
        self.home = scratch / "home"
        self._key_file = scratch / "key"
        self._env = {name: value for name, value in os.environ.items() if name not in _FOREIGN} | {
            "APPLIANCE_HOME": str(self.home),
            "APPLIANCE_PORT": str(find_free_port()),
            "GATEWAY_PORT": str(find_free_port()),
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """Start it, wait for READY, make a key if there is none yet."""
        log = self._scratch / "ours.log"
        command = (sys.executable, ROOT / "manage.py", "up", "--demo")
        with process_running(command, log, env=self._env, cwd=ROOT) as process:
            wait_until(
                "READY", lambda: "READY dashboard=" in log.read_text(errors="replace"), process, READY_S
            )
            if not self._key_file.exists():
                self._create_key()
            port = self._env["GATEWAY_PORT"]
            yield Server(self.name, f"http://127.0.0.1:{port}/v1/embeddings", self._key_file)

    def find_model(self) -> Path:
        """The directory of the demo's model, once it was started."""
        manifests = sorted((self.home / "models").glob("[0-9a-f]*/manifest.json"))
        if len(manifests) != 1:
            raise BenchError(f"{len(manifests)} models in {self.home}/models, one was expected")
        return manifests[0].parent

    def _create_key(self) -> None:
        done = subprocess.run(
            [sys.executable, ROOT / "manage.py", "create_key", "bench", "--json"],
            env=self._env, cwd=ROOT, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            raise BenchError(f"create_key: {done.stderr.decode().strip()[-300:]}")
        self._key_file.touch(0o600)
        self._key_file.write_text(json.loads(done.stdout)["key"])

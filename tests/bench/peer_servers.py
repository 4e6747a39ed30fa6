"""The peers, in an environment of their own at the checkout's root."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import BenchError, process_running
from tests.bench.servers import ROOT, Server, find_free_port

ENVIRONMENT = ROOT / ".venv-peers"
PEERS = Path(__file__).with_name("peers")
INSTALL_S = 900.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer and how it is set up. `scratch` tells whether its script wants a directory of its own."""

    name: str
    settings: str
    script: str
    model: Path
    log_dir: Path
    scratch: bool = False

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """Start the peer; it may not answer yet. Raises BenchError."""
        install_environment()
        port = find_free_port()
        log = self.log_dir / f"{Path(self.script).stem}.log"
        env = dict(os.environ) | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        command: list[str | Path] = [
            ENVIRONMENT / "bin" / "python",
            PEERS / self.script,
            self.model,
            str(port),
        ]
        with contextlib.ExitStack() as stack:
            if self.scratch:  # Ray's socket paths are long, so this one must be short
                command.append(stack.enter_context(tempfile.TemporaryDirectory(prefix="mwb-", dir="/tmp")))
            process = stack.enter_context(process_running(command, log, env=env, cwd=PEERS))
            server = Server(self.name, f"http://127.0.0.1:{port}/v1/embeddings")
            try:
                yield server
            except BenchError as error:
                if process.exited() is None:
                    raise
                raise BenchError(f"ended with code {process.exited()}: {process.last_line()}") from error


def build_peers(model: Path, log_dir: Path) -> list[Peer]:
    """The three peers, each serving `model`."""
    fastapi = "one process, handler in FastAPI's thread pool, no batching"
    batched = "two {}, batches of up to 32 within 2 ms"
    return [
        Peer("FastAPI", fastapi, "serve_fastapi.py", model, log_dir),
        Peer("LitServe", batched.format("workers"), "serve_litserve.py", model, log_dir),
        Peer("Ray Serve", batched.format("replicas"), "serve_ray.py", model, log_dir, scratch=True),
    ]


def install_environment() -> None:
    """Make the environment, or leave it where it already fits the locked requirements. Raises BenchError."""
    requirements = PEERS / "requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    stamp = ENVIRONMENT / "requirements.sha256"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing the peers into {ENVIRONMENT.name} (once)", file=sys.stderr, flush=True)
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    command: list[str | Path] = [
        ENVIRONMENT / "bin" / "python",
        "-m",
        "pip",
        "install",
        "-q",
        "--require-hashes",
        "-r",
        requirements,
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"not installed within {INSTALL_S:.0f} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.decode().splitlines() if line.startswith("ERROR")]
        raise BenchError(f"not installed: {(lines or ['pip failed'])[-1][:300]}")
    stamp.write_text(wanted)


def read_versions() -> dict[str, str]:
    """The pinned versions that matter, by distribution."""
    wanted = ("fastapi", "litserve", "ray", "ctranslate2", "uvicorn")
    versions: dict[str, str] = {}
    for line in (PEERS / "requirements.txt").read_text().splitlines():
        name, separator, rest = line.partition("==")
        name = name.partition("[")[0]
        if separator and name in wanted:
            versions[name] = rest.split()[0].rstrip("\\;")
    return versions

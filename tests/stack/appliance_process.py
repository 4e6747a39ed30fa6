"""A real appliance for a test: `manage.py up` in a state directory and on ports of its own."""

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
READY_S = 180


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on right now, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Wait for a condition; fails naming it when time is up."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)


class Appliance:
    """One `up` and what it started. Use as a context manager, so that nothing outlives a test."""

    def __init__(self, home: Path, *, ports: Sequence[int] | None = None, root: Path = ROOT) -> None:
        self.home, self.root = home, root
        self.control_port, self.gateway_port = ports or free_ports(2)
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str] = queue.Queue()
        self.transcript: list[str] = []

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: os.environ[name] for name in os.environ if name.startswith(("PATH", "PIP", "SSL", "LANG"))
        }
        return kept | {
            "HOME": os.environ.get("HOME", "/"),
            "APPLIANCE_HOME": str(self.home),
            "APPLIANCE_PORT": str(self.control_port),
            "GATEWAY_PORT": str(self.gateway_port),
        }

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    def start(
        self, *, demo: bool = False, command: Sequence[str] | None = None, wait: bool = True
    ) -> "Appliance":
        """Start, and wait for READY."""
        arguments = list(command or (sys.executable, "manage.py", "up", *(["--demo"] if demo else [])))
        self.process = subprocess.Popen(
            arguments, cwd=self.root, env=self.environment, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.lines = queue.Queue()  # what an earlier start said is over
        threading.Thread(target=self._read, args=(self.process, self.lines), daemon=True).start()
        if wait:
            self.wait_for_line("READY", READY_S)
        return self

    def _read(self, process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
        for line in process.stdout:
            self.transcript.append(line)
            lines.put(line)
        lines.put("")
        process.stdout.close()

    def wait_for_line(self, start: str, timeout_s: float) -> str:
        """The next line of output that begins so; fails with the whole output when none comes."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                line = ""
            if line.startswith(start):
                return line
            assert line, f"no line {start!r} in:\n{''.join(self.transcript)}{self.log_tails()}"

    def log_tails(self) -> str:
        """The end of each log, for a failed test's message."""
        logs = sorted((self.home / "logs").rglob("*.log"))
        return "".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}\n" for log in logs)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End `up` and wait for it."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            for left in self.processes():
                left.kill()

    def processes(self) -> list[psutil.Process]:
        """Every process on this machine that carries this state directory, `up` among them."""
        found = []
        for process in psutil.process_iter():
            try:
                arguments = process.cmdline()
                environ = process.environ()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            ours = environ.get("APPLIANCE_HOME") == str(self.home)
            if process.pid != os.getpid() and (ours or any(str(self.home) in part for part in arguments)):
                found.append(process)
        return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    def pid_of(self, part: str) -> int:
        """The process id of the one process whose arguments contain `part`."""
        found = [one.pid for one in self.processes() if part in " ".join(one.cmdline()).split()]
        assert len(found) == 1, f"{part}: {found}"
        return found[0]

    def run(
        self, *arguments: str, check: bool = True, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One command of `manage.py` in this appliance; `given` is its input."""
        source = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=self.root, env=self.environment,
            capture_output=True, text=True, timeout=180, check=False, **source,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def open(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that goes on, with pipes to it and from it."""
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments], cwd=self.root, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run_json(self, *arguments: str) -> dict:
        """The JSON document that a command prints."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def create_key(self, name: str, *arguments: str) -> str:
        """The text of a new key."""
        return self.run_json("create_key", name, *arguments)["key"]


def copy_home(template: Path, home: Path) -> Path:
    """A state directory with the same models and deployments, for an appliance of its own."""
    shutil.copytree(template, home, ignore=shutil.ignore_patterns("*.sock", "*.lock", "logs"))
    home.chmod(0o700)
    return home

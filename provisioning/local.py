"""Agents on the appliance's own machine: child processes that outlive whoever started them.

An agent runs in a session of its own and is recorded in a file, so that the next worker knows
it again, by pid and start time, and never signals a process that merely got the same pid.
"""

import contextlib
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil

from provisioning import processes
from provisioning.errors import ProvisioningError
from provisioning.facts import Hardware, cpu, memory, operating_system
from provisioning.file_lock import LockHeld, hold_lock
from provisioning.process_records import ProcessRecord, read_record, read_records, write_file, write_record
from provisioning.processes import AgentProcess

CHECKOUT: Final = Path(__file__).resolve().parent.parent
PROGRAM: Final = ("-m", "agents")
LOG_LIMIT_BYTES: Final = 5 * 1024 * 1024
LOG_TAIL_BYTES: Final = 64 * 1024
LOG_LINE_CHARACTERS: Final = 1000
LOCK_TIMEOUT_S: Final = 10.0
#: What an agent sees of the environment; nothing else is handed on, so no secret is.
ENVIRONMENT: Final = (
    "PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "TZ", "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS", "KMP_AFFINITY", "KMP_BLOCKTIME", "MKL_NUM_THREADS", "MKL_CBWR",
    "CT2_FORCE_CPU_ISA", "CT2_USE_MKL",
)  # fmt: skip
_AGENT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_POLL_S: Final = 0.02
# Children of this process by (home, agent), so that their exit codes can be collected. Shared by
# all LocalNode objects: a worker makes one wherever it needs one.
_children: dict[tuple[Path, str], "subprocess.Popen[bytes]"] = {}
_children_lock = threading.Lock()
_usage_read = threading.Event()


class LocalNode:
    """The appliance's own machine as a node.

    `home` is the state directory. `root` is where the packages lie that agents run from, `program`
    what the interpreter is told to run before `--config FILE`. Safe to use from several threads and
    processes at once.
    """

    def __init__(
        self,
        home: Path,
        python: str = sys.executable,
        root: Path = CHECKOUT,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._home = home.absolute()
        self._python = python
        self._root = root
        self._program = tuple(program)

    def install(
        self,
        agent: str,
        config: Mapping[str, object],
        certificate_pem: bytes,
        key_pem: bytes,
        ca_pem: bytes,
    ) -> None:
        """Write what the agent starts from: config.json with `tls` filled in, certificate, key and CA.

        Harmless to repeat. Raises ProvisioningError where the agent's name or the disk does not allow it.
        """
        folder = self._folder(agent)
        tls = {"ca": "ca.pem", "certificate": "cert.pem", "key": "key.pem"}
        # The key before its certificate: with the new certificate the pair is whole.
        files = {"ca.pem": ca_pem, "key.pem": key_pem, "cert.pem": certificate_pem}
        whole = {**config, "tls": {name: str(folder / file) for name, file in tls.items()}}
        files["config.json"] = json.dumps(whole, indent=1).encode()
        with _disk_errors(f"agent {agent!r} could not be installed"):
            _make_private_folder(folder)
            for name, content in files.items():
                write_file(folder / name, content)

    def start(self, agent: str) -> AgentProcess:
        """Start the agent, or return the one that runs already, whoever started it.

        Raises ProvisioningError where it was never installed or the system refuses to start it.
        """
        config = self._config_path(agent)
        if not config.is_file():
            raise ProvisioningError(f"agent {agent!r} is not installed: {config} is missing", permanent=True)
        with _disk_errors(f"agent {agent!r} could not be started"), self._lock():
            living = self._living(agent) or processes.find_agent(agent, config)
            if living is None:
                living = self._launch(agent, config)
            write_record(self._record_path(agent), ProcessRecord(agent, living.pid, living.create_time))
            return living

    def running(self) -> dict[str, AgentProcess]:
        """Every recorded agent that is alive, also those that an earlier worker started."""
        found = (self._living(record.agent) for record in read_records(self._records))
        return {process.agent: process for process in found if process is not None}

    def stop(self, agent: str, *, kill: bool = False) -> None:
        """Send SIGTERM (or SIGKILL) and return at once; nothing happens to an agent that is not running."""
        process = self._living(agent)
        if process is not None:
            processes.send(process, signal.SIGKILL if kill else signal.SIGTERM)

    def forget(self, agent: str) -> None:
        """Remove record, files and logs of a stopped agent. Raises ProvisioningError while it runs."""
        folder = self._folder(agent)
        with _disk_errors(f"agent {agent!r} could not be removed"), self._lock():
            if self._living(agent) is not None:
                raise ProvisioningError(f"agent {agent!r} is still running: stop it first")
            with _children_lock:
                _children.pop((self._home, agent), None)
            for path in (self._record_path(agent), self.log_path(agent), _rotated(self.log_path(agent))):
                path.unlink(missing_ok=True)
            if folder.is_dir():
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()

    def exit_code(self, agent: str) -> int | None:
        """How the agent ended: its exit code, or minus the signal that ended it.

        None while it runs, and where nobody can know: the process that started it is gone.
        """
        self._living(agent)
        record = read_record(self._record_path(agent))
        return None if record is None else record.exit_code

    def last_log_lines(self, agent: str, count: int = 20) -> list[str]:
        """The end of the agent's log; long lines are cut, control characters become spaces."""
        try:
            with self.log_path(agent).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - LOG_TAIL_BYTES))
                text = file.read(LOG_TAIL_BYTES).decode(errors="replace")
        except OSError:
            return []
        lines = text.splitlines()[-count:] if count > 0 else []
        return [_printable(line[:LOG_LINE_CHARACTERS]) for line in lines]

    def log_path(self, agent: str) -> Path:
        """Where the agent's stdout and stderr go; the one before is beside it, with `.1` at the end."""
        return self._home / "logs" / "agents" / f"{_checked(agent)}.log"

    # --- inside ---

    @property
    def _records(self) -> Path:
        return self._home / "run" / "agents"

    def _folder(self, agent: str) -> Path:
        return self._home / "agents" / _checked(agent)

    def _config_path(self, agent: str) -> Path:
        return self._folder(agent) / "config.json"

    def _record_path(self, agent: str) -> Path:
        return self._records / f"{_checked(agent)}.json"

    def _launch(self, agent: str, config: Path) -> AgentProcess:
        log = self.log_path(agent)
        _make_private_folder(log.parent)
        _rotate(log)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(  # noqa: S603 - our own program and a path of ours, no shell
                [self._python, *self._program, "--config", str(config)],
                cwd=self._root,
                env=_environment(self._root),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                start_new_session=True,
                umask=0o077,
                preexec_fn=_default_signals,  # noqa: PLW1509 - it sets signals only and takes no lock
            )
        finally:
            os.close(handle)
        with _children_lock:
            _children[self._home, agent] = child
        return AgentProcess(agent, child.pid, processes.start_time(child.pid))

    def _living(self, agent: str) -> AgentProcess | None:
        """The recorded process if it is alive; of a dead child the exit code is collected and kept."""
        record = read_record(self._record_path(agent))
        if record is None or record.exit_code is not None:
            return None
        with _children_lock:
            child = _children.get((self._home, agent))
            ours = child is not None and child.pid == record.pid
            exit_code = child.poll() if child is not None and ours else None
        if exit_code is not None:
            with contextlib.suppress(OSError):  # a full disk hides an exit code, never an agent's end
                write_record(self._record_path(agent), replace(record, exit_code=exit_code))
            return None
        # A child of ours keeps its pid until it is collected; only of others may the pid be another's by now.
        if not ours and not processes.is_alive(record.pid, record.create_time, self._config_path(agent)):
            return None
        return AgentProcess(agent, record.pid, record.create_time)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One start or removal at a time in this home, over all threads and processes."""
        _make_private_folder(self._records)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold_lock(self._records / ".lock", LOCK_TIMEOUT_S))
            except LockHeld as held:
                raise ProvisioningError(str(held)) from None
            yield


def end_all(home: Path, timeout_s: float) -> list[str]:
    """End every agent of this home, with SIGTERM and after `timeout_s` with SIGKILL; return their names.

    Their records go away; their files and logs stay. Agents that were started but never recorded
    are found by their command line.
    """
    home = home.absolute()
    node = LocalNode(home)
    living = {process.pid: process for process in node.running().values()}
    for process in processes.find_agents(home / "agents"):
        living.setdefault(process.pid, process)
    _end(home, list(living.values()), timeout_s)
    for record in read_records(node._records):  # noqa: SLF001 - the same module
        node._record_path(record.agent).unlink(missing_ok=True)  # noqa: SLF001 - as above
    return sorted(process.agent for process in living.values())


def read_hardware() -> Hardware:
    """What this machine is. What cannot be read is 0 or ''."""
    processor = cpu.parse_cpu(_text(cpu.SOURCE))
    return Hardware(
        cores_physical=processor.cores_physical or psutil.cpu_count(logical=False) or os.cpu_count() or 0,
        cores_logical=processor.cores_logical or os.cpu_count() or 0,
        ram_bytes=memory.parse_ram_bytes(_text(memory.SOURCE)) or psutil.virtual_memory().total,
        cpu_model=processor.model or platform.processor(),
        flags=processor.flags,
        arch=platform.machine(),
        os=operating_system.parse_os_name(_text(operating_system.SOURCE)) or platform.platform(),
        python=platform.python_version(),
        cores_first_threads=processor.first_threads,
    )


@dataclass(frozen=True, slots=True)
class Usage:
    """How loaded this machine is, in percent; `cpu_percent` is None at the first reading of a process."""

    cpu_percent: float | None
    memory_percent: float


def read_usage() -> Usage:
    """CPU use since the last reading in this process (psutil keeps the counters), and memory in use now."""
    cpu_percent = psutil.cpu_percent(interval=None)
    first = not _usage_read.is_set()
    _usage_read.set()
    return Usage(None if first else cpu_percent, psutil.virtual_memory().percent)


def free_port(host: str) -> int:
    """A TCP port that nobody listens on at `host` now; another may take it before it is used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _end(home: Path, living: list[AgentProcess], timeout_s: float) -> None:
    for process in living:
        processes.send(process, signal.SIGTERM)
    left = _wait(home, living, timeout_s)
    for process in left:
        processes.send(process, signal.SIGKILL)
    left = _wait(home, left, timeout_s=5.0)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise ProvisioningError(f"agents did not end after SIGKILL: pid {pids}")


def _wait(home: Path, living: list[AgentProcess], timeout_s: float) -> list[AgentProcess]:
    """Wait for their end; return those still alive. Our own children are collected on the way."""
    until, asked = time.monotonic() + timeout_s, living
    while True:
        living = [process for process in living if processes.is_alive(process.pid, process.create_time)]
        with _children_lock:
            for process in asked:
                child = _children.get((home, process.agent))
                if child is not None:
                    child.poll()
        if not living or time.monotonic() > until:
            return living
        time.sleep(_POLL_S)


def _checked(agent: str) -> str:
    if not _AGENT_NAME.fullmatch(agent):
        raise ProvisioningError(
            f"{agent[:120]!r} is no name of an agent: letters, digits, '.', '_' and '-' are accepted",
            permanent=True,
        )
    return agent


def _environment(root: Path) -> dict[str, str]:
    passed = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return {**passed, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}


def _default_signals() -> None:
    """In the child, before it becomes the agent: forget what this process ignores or blocks."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _make_private_folder(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True, mode=0o700)


def _rotate(log: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(_rotated(log))


def _rotated(log: Path) -> Path:
    return log.with_name(log.name + ".1")


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else " " for character in line)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


@contextlib.contextmanager
def _disk_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProvisioningError(
            f"{what}: {error.strerror or error} ({error.filename or 'no file'})"
        ) from error

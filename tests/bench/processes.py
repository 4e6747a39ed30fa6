"""Processes of the benchmark: started in sessions of their own, ended by pid with all they started."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


class BenchError(Exception):
    """Something could not be measured; the message is for the table."""


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Whatever ends this process ends what it started: each signal raises KeyboardInterrupt."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def orphans_adopted() -> Iterator[None]:
    """Be the parent of every descendant whose own parent dies, so that none is lost sight of."""
    _set_subreaper(1)
    try:
        yield
    finally:
        _set_subreaper(0)


def _set_subreaper(value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0) != 0:
        raise BenchError(f"prctl: {os.strerror(ctypes.get_errno())}")


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process of ours with its output in a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def exited(self) -> int | None:
        """The exit code, None while it runs."""
        return self.process.poll()

    def last_line(self) -> str:
        """The last line it wrote, for an error message; at most 300 characters."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "(no output)"


@contextlib.contextmanager
def process_running(
    command: Sequence[str | Path], log: Path, *, env: Mapping[str, str], cwd: Path, stop_s: float = 30.0
) -> Iterator[RunningProcess]:
    """Run `command`; at the end SIGTERM, after `stop_s` SIGKILL; what it left behind is killed.

    The latter needs `orphans_adopted`, and no other children started meanwhile.
    """
    before = set(_read_children(os.getpid()))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=dict(env), cwd=cwd, start_new_session=True,
        )  # fmt: skip
    try:
        yield RunningProcess(process, log)
    finally:
        with _signals_ignored():
            _end(process, stop_s)
            _end_orphans(before)


def wait_until(what: str, is_so: Callable[[], bool], running: RunningProcess, timeout_s: float) -> None:
    """Wait for a condition. Raises BenchError where the process ends first or time runs out."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if running.exited() is not None:
            raise BenchError(f"ended with code {running.exited()} before {what}: {running.last_line()}")
        if time.monotonic() > deadline:
            raise BenchError(f"not {what} within {timeout_s:.0f} s: {running.last_line()}")
        time.sleep(0.05)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """A second Ctrl-C must not leave behind what the first one is ending."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen[bytes], stop_s: float) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(stop_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_orphans(before: set[int]) -> None:
    """Kill what the ended process left: it is now our child. Children of the killed follow in turn."""
    deadline = time.monotonic() + 10
    while orphans := set(_read_children(os.getpid())) - before:
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        if time.monotonic() > deadline:
            raise BenchError(f"processes {sorted(orphans)} do not end")


def _read_children(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += [int(child) for child in (task / "children").read_text().split()]
    return children

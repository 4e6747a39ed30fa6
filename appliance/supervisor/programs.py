"""The processes of one appliance on one machine, and how each is started."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.environment import Environment
from provisioning import processes

ROOT = Path(__file__).resolve().parent.parent.parent
#: A program that ends by itself starts again no sooner after its last start; the last one repeats.
RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 5.0)
#: A program that ran this long starts again without a wait.
STEADY_S = 30.0


@dataclass(frozen=True, slots=True)
class Program:
    """A program that `up` keeps running."""

    name: str
    arguments: tuple[str, ...]


def appliance_programs() -> tuple[Program, ...]:
    """Control plane, worker and gateway. The gateway first: it is what clients wait for."""
    manage = str(ROOT / "manage.py")
    return (
        Program("gateway", (sys.executable, "-m", "appliance.gateway", "--name", "gateway-1")),
        Program("worker", (sys.executable, manage, "worker")),
        Program("control", (sys.executable, manage, "control")),
    )


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    create_time: float

    def is_alive(self) -> bool:
        """Whether this very process still runs; one that ended but was not waited for does not."""
        return processes.is_alive(self.pid, self.create_time)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this very process; nothing happens where it is gone."""
        processes.send(processes.AgentProcess("", self.pid, self.create_time), number)


@dataclass(slots=True)
class Running:
    """A program with its process, and what the next restart depends on (monotonic seconds)."""

    program: Program
    process: subprocess.Popen[bytes]
    identity: ProcessIdentity
    started_at: float
    restarts: int = 0
    restart_at: float | None = field(default=None)


def restart_delay_s(restarts: int, ran_s: float) -> float:
    """How long to wait before the next start, after so many restarts in a row.

    What ran for some seconds is no loop that spins: one that is killed every 10 s never waits. A delay as
    long as that would grow with each kill, by as much as the one before came late.
    """
    if ran_s >= STEADY_S:
        return RESTART_DELAYS_S[0]
    return max(0.0, RESTART_DELAYS_S[min(restarts, len(RESTART_DELAYS_S) - 1)] - ran_s)


def start_program(program: Program, environment: Environment, now: float) -> Running:
    """Start a program in a session of its own, its output appended to its log.

    A session of its own keeps a terminal's Ctrl-C away from it: `up` alone decides the order in
    which things end.
    """
    log = environment.logs_dir / f"{program.name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            program.arguments,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "APPLIANCE_HOME": str(environment.home), "PYTHONUNBUFFERED": "1"},
        )
    return Running(program, process, identify(process.pid), now)


def identify(pid: int) -> ProcessIdentity:
    """The identity of a running process."""
    return ProcessIdentity(pid, processes.start_time(pid))


def last_lines(log: Path, count: int = 5) -> Sequence[str]:
    """The last lines of a log, for the one who has to find out why a program ended."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16 * 1024))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return ()

"""Processes of local agents, told apart by pid and start time, and by their command line."""

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

#: A start time is told to 10 ms, and a correction of the clock moves it by as much as was corrected.
START_TIME_TOLERANCE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """A living agent process; pid and start time together name it for ever."""

    agent: str
    pid: int
    create_time: float


def is_alive(pid: int, create_time: float, config: Path | None = None) -> bool:
    """Whether `pid` is still the process that started at `create_time` (and runs this configuration).

    A zombie is not alive, whoever its parent is.
    """
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - create_time) > START_TIME_TOLERANCE_S:
            return False
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return False
        command = process.cmdline()
        # A process that is ending has no command line any more, but it is there until it has ended.
        return config is None or not command or _runs(command, config)
    except psutil.AccessDenied:
        return False  # another user's process is none of ours
    except psutil.NoSuchProcess:
        return False


def send(process: AgentProcess, number: signal.Signals) -> None:
    """Send a signal to exactly this process, or to nobody."""
    with contextlib.suppress(psutil.NoSuchProcess):
        target = psutil.Process(process.pid)
        if is_alive(process.pid, process.create_time):
            target.send_signal(number)  # psutil checks the start time once more


def start_time(pid: int) -> float:
    """When a process started, in seconds since the epoch; now, where it has ended already."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return time.time()


def find_agent(agent: str, config: Path) -> AgentProcess | None:
    """A living process that runs this configuration, whether or not anybody recorded it."""
    for process in psutil.process_iter(["pid", "create_time", "cmdline"]):
        found = AgentProcess(agent, process.info["pid"], process.info["create_time"])
        if _runs(process.info["cmdline"], config) and is_alive(found.pid, found.create_time, config):
            return found
    return None


def find_agents(folder: Path) -> Iterator[AgentProcess]:
    """Every living process that runs the configuration of an agent in `folder`."""
    for process in psutil.process_iter(["pid", "create_time", "cmdline"]):
        agent = _agent_of(process.info["cmdline"], folder)
        if agent is not None:
            yield AgentProcess(agent, process.info["pid"], process.info["create_time"])


def _runs(command: Sequence[str] | None, config: Path) -> bool:
    return tuple(command or ())[-2:] == ("--config", str(config))


def _agent_of(command: Sequence[str] | None, folder: Path) -> str | None:
    if not command or len(command) < 2 or command[-2] != "--config":
        return None
    path = Path(command[-1])
    return path.parent.name if path.name == "config.json" and path.parent.parent == folder else None

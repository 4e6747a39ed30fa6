"""What a process takes: CPU time, resident memory, open descriptors, read from /proc."""

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Sample(NamedTuple):
    """One look at a process; `at` is of the monotonic clock."""

    at: float
    pid: int
    rss_bytes: int
    descriptors: int


def read_cpu_s(pid: int) -> float:
    """User and system time of a process since its start, all its threads. Raises OSError."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def read_thread_cpu_s(pid: int) -> dict[int, float]:
    """The same for each thread that lives, by its number. Raises OSError."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        found[int(task.name)] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return found


def read_waited_s(pid: int) -> float:
    """Time in which a process was ready to run and had no core, since its start. Raises OSError."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks) / 1e9


def read_sample(pid: int) -> Sample:
    """Memory and descriptors of a process now. Raises OSError where it is gone."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Sample(time.monotonic(), pid, pages * _PAGE_BYTES, len(list(Path(f"/proc/{pid}/fd").iterdir())))


class CpuWatch:
    """CPU time of processes by name since this was made, or since `restart`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._before = {name: read_cpu_s(pid) for name, pid in self._pids.items()}
        self._at = time.monotonic()

    def read(self) -> dict[str, float]:
        """Seconds of CPU by name, and `elapsed`."""
        used = {name: read_cpu_s(pid) - self._before[name] for name, pid in self._pids.items()}
        return used | {"elapsed": time.monotonic() - self._at}


class Looking(ABC):
    """Calls `look` each `every_s` in a thread of its own while the context lasts."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    @abstractmethod
    def look(self) -> None:
        """Look once."""

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            self.look()


class Sampler(Looking):
    """Looks at processes in a thread of its own while the context lasts.

    `find` gives the processes to look at by name, asked anew each time: a process may have a successor.
    """

    def __init__(self, find: Callable[[], Mapping[str, int]], every_s: float = 1.0) -> None:
        super().__init__(every_s)
        self.samples: dict[str, list[Sample]] = {}
        self._find = find

    def look(self) -> None:
        """One sample of each."""
        for name, pid in self._find().items():
            try:
                sample = read_sample(pid)
            except OSError:
                continue  # it has just ended
            self.samples.setdefault(name, []).append(sample)

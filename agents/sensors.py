"""Reads processor and memory. The one place of the agent that uses psutil."""

import os
import time
from typing import Final

import psutil

from agents.load import Sensed

#: Percentages over less than this are mostly the clock's grain (10 ms a core).
LEAST_S: Final = 0.08


def count_cores() -> int:
    """Physical cores that this process may use, at least one."""
    usable = len(os.sched_getaffinity(0))
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable))


class Sensors:
    """Percentages are means since the call before; the first call has nothing to compare with."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._cores = psutil.cpu_count() or 1
        self._process.cpu_percent()
        psutil.cpu_percent()
        self._cpu = (0, 0)
        self._cpu_at = time.monotonic()
        self._own_s, self._busy_s, self._all_s = _cpu_seconds()

    def read_cpu(self, now: float) -> tuple[int, int]:
        """Percent of all cores that this process and the whole machine have used of late.

        Measured anew where that was 80 ms ago or more: it costs about 30 microseconds, also when
        several ask. What cannot be measured (no file may be opened) stays. `now` is `time.monotonic()`.
        """
        if now - self._cpu_at >= LEAST_S:
            try:
                own_s, busy_s, all_s = _cpu_seconds()
            except OSError:
                return self._cpu
            passed_s = all_s - self._all_s
            if passed_s > 0:
                own = (own_s - self._own_s) / ((now - self._cpu_at) * self._cores)
                self._cpu = (_percent(own), _percent((busy_s - self._busy_s) / passed_s))
            self._own_s, self._busy_s, self._all_s, self._cpu_at = own_s, busy_s, all_s, now
        return self._cpu

    def read_rss(self) -> int:
        """Memory that this process has now, in bytes."""
        return int(self._process.memory_info().rss)

    def read(self) -> Sensed:
        """Measure now; takes well under a millisecond."""
        with self._process.oneshot():
            own = self._process.cpu_percent()
            rss = self._process.memory_info().rss
        return Sensed(
            cpu_percent=round(own / self._cores, 1),
            node_cpu_percent=psutil.cpu_percent(),
            rss_bytes=rss,
            node_available_bytes=psutil.virtual_memory().available,
        )


def _cpu_seconds() -> tuple[float, float, float]:
    """Seconds since ever: of this process, of the machine not idle, of the machine altogether."""
    times = psutil.cpu_times()
    whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # twice in it
    idle = times.idle + getattr(times, "iowait", 0.0)
    return time.process_time(), whole - idle, whole


def _percent(share: float) -> int:
    return min(max(round(share * 100), 0), 100)

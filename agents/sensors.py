"""Reads processor and memory. The one place of the agent that uses psutil."""

import psutil

from agents.load import Sensed


class Sensors:
    """Percentages are means since the call before; the first call has nothing to compare with."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._cores = psutil.cpu_count() or 1
        self._process.cpu_percent()
        psutil.cpu_percent()

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

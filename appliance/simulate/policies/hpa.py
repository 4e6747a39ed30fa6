"""Kubernetes' horizontal pod autoscaler on CPU at its defaults: 80 %, every 15 s, down to the most of 300 s.

The CPU of an agent is the share of its slots that execute. Agents that start use none and count so
when it would scale up, as missing metrics do.
"""

import math
from collections import deque

from appliance.simulate.plant import Plant, Seen

TARGET = 0.8
SYNC_S = 15.0
TOLERANCE = 0.1
STABILIZATION_S = 300.0
#: At most doubling or four more, whichever is more, in 15 s.
UP_PODS, UP_RATE = 4, 2.0


class HorizontalPods:
    """The controller; it knows no zero."""

    name = "hpa-cpu"
    initial = 1

    def __init__(self, plant: Plant) -> None:
        self._slots = plant.slots
        self._at = 0.0
        self._busy_s = 0.0
        self._wanted: deque[tuple[float, int]] = deque()

    def want(self, seen: Seen) -> int:
        """The decision at a tick; between its own ticks nothing changes."""
        if seen.now - self._at < SYNC_S:
            return max(1, seen.current)
        cores = (seen.busy_s - self._busy_s) / (seen.now - self._at) / self._slots
        self._at, self._busy_s = seen.now, seen.busy_s
        want = self._recommend(cores, max(1, seen.ready), max(1, seen.current))
        self._wanted.append((seen.now, want))
        while self._wanted[0][0] <= seen.now - STABILIZATION_S:
            self._wanted.popleft()
        held = min(max(seen.current, 1), max(one for _, one in self._wanted))
        return max(1, want, held)

    def _recommend(self, cores: float, ready: int, current: int) -> int:
        ratio = cores / ready / TARGET
        if abs(1 - ratio) <= TOLERANCE:
            return current
        if ratio > 1 and current > ready:
            ratio = cores / current / TARGET
            if ratio <= 1 + TOLERANCE:
                return current
            ready = current
        want = math.ceil(ratio * ready)
        return min(want, max(current + UP_PODS, math.ceil(current * UP_RATE)))

"""Ray Serve's autoscaler at its defaults: two requests a replica over 30 s, up after 30 s, down after 600."""

import math
from collections import deque

from appliance.simulate.plant import Plant, Seen

TARGET_ONGOING = 2.0
LOOK_BACK_S = 30.0
UP_DELAY_S = 30.0
DOWN_DELAY_S = 600.0


class RayServe:
    """The policy with its two delays: a change comes when all agreed on its direction for so long."""

    name = "ray-serve"
    initial = 1

    def __init__(self, plant: Plant) -> None:
        del plant
        self._totals: deque[tuple[float, float]] = deque()
        self._direction = 0
        self._since = 0.0

    def want(self, seen: Seen) -> int:
        """The decision at a tick; it knows no zero."""
        self._totals.append((seen.now, seen.concurrency_s))
        while self._totals[0][0] < seen.now - LOOK_BACK_S:
            self._totals.popleft()
        at, total = self._totals[0]
        current = max(1, seen.current)
        if at >= seen.now:
            return current
        want = max(1, math.ceil((seen.concurrency_s - total) / (seen.now - at) / TARGET_ONGOING))
        direction = (want > current) - (want < current)
        if direction != self._direction:
            self._direction, self._since = direction, seen.now
        delay_s = UP_DELAY_S if direction > 0 else DOWN_DELAY_S
        if direction and seen.now - self._since >= delay_s:
            self._direction = 0
            return want
        return current

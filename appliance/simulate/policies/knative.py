"""Knative's pod autoscaler (KPA) at its defaults, concurrency metric, hard limit = slots.

As `pkg/autoscaler/scaling/autoscaler.go` has it: two averages, panic that only adds, bounded steps; to zero
after a quiet stable window and 30 s of grace; a request held by the activator calls it at once.
"""

import math
from collections import deque

from appliance.simulate.plant import Plant, Seen

UTILIZATION = 0.7
STABLE_S = 60.0
PANIC_S = 6.0
PANIC_THRESHOLD = 2.0
MAX_UP_RATE = 1000.0
MAX_DOWN_RATE = 2.0
GRACE_S = 30.0


class Knative:
    """The decider with its panic state; `decide` is the core, `want` adds windows and scale to zero."""

    name = "knative"
    initial = 1

    def __init__(
        self, plant: Plant, *, target: float | None = None, max_down_rate: float = MAX_DOWN_RATE
    ) -> None:
        self._target = UTILIZATION * plant.slots if target is None else target
        self._max_down_rate = max_down_rate
        self._totals: deque[tuple[float, float]] = deque()
        self._panic_at: float | None = None
        self._panic_peak = 0
        self._inactive_at: float | None = None

    @property
    def panicking(self) -> bool:
        """Whether it only adds for now."""
        return self._panic_at is not None

    def decide(self, now: float, ready: int, stable: float, panic: float) -> int:
        """Agents for mean concurrencies over both windows, with `ready` agents serving."""
        base = max(1, ready)
        most = math.ceil(MAX_UP_RATE * base)
        least = math.floor(base / self._max_down_rate)
        asked_stable, asked_panic = math.ceil(stable / self._target), math.ceil(panic / self._target)
        want_stable = min(max(asked_stable, least), most)
        want_panic = min(max(asked_panic, least), most)
        over = asked_panic / base >= PANIC_THRESHOLD
        if over:
            self._panic_at = now
        elif self._panic_at is not None and now - self._panic_at > STABLE_S:
            self._panic_at, self._panic_peak = None, 0
        if self._panic_at is None:
            return want_stable
        self._panic_peak = max(self._panic_peak, want_panic)
        return self._panic_peak

    def want(self, seen: Seen) -> int:
        """The decision at a tick."""
        self._totals.append((seen.now, seen.concurrency_s))
        while len(self._totals) > 1 and self._totals[1][0] <= seen.now - STABLE_S:
            self._totals.popleft()
        if seen.held:
            self._inactive_at = None
            return max(1, seen.current)
        if seen.now <= 0:
            return seen.current
        want = self.decide(seen.now, seen.ready, self._mean(seen, STABLE_S), self._mean(seen, PANIC_S))
        return self._to_zero(seen, want)

    def _to_zero(self, seen: Seen, want: int) -> int:
        if want > 0:
            self._inactive_at = None
            return want
        if seen.current == 0:
            return 0
        if self._inactive_at is None:
            self._inactive_at = seen.now
        return 0 if seen.now - self._inactive_at >= GRACE_S else 1

    def _mean(self, seen: Seen, length_s: float) -> float:
        before = next(
            (pair for pair in self._totals if pair[0] >= seen.now - length_s and pair[0] < seen.now), None
        )
        if before is None:
            return float(seen.in_flight + seen.queued)
        return (seen.concurrency_s - before[1]) / (seen.now - before[0])

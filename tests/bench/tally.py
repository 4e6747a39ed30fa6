"""What became of requests of several kinds, counted: goodput, latencies, refusals. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from appliance.load_test.summary import LatencyHistogram

#: What a generator that is late itself adds to a deadline that the gateway kept.
SLACK_S = 0.05


class Event(NamedTuple):
    """A request that was not answered with 200: due and ended when, what came, and the error's code."""

    due_at: float
    at: float
    kind: str
    outcome: str
    code: str


class _Counts:
    def __init__(self, deadline_s: float | None) -> None:
        self.deadline_s = deadline_s
        self.offered = self.in_time = self.late = 0
        self.statuses: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self.answered = LatencyHistogram()
        self.refused = LatencyHistogram()
        self.refused_wire = LatencyHistogram()

    def to_json(self, window_s: float) -> dict[str, Any]:
        return {
            "offered": self.offered,
            "in_time": self.in_time,
            "late": self.late,
            "goodput_rps": self.in_time / window_s,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "failures": dict(sorted(self.failures.items())),
            "answered_ms": _read(self.answered),
            "refused_ms": _read(self.refused),
            "refused_wire_ms": _read(self.refused_wire),
        }


class Tally:
    """Counts by kind and in all; `window_s` from `started_at` is the time in which requests are begun.

    An answer is `in_time` where it is a 200 that came within its deadline and within the window:
    what is answered after it was not done at that rate. `late` ones passed their deadline.
    """

    def __init__(self, kinds: Sequence[tuple[str, float | None]], started_at: float, window_s: float) -> None:
        self._started_at, self._window_s = started_at, window_s
        self._kinds = {name: _Counts(deadline_s) for name, deadline_s in kinds}
        self._all = _Counts(None)
        self._lag = LatencyHistogram()
        self._seconds: Counter[int] = Counter()

    def offer(self, kind: str) -> None:
        """A request was due."""
        self._kinds[kind].offered += 1
        self._all.offered += 1

    def lag(self, seconds: float) -> None:
        """It was written so much later."""
        self._lag.add(seconds)

    def answer(self, kind: str, status: int, at: float, latency_s: float, wire_s: float) -> None:
        """It was answered at `at`, `latency_s` after it was due and `wire_s` after it was written."""
        mine = self._kinds[kind]
        late = mine.deadline_s is not None and latency_s > mine.deadline_s + SLACK_S
        in_window = at - self._started_at <= self._window_s
        for counts in (mine, self._all):
            counts.statuses[status] += 1
            if status == 200:
                counts.answered.add(latency_s)
                counts.late += late
                counts.in_time += in_window and not late
            elif status == 429:
                counts.refused.add(latency_s)
                counts.refused_wire.add(wire_s)
        if status == 200 and in_window and not late:
            self._seconds[int(at - self._started_at)] += 1

    def fail(self, kind: str, cause: str) -> None:
        """It ended without an answer."""
        for counts in (self._kinds[kind], self._all):
            counts.failures[cause] += 1

    def to_json(self) -> dict[str, Any]:
        """`all` and `kinds` with their counts and quantiles in ms, the generator's own `lag_ms`."""
        whole = int(self._window_s)
        return {
            "window_s": self._window_s,
            "all": self._all.to_json(self._window_s),
            "kinds": {name: counts.to_json(self._window_s) for name, counts in self._kinds.items()},
            "lag_ms": _read(self._lag),
            "in_time_by_second": [self._seconds[second] for second in range(whole)],
        }


def fair_shares(capacity: float, demands: Mapping[str, float]) -> dict[str, float]:
    """What each gets of a capacity where none can get more at the cost of one who has less (max-min).

    Worked number: 100 among demands of 10, 60 and 200 are 10, 45 and 45.
    """
    shares: dict[str, float] = {}
    left = capacity
    for place, (name, demand) in enumerate(sorted(demands.items(), key=lambda pair: pair[1])):
        shares[name] = min(demand, left / (len(demands) - place))
        left -= shares[name]
    return shares


def fit_slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Least squares: units of y for one of x; None of fewer than three points or no spread."""
    if len(points) < 3:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        return None
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def cost_per_refusal_us(
    cpu_s: float, idle_cpu_s: float, answered: int, cost_per_answer_us: float, refused: int
) -> float | None:
    """What is left of a process's CPU time for each refused request, in microseconds.

    `idle_cpu_s` is what it takes in the same time without requests; None where nothing was refused.
    Worked number: 2.1 s, of which 0.1 s idle, with 10,000 answers at 100 us: 1 s for 20,000
    refusals is 50 us each.
    """
    if not refused:
        return None
    return (cpu_s - idle_cpu_s - answered * cost_per_answer_us / 1e6) / refused * 1e6


def _read(histogram: LatencyHistogram) -> dict[str, float | None]:
    figures = histogram.figures()
    return {
        "count": histogram.count,
        "p50": figures.p50_ms,
        "p95": figures.p95_ms,
        "p99": figures.p99_ms,
        "max": figures.max_ms,
    }

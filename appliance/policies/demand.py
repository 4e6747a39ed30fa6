"""How many requests come, and how long each executes, from cumulative counters. Standard library only.

The rate is taken over the last minute, or over up to five where so little comes that a minute says
nothing, unless the last minute contradicts them.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SHORT_S = 60.0
LONG_S = 300.0
#: So many requests tell the rate well enough; with fewer, longer windows are looked at.
ENOUGH = 60
#: The last minute contradicts a longer window where it is off by more than so many standard deviations.
CONTRADICTS = 1.5
#: A trend counts as far as it is beyond so many standard deviations of chance, whole at one more.
TREND_BEYOND = 1.0
#: History finer than this is kept only for the short window.
COARSE_S = 10.0
#: Answers after which half of the service time's estimate is new.
SERVICE_MEMORY = 50

Counters = tuple[int, int, float]


@dataclass(frozen=True, slots=True)
class Demand:
    """`history` are (time, requests accepted so far); `service_s` is the mean time a request executes.

    `counters` maps each gateway process to what it had counted: accepted, finished, service seconds.
    """

    history: tuple[tuple[float, int], ...] = ()
    service_s: float | None = None
    counters: Mapping[str, Counters] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "history": [list(pair) for pair in self.history],
            "service_s": self.service_s,
            "counters": {name: list(counted) for name, counted in self.counters.items()},
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "Demand":
        """The opposite of `to_json`. Raises what conversions raise on anything else."""
        service_s = given.get("service_s")
        return cls(
            tuple((float(at), int(total)) for at, total in given.get("history", ())),
            None if service_s is None else float(service_s),
            {str(k): (int(v[0]), int(v[1]), float(v[2])) for k, v in given.get("counters", {}).items()},
        )

    def arrived(self, now: float, length_s: float) -> tuple[int, float]:
        """Requests of the last `length_s` seconds or a little more, and their length; (0, 0.0) unknown."""
        index = bisect_right(self.history, now - length_s + 1e-6, key=lambda pair: pair[0]) - 1
        if index < 0:
            return (0, 0.0)
        at, total = self.history[index]
        return (self.history[-1][1] - total, now - at)

    def spans_s(self, now: float) -> float:
        """How far back the history goes."""
        return now - self.history[0][0] if self.history else 0.0


NO_DEMAND = Demand()


def observe(
    demand: Demand, counted: Iterable[tuple[str, float, Counters]], now: float, *, keep_s: float = LONG_S
) -> Demand:
    """Take in what gateways counted: (process, started at, counters).

    A process that is new since the history began counts from its start; one that was there before the
    history adds nothing at first sight.
    """
    total = demand.history[-1][1] if demand.history else 0
    began = demand.history[0][0] if demand.history else now
    counters: dict[str, Counters] = dict(demand.counters)
    finished, service_s = 0, 0.0
    for process, started_at, now_counted in counted:
        before = counters.get(process, (0, 0, 0.0) if started_at >= began else now_counted)
        total += max(0, now_counted[0] - before[0])
        finished += max(0, now_counted[1] - before[1])
        service_s += max(0.0, now_counted[2] - before[2])
        counters[process] = now_counted
    history = _thin((*(pair for pair in demand.history if pair[0] < now), (now, total)), now, keep_s)
    return Demand(history, _learn(demand.service_s, finished, service_s), counters)


def forget(demand: Demand, processes: frozenset[str]) -> Demand:
    """Without the counters of gateways other than `processes`."""
    kept = {name: counted for name, counted in demand.counters.items() if name in processes}
    return Demand(demand.history, demand.service_s, kept)


def estimate_rate(demand: Demand, now: float) -> tuple[float, float, float] | None:
    """Mean requests a second, their change in each second, and over how long; None: nothing is known yet."""
    count, length_s = demand.arrived(now, SHORT_S)
    if length_s <= 0:
        length_s = demand.spans_s(now)
        if length_s <= 0:
            return None
        count = demand.history[-1][1] - demand.history[0][1]
    count, length_s = _lengthen(demand, now, count, length_s)
    return count / length_s, _trend(demand, now, count, length_s), length_s


def _lengthen(demand: Demand, now: float, count: int, length_s: float) -> tuple[int, float]:
    """The same over a longer window, where that tells more and does not contradict."""
    total = demand.history[-1][1]
    longer, longer_s = count, length_s
    for at, before in reversed(demand.history):
        if longer >= ENOUGH:
            break
        if now - at > longer_s:
            longer, longer_s = total - before, now - at
    expected = longer / longer_s * length_s
    if abs(count - expected) <= CONTRADICTS * math.sqrt(expected):
        return longer, longer_s
    return count, length_s


def _trend(demand: Demand, now: float, count: int, length_s: float) -> float:
    """The difference of the window's halves, as far as it is more than chance."""
    late, late_s = demand.arrived(now, length_s / 2)
    early_s = length_s - late_s
    if late_s <= 0 or early_s <= 0 or late_s < 10:
        return 0.0
    slope = (late / late_s - (count - late) / early_s) / (length_s / 2)
    chance = math.sqrt(2 * max(count, 1) / length_s / late_s) / (length_s / 2)
    return slope * min(1.0, max(0.0, abs(slope) / chance - TREND_BEYOND))


def _thin(history: tuple[tuple[float, int], ...], now: float, keep_s: float) -> tuple[tuple[float, int], ...]:
    kept: list[tuple[float, int]] = []
    for pair in history:
        age_s = now - pair[0]
        if age_s > keep_s + COARSE_S:
            continue
        if age_s > SHORT_S + 4 and kept and pair[0] // COARSE_S == kept[-1][0] // COARSE_S:
            continue
        kept.append(pair)
    return tuple(kept)


def _learn(known: float | None, finished: int, service_s: float) -> float | None:
    if not finished:
        return known
    mean = service_s / finished
    return mean if known is None else known + (mean - known) * finished / (SERVICE_MEMORY + finished)

"""How many requests come, and how long each executes, from cumulative counters. Standard library only.

The rate is a line through the last five minutes, three or two, the longest that what came of late does not
contradict; else the mean of the last minute, or of more where so little comes that a minute says nothing.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

SHORT_S = 60.0
LONG_S = 300.0
#: Lines are laid through spans of these lengths, and held against what came in the late ones.
LINES_S = (LONG_S, 180.0, 120.0)
LATE_S = (10.0, 20.0, 40.0, 60.0)
#: More than so many standard deviations above a line contradict it, or below it: too few agents cost more.
ABOVE, BELOW = 2.0, 3.0
#: So many requests tell the rate well enough; with fewer, longer windows are looked at.
ENOUGH = 60
#: The last minute contradicts a longer window where it is off by more than so many standard deviations.
CONTRADICTS = 1.5
#: A trend counts as far as it is beyond so many standard deviations of chance, whole at one more.
TREND_BEYOND = 1.0
#: History finer than this is kept only for the short window.
COARSE_S = 10.0
#: The service time is the mean of so many answers, or of the recent ones where these differ by more than so
#: many standard deviations. The recent ones alone are 10 % off by chance.
SERVICE_MEMORY, RECENT_MEMORY, DIFFERS = 1000.0, 50.0, 3.5

Counters = tuple[int, int, float]


@dataclass(frozen=True, slots=True)
class Demand:
    """`history` are (time, requests accepted so far); `service_s` is the mean time a request executes.

    `counters` maps each gateway process to what it had counted: accepted, finished, service seconds.
    `recent_s` is the mean time of the last few answers, `answers` how many `service_s` stands on.
    """

    history: tuple[tuple[float, int], ...] = ()
    service_s: float | None = None
    counters: Mapping[str, Counters] = field(default_factory=dict)
    recent_s: float | None = None
    answers: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "history": [list(pair) for pair in self.history],
            "service_s": self.service_s,
            "counters": {name: list(counted) for name, counted in self.counters.items()},
            "recent_s": self.recent_s,
            "answers": self.answers,
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "Demand":
        """The opposite of `to_json`. Raises what conversions raise on anything else."""
        service_s = given.get("service_s")
        recent_s = given.get("recent_s", service_s)
        return cls(
            tuple((float(at), int(total)) for at, total in given.get("history", ())),
            None if service_s is None else float(service_s),
            {str(k): (int(v[0]), int(v[1]), float(v[2])) for k, v in given.get("counters", {}).items()},
            None if recent_s is None else float(recent_s),
            float(given.get("answers", RECENT_MEMORY)),
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
    demand = replace(demand, history=history, counters=counters)
    return _learn(demand, finished, service_s / finished) if finished else demand


def forget(demand: Demand, processes: frozenset[str]) -> Demand:
    """Without the counters of gateways other than `processes`."""
    kept = {name: counted for name, counted in demand.counters.items() if name in processes}
    return replace(demand, counters=kept)


def estimate_rate(demand: Demand, now: float) -> tuple[float, float, float] | None:
    """Mean requests a second, their change in each second, and over how long; None: nothing is known yet.

    After five minutes of a rate that climbs from 8 to 12: (10.0, 0.0133, 300.0).
    """
    count, length_s = demand.arrived(now, SHORT_S)
    if length_s <= 0:
        length_s = demand.spans_s(now)
        if length_s <= 0:
            return None
        count = demand.history[-1][1] - demand.history[0][1]
    for span_s in LINES_S:
        line = _line(demand, now, span_s)
        if line is not None and _fits(demand, now, *line):
            return line
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


def _line(demand: Demand, now: float, span_s: float) -> tuple[float, float, float] | None:
    """Mean, slope and length of the line through what came in a span; None where too little is known.

    The slope counts as far as it is more than chance.
    """
    history = demand.history
    first = bisect_right(history, now - span_s + 1e-6, key=lambda pair: pair[0]) - 1
    if first < 0 or history[-1][1] - history[first][1] < ENOUGH:
        return None
    at, before = history[first]
    count, length_s, middle = history[-1][1] - before, now - at, (now + at) / 2
    moment = spread = 0.0
    for then, total in history[first + 1 :]:
        off = (then + at) / 2 - middle
        moment += off * (total - before)
        spread += off * off * (then - at)
        at, before = then, total
    if spread <= 0:
        return None
    slope, chance = moment / spread, math.sqrt(count / length_s / spread)
    slope *= min(1.0, max(0.0, abs(slope) / chance - TREND_BEYOND))
    return count / length_s, slope, length_s


def _fits(demand: Demand, now: float, mean: float, slope: float, length_s: float) -> bool:
    """Whether what came of late is what the line says, as far as chance allows."""
    for span_s in LATE_S:
        count, late_s = demand.arrived(now, span_s)
        expected = late_s * max(0.0, mean + slope * (length_s - late_s) / 2)
        deviation = math.sqrt(max(expected, 1.0))
        if not -BELOW * deviation <= count - expected <= ABOVE * deviation:
            return False
    return True


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


def _learn(demand: Demand, finished: int, mean_s: float) -> Demand:
    """So many more answers, of that mean time: all that are remembered count alike, until they changed."""
    recent_s = _mix(demand.recent_s, mean_s, finished, min(demand.answers, RECENT_MEMORY))
    service_s = _mix(demand.service_s, mean_s, finished, min(demand.answers, SERVICE_MEMORY))
    answers = min(demand.answers + finished, SERVICE_MEMORY)
    # Times that are exponential deviate by their mean; the recent mean stands on about 2 x its memory.
    if abs(recent_s - service_s) > DIFFERS * service_s / math.sqrt(2 * RECENT_MEMORY):
        service_s, answers = recent_s, min(answers, RECENT_MEMORY)
    return replace(demand, service_s=service_s, recent_s=recent_s, answers=answers)


def _mix(known: float | None, mean: float, number: int, memory: float) -> float:
    return mean if known is None else known + (mean - known) * number / (memory + number)

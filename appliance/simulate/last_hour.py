"""What the last hour would have been under other values: what came, on the plant, once by each policy. Pure.

What came is known tick by tick: the requests that gateways accepted, and how long the finished ones executed.
Within a tick they are spread evenly, so bursts shorter than a tick are not seen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from appliance.policies.scaling import GatewayLoad, ScalingPolicy
from appliance.simulate.plant import Outcome, Plant, Traffic, replay
from appliance.simulate.policies.ours import Ours
from appliance.simulate.recorded import Tick

#: How far back is looked, less where more requests came than are replayed in a few seconds.
SPAN_S, MOST_REQUESTS = 3600.0, 60_000
#: Of less nothing is said.
LEAST_S = 120.0
#: Longer than this between two ticks nobody looked: what came meanwhile is spread over that much.
_LONGEST_TICK_S = 60.0
_UNKNOWN_SERVICE_S = 0.5
_TICK_S = 2.0
#: Latency under load is none of its figures, and its agents do not grow; a replay goes by the other rules.
_NOT_PART_OF_THE_PLANT = ("target_p95_ms", "target_ttft_ms", "threads", "max_threads", "max_batch")


@dataclass(frozen=True, slots=True)
class Side:
    """What it costs and misses. `highest` is the largest number of agents that was wanted."""

    misses: int
    misses_percent: float
    agent_seconds: float
    cold_starts: int
    changes: int
    highest: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Old values beside new ones on the same requests, on agents of `slots` that take `start_s` to start.

    A miss is a wait of more than `slo_wait_s`, the new policy's, before a request executes. Where nothing
    could be compared there are no sides, and `why_not` says why. Of what is set, `left_out` is not replayed.
    """

    seconds: float
    requests: int
    service_s: float
    slots: int
    start_s: float
    slo_wait_s: float
    old: Side | None = None
    new: Side | None = None
    why_not: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Came:
    """What came in one tick; `weighed` are finished ones whose `tokens` were counted."""

    start: float
    end: float
    requests: int
    finished: int
    service_s: float
    weighed: int
    tokens: int


def compare_policies(ticks: Iterable[Tick], old: ScalingPolicy, new: ScalingPolicy) -> Comparison:
    """Both policies on what was recorded of the last hour."""
    ticks = [*ticks]
    until = ticks[-1].now if ticks else 0.0
    spans = _bounded([one for one in _arrivals(ticks) if one.start >= until - SPAN_S])
    seconds = spans[-1].end - spans[0].start if spans else 0.0
    requests = sum(one.requests for one in spans)
    slots = max(1, round(new.slots or old.slots or 1))
    most = max(old.max_agents, new.max_agents)
    plant = Plant(slots, new.start_s, _TICK_S, most, 0, new.slo_wait_s)
    finished = sum(one.finished for one in spans)
    mean_s = sum(one.service_s for one in spans) / finished if finished else _guess(new)
    tokens_each = sum(one.tokens for one in spans) / max(1, sum(one.weighed for one in spans))
    left_out = _left_out((old, new), tokens_each)
    known = Comparison(
        seconds, requests, mean_s, plant.slots, plant.start_s, plant.slo_wait_s, left_out=left_out
    )
    if seconds < LEAST_S or not requests:
        why = "no request came" if seconds >= LEAST_S else f"only {seconds:.0f} s are recorded yet"
        return replace(known, why_not=why)
    traffic = _traffic(spans, mean_s)
    first = next(tick for tick in ticks if tick.now >= spans[0].start)
    sides = []
    for policy in (old, new):
        initial = min(max(first.given.load.current, policy.min_agents), policy.max_agents)
        shown = Ours(_without(policy, left_out), initial=initial, tokens_each=tokens_each)
        sides.append(_side(replay(traffic, shown, plant)))
    return replace(known, old=sides[0], new=sides[1])


def _left_out(policies: Sequence[ScalingPolicy], tokens_each: float) -> tuple[str, ...]:
    """Targets of what the plant does not have: without their figures nothing would ever be lowered."""
    unknown = _NOT_PART_OF_THE_PLANT if tokens_each else (*_NOT_PART_OF_THE_PLANT, "target_tokens_per_s")
    return tuple(name for name in unknown if any(getattr(one, name) is not None for one in policies))


def _without(policy: ScalingPolicy, targets: Sequence[str]) -> ScalingPolicy:
    changes: dict[str, Any] = dict.fromkeys(targets)
    return replace(policy, **changes)


def _guess(policy: ScalingPolicy) -> float:
    if policy.slots and policy.capacity_rps:
        return policy.slots / policy.capacity_rps
    return _UNKNOWN_SERVICE_S


def _arrivals(ticks: Sequence[Tick]) -> list[_Came]:
    """What each tick added to gateways' totals. A process counts from the second time it is seen."""
    before: dict[str, GatewayLoad] = {}
    spans = []
    for index, tick in enumerate(ticks):
        requests = finished = weighed = tokens = 0
        service_s = 0.0
        for seen in tick.given.load.gateways:
            was = before.get(seen.process)
            if was is not None:
                requests += max(0, (seen.accepted or 0) - (was.accepted or 0))
                answered = max(0, (seen.finished or 0) - (was.finished or 0))
                finished += answered
                service_s += max(0.0, (seen.service_s or 0.0) - (was.service_s or 0.0))
                if seen.tokens is not None and was.tokens is not None:
                    weighed, tokens = weighed + answered, tokens + max(0, seen.tokens - was.tokens)
            before[seen.process] = seen
        if index:
            start = max(ticks[index - 1].now, tick.now - _LONGEST_TICK_S)
            spans.append(_Came(start, max(tick.now, start), requests, finished, service_s, weighed, tokens))
    return spans


def _bounded(spans: Sequence[_Came]) -> Sequence[_Came]:
    """The newest that hold no more requests than are replayed."""
    count = 0
    for index in range(len(spans) - 1, -1, -1):
        count += spans[index].requests
        if count > MOST_REQUESTS:
            return spans[index + 1 :]
    return spans


def _traffic(spans: Sequence[_Came], mean_s: float) -> Traffic:
    """Arrivals from 0 on; each executes as long as those that finished in its tick did in the mean."""
    begin = spans[0].start
    arrivals: list[float] = []
    services: list[float] = []
    for one in spans:
        length = one.end - one.start
        arrivals += [
            one.start - begin + length * (number + 0.5) / one.requests for number in range(one.requests)
        ]
        services += [one.service_s / one.finished if one.finished else mean_s] * one.requests
    return Traffic("last hour", arrivals, services, spans[-1].end - begin)


def _side(outcome: Outcome) -> Side:
    return Side(
        outcome.misses, round(outcome.slo_misses_percent, 3), round(outcome.agent_seconds, 1),
        outcome.cold_starts, outcome.changes, max((wanted for _, wanted, _, _ in outcome.series), default=0),
    )  # fmt: skip

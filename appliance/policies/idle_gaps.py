"""Whether an idle deployment keeps an agent, from how long it was idle before. Standard library only.

Idle gaps are counted by their length in bins that grow; from them follows a plan: at which ages of a gap an
agent is there. It is the cheapest one, an agent-second being one and a call that finds no agent
`miss_s`, that expects no more such calls than an agent kept for `keep_s` would leave. At the end of each
gap the plan is held against keeping one for `keep_s`: it is used only while it is clearly the cheaper.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

#: The first bin begins there: shorter gaps are not counted, and an agent is kept so long in any case.
FIRST_S = 5.0
#: Each bin is wider than the one before by this factor; the last ends after three and a half hours.
GROWTH, BINS = 1.15, 56
EDGES_S = tuple(FIRST_S * GROWTH**number for number in range(BINS + 1))
#: A gap counts less with each further one, as if there were only so many.
MEMORY = 60.0
#: Gaps that must have been planned for before a plan is used, and how much better than none it must be.
TRIALS, BETTER = 6, 0.9
#: Costs count less with each further gap.
FADE = 0.95
#: To stop an agent and start one again is worth so many agent-seconds, beside the start itself.
CHANGE_S = 30.0
#: Misses weigh at most so many times what they are worth, to have no more of them than without a plan.
MOST_WEIGHT, WEIGHT_STEP = 16.0, 1.4

Plan = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class IdleGaps:
    """`counts` by bin; the `plan`: ages (from, until) at which an agent is there.

    `cost` and `plain_cost` are faded sums of agent-seconds and misses, by the plans and without.
    """

    counts: tuple[float, ...] = ()
    plan: Plan = ()
    cost: float = 0.0
    plain_cost: float = 0.0
    trials: int = 0

    @property
    def used(self) -> bool:
        """Whether it has shown that it is better than none."""
        return self.trials >= TRIALS and self.cost < BETTER * self.plain_cost

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "counts": list(self.counts), "plan": [list(span) for span in self.plan], "cost": self.cost,
            "plain_cost": self.plain_cost, "trials": self.trials,
        }  # fmt: skip

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "IdleGaps":
        """The opposite of `to_json`. Raises what conversions raise on anything else."""
        counts = tuple(float(count) for count in given["counts"])
        if len(counts) not in (0, BINS):
            return cls()
        return cls(
            counts, tuple((float(since), float(until)) for since, until in given["plan"]),
            float(given["cost"]), float(given["plain_cost"]), int(given["trials"]),
        )  # fmt: skip


NO_GAPS = IdleGaps()


def observe_gap(gaps: IdleGaps, gap_s: float, *, miss_s: float, keep_s: float, lead_s: float) -> IdleGaps:
    """A gap is over: judge the plan made for it, count it, plan the next. `lead_s` is an agent's start."""
    if gap_s < FIRST_S:
        return gaps
    fade = 1 - 1 / MEMORY
    if gaps.plan:
        plain = cost_of(((0.0, keep_s),), gap_s, miss_s=miss_s, lead_s=lead_s)
        gaps = replace(
            gaps,
            cost=round(gaps.cost * FADE + cost_of(gaps.plan, gap_s, miss_s=miss_s, lead_s=lead_s), 3),
            plain_cost=round(gaps.plain_cost * FADE + plain, 3),
            trials=min(gaps.trials + 1, 1_000_000),
        )
    place = min(bisect_right(EDGES_S, gap_s) - 1, BINS - 1)
    counts = [count * fade for count in gaps.counts] or [0.0] * BINS
    # The next one may be a little shorter or longer.
    for near, part in ((place - 1, 0.25), (place, 0.5), (place + 1, 0.25)):
        counts[min(max(near, 0), BINS - 1)] += part
    kept = tuple(round(count, 4) for count in counts)
    return replace(gaps, counts=kept, plan=make_plan(kept, miss_s=miss_s, keep_s=keep_s, lead_s=lead_s))


def is_planned(plan: Plan, age_s: float, lead_s: float) -> bool:
    """Whether an agent is there at that age of a gap, or has to start to be there in time."""
    return any(_ordered_at(since, lead_s) <= age_s < until for since, until in plan)


def cost_of(plan: Plan, gap_s: float, *, miss_s: float, lead_s: float) -> float:
    """What a plan would have cost in a gap of that length.

    Kept for 10 s and there again from 290 s on, a gap of 300 s costs 10 + 10 + 5 for the start + 30 more.
    """
    cost = 0.0
    for since, until in plan:
        ordered_s = _ordered_at(since, lead_s)
        if gap_s > ordered_s:
            cost += min(gap_s, until) - ordered_s + (CHANGE_S if since > 0 else 0.0)
    there = any(since <= gap_s < until for since, until in plan)
    return cost + (0.0 if there else miss_s)


def make_plan(counts: Sequence[float], *, miss_s: float, keep_s: float, lead_s: float) -> Plan:
    """The cheapest plan that expects no more misses than an agent kept for `keep_s`.

    Calls each five minutes: kept for five seconds, and there again from 253 s on. Calls each hour or so,
    never the same: kept for five seconds.
    """
    total = sum(counts)
    allowed = sum(count * _part_after(keep_s, number) for number, count in enumerate(counts)) / total
    weight = 1.0
    while True:
        plan, missed = _cheapest(counts, total, weight * miss_s, lead_s)
        if missed <= allowed or weight >= MOST_WEIGHT:
            return plan
        weight *= WEIGHT_STEP


def _cheapest(counts: Sequence[float], total: float, miss_s: float, lead_s: float) -> tuple[Plan, float]:
    """The cheapest plan and the share of gaps it misses: bin by bin, from the last to the first."""
    left = there_then = gone_then = 0.0
    stays, starts = [False] * BINS, [False] * BINS
    for number in range(BINS - 1, -1, -1):
        share = counts[number] / total
        there = (EDGES_S[number + 1] - EDGES_S[number]) * (left + share / 2) + there_then
        gone = miss_s * share + gone_then
        left += share
        again = there + (lead_s + CHANGE_S) * left
        stays[number], starts[number] = there <= gone and left > 0, again < gone
        there_then, gone_then = min(there, gone), min(gone, again)
    plan, since, missed = [], 0.0, 0.0
    is_there = True
    for number in range(BINS):
        now = stays[number] if is_there else starts[number]
        if now != is_there:
            if is_there:
                plan.append((since, round(EDGES_S[number], 1)))
            since = round(EDGES_S[number], 1)
        is_there = now
        missed += 0.0 if now else counts[number] / total
    if is_there:
        plan.append((since, round(EDGES_S[BINS], 1)))
    return tuple(plan), missed


def _ordered_at(since: float, lead_s: float) -> float:
    return max(0.0, since - lead_s) if since > 0 else 0.0


def _part_after(age_s: float, number: int) -> float:
    """The part of a bin that is beyond an age."""
    first, last = EDGES_S[number], EDGES_S[number + 1]
    return min(1.0, max(0.0, (last - age_s) / (last - first)))


assert math.isclose(EDGES_S[BINS], 12_537, rel_tol=0.01)

"""The agent that is expected to have answered first, even if that one is busy now and another is not."""

from collections.abc import Sequence

from appliance.policies.balancing.seam import DOUBT_SHARE, Choice, Nothing, Target, Wait, register

#: What is not better by a twentieth counts as equal, and equals take turns.
BETTER = 0.95
#: Waiting must gain a tenth: what is expected may not come true.
WORTH_WAITING = 0.9
#: Waiting for a fast one until nobody gains by it would keep slow ones idle and make all wait for long.
#: For a free slot this share of those who gain must be behind, for a place ahead of the next batch more.
PATIENCE = 0.6
PATIENCE_AHEAD = 2.0
_NEVER = float("inf")


@register("expected_completion", compares=True)
def pick(targets: Sequence[Target], turn: int, now: float, work: float, behind: int) -> Choice:
    """The one with room that ends first: what it has before it, its time for this work, and doubt.

    Worked number: agents of 10 and 40 ms, the first with 3 ms to go. It answers three requests in
    13, 23 and 33 ms, so the idle one gets work as soon as three wait behind this one.
    """
    count = len(targets)
    best, best_s, full_s = -1, _NEVER, _NEVER
    for place in range(turn, turn + count):
        index = place % count
        target = targets[index]
        limit, in_flight = target.limit, target.in_flight
        if limit <= 0:
            continue
        done_s = _done_s(target, target.fixed_s + target.per_work_s * work, now)
        if in_flight >= limit:
            full_s = min(full_s, done_s)
        elif done_s < best_s * BETTER:
            best, best_s = index, done_s
    if best < 0:
        return Nothing.ALL_FULL if count else Nothing.NO_AGENT
    if full_s >= best_s * WORTH_WAITING:
        return best
    wait, sooner = _wait(targets, best_s, now, work)
    patience = PATIENCE if targets[best].in_flight < targets[best].slots else PATIENCE_AHEAD
    return best if behind >= sooner * patience else wait


def _done_s(target: Target, own_s: float, now: float) -> float:
    """In how many seconds a request that takes `own_s` there would be answered.

    Of one slot it is known when it is free. Many slots share the machine: half of them busy makes
    half as much again. What is overdue by so much may take as long again.
    """
    done_s, in_flight, slots = own_s, target.in_flight, target.slots
    if in_flight:
        left_s = target.busy_until - now
        if slots > 1:
            done_s += in_flight * own_s / slots
        elif left_s > 0:
            done_s += left_s
        if left_s < 0 and in_flight >= slots:
            done_s -= left_s
    doubt_s = target.doubt_until - now
    return done_s + doubt_s * DOUBT_SHARE if doubt_s > 0 else done_s


def _wait(targets: Sequence[Target], best_s: float, now: float, work: float) -> tuple[Wait, int]:
    """When to look again, and how many the full ones will have answered before `best_s` has passed."""
    sooner, for_s, soonest_s = 0, best_s, _NEVER
    for target in targets:
        if target.in_flight < target.limit or target.limit <= 0:
            continue
        own_s = target.fixed_s + target.per_work_s * work
        done_s = _done_s(target, own_s, now)
        if done_s > best_s:
            continue
        sooner += 1 + int((best_s - done_s) * target.slots / own_s)
        if done_s < soonest_s:
            soonest_s = done_s
            for_s = done_s + best_s - 2 * own_s  # by then it is as late as waiting would gain
    return Wait(for_s), sooner

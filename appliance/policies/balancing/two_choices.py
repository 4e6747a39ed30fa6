"""The less loaded of two agents: for several gateways, which would all run to the same best one."""

from collections.abc import Sequence

from appliance.policies.balancing.seam import Nothing, Target, register


@register("two_choices", compares=False)
def pick(targets: Sequence[Target], turn: int, now: float, _work: float, _behind: int) -> int | Nothing:
    """Of the next in turn and one at a distance drawn from the clock, the one with less in flight per slot.

    Where both are full, the first with room behind them.
    """
    count = len(targets)
    if count == 0:
        return Nothing.NO_AGENT
    first = turn % count
    one = targets[first]
    if count > 1:
        second = (first + 1 + (int(now * 1e6) * 40503 >> 8) % (count - 1)) % count
        other = targets[second]
        if one.in_flight < one.limit:
            if other.in_flight < other.limit and other.in_flight * one.slots < one.in_flight * other.slots:
                return second
            return first
        if other.in_flight < other.limit:
            return second
    for step in range(count):
        index = (first + step) % count
        if targets[index].in_flight < targets[index].limit:
            return index
    return Nothing.ALL_FULL

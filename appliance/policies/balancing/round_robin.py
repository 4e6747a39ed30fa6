"""Each agent in its turn, whatever its size: the baseline that others are measured against."""

from collections.abc import Sequence

from appliance.policies.balancing.seam import Nothing, Target, register


@register("round_robin", compares=False)
def pick(targets: Sequence[Target], turn: int, _now: float, _work: float, _behind: int) -> int | Nothing:
    """The first agent with room, beginning at `turn`."""
    count = len(targets)
    if count == 0:
        return Nothing.NO_AGENT
    for step in range(count):
        index = (turn + step) % count
        if targets[index].in_flight < targets[index].limit:
            return index
    return Nothing.ALL_FULL

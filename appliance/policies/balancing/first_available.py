"""The first agent with a free slot, always in the same order: the others stay idle and may be released."""

from collections.abc import Sequence

from appliance.policies.balancing.seam import Nothing, Target, register


@register("first_available", compares=False)
def pick(targets: Sequence[Target], _turn: int, _now: float, _work: float, _behind: int) -> int | Nothing:
    """The first with a free slot; where none has one, the first that takes work ahead."""
    if not targets:
        return Nothing.NO_AGENT
    spare = -1
    for index, target in enumerate(targets):
        if target.in_flight < target.limit:
            if target.in_flight < target.slots:
                return index
            if spare < 0:
                spare = index
    return spare if spare >= 0 else Nothing.ALL_FULL

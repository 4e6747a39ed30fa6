"""When a lane asks its node, and when it tries again. Pure; all times in seconds."""

from dataclasses import dataclass
from typing import Final

from appliance.control.node_problems import Trouble
from provisioning.errors import HostKeyChanged, KeyRefused, KeyUnusable

#: Each try of these leaves a line in the box's log, and may count with what guards it against guessing.
_SLOWER: Final = frozenset(kind.code for kind in (HostKeyChanged, KeyRefused, KeyUnusable))


@dataclass(frozen=True, slots=True)
class Pace:
    """How often. A question costs the node about 0.1 s of one core."""

    rest_s: float = 3.0
    lively_s: float = 0.75
    #: After a job or a change the node is looked at closely for so long.
    lively_for_s: float = 5.0
    hello_s: float = 10.0
    facts_s: float = 60.0
    #: While something is wrong that facts can show gone.
    facts_again_s: float = 10.0
    retry_s: float = 0.5
    #: Until then a box may just be restarting.
    short_break_s: float = 60.0
    slower_retry_s: float = 5.0
    longest_retry_s: float = 10.0

    def pause(self, trouble: Trouble, now: float) -> float:
        """How long to wait after a try that failed: 0.5 s in the first minute, then 1 s, 10 s after ten."""
        lasts_s = now - trouble.since
        if trouble.problem.code in _SLOWER:
            return self.slower_retry_s if lasts_s < self.short_break_s else self.longest_retry_s
        if lasts_s < self.short_break_s:
            return self.retry_s
        return min(self.longest_retry_s, max(2 * self.retry_s, lasts_s / self.short_break_s))

    def until_look(self, looked_at: float, changed_at: float, passing: bool, now: float) -> float:  # noqa: FBT001 - a fact among others
        """How long until the node is looked at again; `passing` where agents there change by themselves."""
        lively = passing or now - changed_at < self.lively_for_s
        return looked_at + (self.lively_s if lively else self.rest_s) - now

"""How an agent's certificate is replaced while it serves. Standard library only.

Gateways accept each certificate that the routes list for an agent, so the order is: list the new one;
once every gateway accepts it, write it to the node; once the agent has loaded it, list no other.
A loop that died in between is followed by one that knows the list, but not the new one's key: it
issues another, and none is unlisted before it is known what the agent shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.policies.snapshot import Generation

#: At most so many certificates are accepted from one agent.
MAX_LISTED = 4
#: An agent looks at its files each second: after so long it shows what they hold.
LOAD_S = 10.0
#: Files that are not seen on the node are written again after this.
WRITE_AGAIN_S = 60.0

Step = Literal["issue", "wait", "write", "confirm"]


@dataclass(slots=True)
class UnderWay:
    """A renewal that this loop began: the new certificate (SHA-256 of the DER) and the routes that list it.

    `written_at` is when it was last sent to the node, `seen_at` since when it has been seen there.
    """

    sha256: str
    generation: Generation
    written_at: float | None = None
    seen_at: float | None = None

    def see(self, installed: str, now: float) -> None:
        """Take in which certificate lies on the node, '' where that is not known."""
        if installed != self.sha256:
            self.seen_at = None
        elif self.seen_at is None or self.seen_at > now:  # the clock may have been put back
            self.seen_at = now


def next_step(
    listed: Sequence[str], under_way: UnderWay | None, installed: str, *, served: bool, now: float
) -> Step:
    """What to do for an agent whose certificate is due.

    `served` says whether every gateway accepts what `under_way` listed. Without one, or where the list was
    replaced meanwhile, a certificate is issued, unless that would unlist what the agent may show.
    """
    if under_way is None or under_way.sha256 not in listed:
        return "wait" if len(listed) >= MAX_LISTED and not installed else "issue"
    if under_way.seen_at is not None:
        return "confirm" if now - under_way.seen_at >= LOAD_S else "wait"
    if not served or _lately(under_way.written_at, now):
        return "wait"
    return "write"


def extend(listed: Sequence[str], new: str, installed: str) -> list[str]:
    """The list with a new certificate at its end.

    Where it is full, an earlier one goes that is neither the first nor `installed`: those an agent may show.
    """
    kept = list(listed)
    while len(kept) >= MAX_LISTED:
        kept.remove(next(one for one in kept[1:] if one != installed))
    return [*kept, new]


def _lately(written_at: float | None, now: float) -> bool:
    return written_at is not None and 0 <= now - written_at < WRITE_AGAIN_S

"""Which agent the requests of one session go to: consistent hashing with bounded loads.

Each agent has places on a ring of numbers, drawn from its id; a session has one, drawn from its key, and
goes to the next agent on the ring. An agent that comes or goes moves only the sessions next to its own
places, about one in n. No agent is given more than `LOAD_FACTOR` times its share of what is in flight
(Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads"): the next on the ring takes
what is over, the same next one for a session each time.
"""

from bisect import bisect
from collections.abc import Container, Sequence
from hashlib import blake2b
from math import ceil
from struct import unpack
from typing import Final

from appliance.policies.balancing.seam import Target

LOAD_FACTOR: Final = 1.25

#: Places of each agent: with 32 their shares of the sessions differ by about a fifth.
PLACES: Final = 32
#: So many places are looked at. With a factor of 1.25 at most 4 of 5 agents can be at their bound, so one
#: that is not is among 32, but for once in a thousand; then the request is balanced as if it had no session.
LOOKS: Final = 32

_DIGEST_BYTES: Final = 64
_INDEX_BITS: Final = 20
_INDEX_MASK: Final = (1 << _INDEX_BITS) - 1


class Ring:
    """The places of some agents. It takes some 20 us an agent to make: keep it while they are the same."""

    __slots__ = ("_places",)

    def __init__(self, ids: Sequence[str]) -> None:
        # The low bits of a place say whose it is: its index in `ids`.
        self._places = sorted(
            place & ~_INDEX_MASK | index for index, name in enumerate(ids) for place in _draw(name)
        )

    def pick(
        self,
        session: bytes,
        targets: Sequence[Target],
        held: int,
        slots: int,
        avoid: Container[Target] | None = None,
    ) -> int | None:
        """The index of the agent for a session; None where those next to it have no room.

        `targets` are in the order of `ids`. They hold `held` requests and have `slots` altogether;
        those in `avoid` are passed over.

        Worked number: three agents of 4 slots, 11 requests in flight. With this one they are 12, so none may
        have more than ceil(1.25 x 12 x 4 / 12) = 5.
        """
        places = self._places
        count = len(places)
        if not count:
            return None
        first = bisect(places, int.from_bytes(blake2b(session, digest_size=8).digest(), "big"))
        fair = LOAD_FACTOR * (held + 1) / max(slots, 1)
        for step in range(first, first + min(count, LOOKS)):
            index = places[step % count] & _INDEX_MASK
            target = targets[index]
            in_flight = target.in_flight
            if in_flight >= target.limit or in_flight >= ceil(fair * target.slots):
                continue
            if avoid is None or target not in avoid:
                return index
        return None


def _draw(name: str) -> list[int]:
    """The places of one agent: 64-bit numbers that are the same wherever they are drawn."""
    places: list[int] = []
    for turn in range(PLACES * 8 // _DIGEST_BYTES):
        digest = blake2b(name.encode(), digest_size=_DIGEST_BYTES, salt=turn.to_bytes(2, "big")).digest()
        places += unpack(">8Q", digest)
    return places

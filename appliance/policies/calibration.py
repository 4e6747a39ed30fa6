"""Which agent measures itself now, if any. Pure.

It serves nobody for some seconds, so others must carry the load meanwhile; and what else runs on its
box would be measured with it. Where that cannot be had, the profile is learned from what is served.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

#: An agent must have been ready for so long: the first answers come before any measurement.
SETTLED_S: Final = 10.0
#: The others' slots may be taken by this share, with the work of the one that leaves.
LIGHT_LOAD: Final = 0.5
#: A box that is busier, in percent of all cores, would say too little of itself.
QUIET_PERCENT: Final = 25.0
#: After a measurement that came to nothing, the next of that kind.
AGAIN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A warm agent of the wanted revision that is ready, and what a measurement of it would meet.

    `other_slots` are those of other ready agents of its deployment; `active` its deployment's requests, in
    flight and queued, in all gateways. `busy_percent` is its node's, None where nobody said. `failed_at` is
    when one of this kind was last tried in vain.
    """

    agent: str
    node: str
    ready_for_s: float
    other_slots: int
    active: int
    queued: int
    busy_percent: float | None
    measured: bool
    ordered: bool
    failed_at: float | None = None


def choose_measurement(candidates: Sequence[Candidate], now: float) -> Candidate | None:
    """The agent to measure next: what people ordered first, then any kind of box not measured yet."""
    for candidate in candidates:
        if candidate.ordered and not waits_for(candidate):
            return candidate
    return _unasked(candidates, now)


def waits_for(candidate: Candidate) -> str:
    """What keeps an ordered measurement, in words; '' where nothing does."""
    if candidate.active == 0:
        return ""
    if candidate.other_slots == 0:
        return "no other agent can carry its load, and requests keep coming"
    if candidate.queued or candidate.active > candidate.other_slots:
        return "the other agents have no room for its load"
    return ""


def _unasked(candidates: Iterable[Candidate], now: float) -> Candidate | None:
    for one in candidates:
        if one.measured or one.ready_for_s < SETTLED_S or one.other_slots == 0:
            continue
        if one.failed_at is not None and now - one.failed_at < AGAIN_S:
            continue
        if one.queued or one.active > LIGHT_LOAD * one.other_slots:
            continue
        if one.busy_percent is not None and one.busy_percent <= QUIET_PERCENT:
            return one
    return None

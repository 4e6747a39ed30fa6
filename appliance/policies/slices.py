"""What was counted of late, from counters that only grow. Standard library only.

Kept are differences, in slices of a few seconds; so a lost report loses nothing, and a gateway that starts
again takes nothing away.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SLICE_S = 5.0
#: Of gateways that are gone, or just not heard, so many counters are kept.
MOST_GATEWAYS = 16

Counts = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slices:
    """`slices` are (begin, counts), oldest first; `counters` what each gateway had counted.

    `since` is when it began. All counts are of the same number of counters.
    """

    since: float = 0.0
    slices: tuple[tuple[float, Counts], ...] = ()
    counters: Mapping[str, Counts] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "since": self.since,
            "slices": [[at, list(counts)] for at, counts in self.slices],
            "counters": {name: list(counts) for name, counts in self.counters.items()},
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any], width: int) -> "Slices":
        """The opposite of `to_json`, of `width` counters. Raises what conversions raise on anything else."""
        return cls(
            float(given.get("since", 0.0)),
            tuple((float(at), _counts(counts, width)) for at, counts in given.get("slices", ())),
            {str(name): _counts(counts, width) for name, counts in given.get("counters", {}).items()},
        )

    def total(self, newest: int | None = None) -> Counts:
        """The sum of all slices, or of so many of the newest; () where there are none."""
        chosen = self.slices if newest is None else self.slices[-newest:]
        return tuple(map(sum, zip(*(counts for _, counts in chosen), strict=True)))


NO_SLICES = Slices()


def observe_counts(
    known: Slices, counted: Iterable[tuple[str, float, Counts]], now: float, window_s: float
) -> Slices:
    """Take in what gateways counted: (process, started at, counts). What is older than the window goes.

    A process that is new counts from its start; one that was there before this began adds nothing at first.
    """
    since = known.since if known.counters else now
    # A gateway that is not heard now goes on from what it had counted.
    counted = list(counted)
    counters = dict(list(known.counters.items())[-max(MOST_GATEWAYS, len(counted)) :])
    slices = dict(one for one in known.slices if now - one[0] < window_s)
    begin = now // SLICE_S * SLICE_S
    for process, started_at, counts in counted:
        none: Counts = (0,) * len(counts)
        before = counters.pop(process, none if started_at >= since else counts)
        sums = zip(slices.get(begin, none), counts, before, strict=True)
        slices[begin] = tuple(had + max(0, new - old) for had, new, old in sums)
        counters[process] = counts
    return Slices(since, tuple(sorted(slices.items())), counters)


def _counts(given: Iterable[Any], width: int) -> Counts:
    counts = tuple(int(count) for count in given)
    if len(counts) != width:
        raise ValueError(f"{len(counts)} counts, {width} are accepted")
    return counts

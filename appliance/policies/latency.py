"""How long requests took of late, from cumulative histograms. Standard library only.

Kept are differences, in slices of a few seconds; so a lost report loses nothing, and a gateway that starts
again takes nothing away.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.policies.report import LATENCY_BUCKETS_S, quantile

WINDOW_S = 20.0
SLICE_S = 5.0
BUCKETS = len(LATENCY_BUCKETS_S) + 1
#: Of gateways that are gone, or just not heard, so many counters are kept.
MOST_GATEWAYS = 16

Counts = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Latency:
    """`slices` are (begin, counts per bucket), oldest first; `counters` what each gateway had counted.

    `since` is when it began.
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
    def from_json(cls, given: Mapping[str, Any]) -> "Latency":
        """The opposite of `to_json`. Raises what conversions raise on anything else."""
        return cls(
            float(given.get("since", 0.0)),
            tuple((float(at), _counts(counts)) for at, counts in given.get("slices", ())),
            {str(name): _counts(counts) for name, counts in given.get("counters", {}).items()},
        )


NO_LATENCY = Latency()


def observe_latency(latency: Latency, counted: Iterable[tuple[str, float, Counts]], now: float) -> Latency:
    """Take in what gateways counted: (process, started at, counts per bucket).

    A process that is new counts from its start; one that was there before this began adds nothing at first.
    """
    since = latency.since if latency.counters else now
    none: Counts = (0,) * BUCKETS
    # A gateway that is not heard now goes on from what it had counted.
    counters = dict(list(latency.counters.items())[-MOST_GATEWAYS:])
    slices = dict(one for one in latency.slices if now - one[0] < WINDOW_S)
    begin = now // SLICE_S * SLICE_S
    for process, started_at, counts in counted:
        before = counters.pop(process, none if started_at >= since else counts)
        sums = zip(slices.get(begin, none), counts, before, strict=True)
        slices[begin] = tuple(had + max(0, new - old) for had, new, old in sums)
        counters[process] = counts
    return Latency(since, tuple(sorted(slices.items())), counters)


def p95_ms(latency: Latency) -> float | None:
    """Of the last 20 s, or of the newest where that is less: what is over already asks for nothing."""
    whole = quantile(_sum([counts for _, counts in latency.slices]), 0.95)
    newest = quantile(_sum([counts for _, counts in latency.slices[-2:]]), 0.95)
    known = [value for value in (whole, newest) if value is not None]
    return 1000.0 * min(known) if known else None


def _sum(all_counts: Sequence[Counts]) -> Counts:
    return tuple(map(sum, zip(*all_counts, strict=True)))


def _counts(given: Iterable[Any]) -> Counts:
    counts = tuple(int(count) for count in given)
    if len(counts) != BUCKETS:
        raise ValueError(f"{len(counts)} buckets, {BUCKETS} are accepted")
    return counts

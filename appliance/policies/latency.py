"""How long requests took of late, from cumulative histograms. Standard library only."""

from collections.abc import Iterable, Mapping
from typing import Any

from appliance.policies.report import LATENCY_BUCKETS_S, Histogram, quantile
from appliance.policies.slices import NO_SLICES, Counts, Slices, observe_counts

WINDOW_S = 20.0
BUCKETS = len(LATENCY_BUCKETS_S) + 1
#: Slices that count as the newest: five to ten seconds.
_NEWEST = 2

#: Counts per bucket.
Latency = Slices
NO_LATENCY = NO_SLICES


def latency_from_json(given: Mapping[str, Any]) -> Latency:
    """What `to_json` gave. Raises what conversions raise on anything else, and on other buckets."""
    return Latency.from_json(given, BUCKETS)


def counts_of(histogram: Histogram | None) -> Counts | None:
    """Its counts per bucket; None where a gateway of another version has other buckets, or none."""
    return histogram.counts if histogram is not None and len(histogram.counts) == BUCKETS else None


def observe_latency(latency: Latency, counted: Iterable[tuple[str, float, Counts]], now: float) -> Latency:
    """Take in what gateways counted: (process, started at, counts per bucket)."""
    return observe_counts(latency, counted, now, WINDOW_S)


def p95_ms(latency: Latency) -> float | None:
    """Of the last 20 s, or of the newest where that is less: what is over already asks for nothing."""
    values = (quantile(latency.total(), 0.95), quantile(latency.total(_NEWEST), 0.95))
    known = [value for value in values if value is not None]
    return 1000.0 * min(known) if known else None

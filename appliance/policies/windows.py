"""Averages over sliding windows of one-second buckets. Standard library only.

A bucket holds the area under concurrency in that second (request-seconds) and how much of the
second was seen. What was not seen is not counted as zero: an average is area over time seen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: A gap longer than this between two reports is not spread over the buckets: it is too old to matter.
MAX_SPREAD_S = 120.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """One second: `area` in request-seconds, `seen_s` in 0..1."""

    second: int
    area: float
    seen_s: float


Window = tuple[Bucket, ...]


def add_spans(window: Window, spans: Iterable[tuple[float, float, float]], *, keep_s: float) -> Window:
    """Add spans (start, end, area), one a gateway, and forget what is older than `keep_s`.

    Areas of several gateways add up; the time they saw does not, for they saw the same seconds.
    A span's area is spread evenly over its seconds.
    """
    known = {bucket.second: bucket for bucket in window}
    areas: dict[int, float] = {}
    added: dict[int, float] = {}
    newest = max((bucket.second for bucket in window), default=0)
    for start, end, area in spans:
        if end <= start:
            continue
        newest = max(newest, int(end))
        rate = area / (end - start)
        for second, length in _cut(max(start, end - MAX_SPREAD_S), end).items():
            areas[second] = areas.get(second, 0.0) + rate * length
            added[second] = max(added.get(second, 0.0), length)
    for second, length in added.items():
        before = known.get(second, Bucket(second, 0.0, 0.0))
        seen_s = min(1.0, before.seen_s + length)
        known[second] = Bucket(second, round(before.area + areas[second], 6), round(seen_s, 6))
    return tuple(known[second] for second in sorted(known) if second > newest - keep_s)


def average(window: Window, *, now: float, length_s: float) -> float | None:
    """Mean concurrency over the last `length_s` seconds; None where nothing of them was seen."""
    inside = [bucket for bucket in window if bucket.second + 1 > now - length_s]
    seen_s = sum(bucket.seen_s for bucket in inside)
    if seen_s <= 0:
        return None
    return sum(bucket.area for bucket in inside) / seen_s


def window_to_json(window: Window) -> list[list[float]]:
    """The window as lists of three numbers."""
    return [[bucket.second, bucket.area, bucket.seen_s] for bucket in window]


def window_from_json(given: Iterable[Iterable[float]]) -> Window:
    """The opposite of `window_to_json`. Raises ValueError or TypeError on anything else."""
    return tuple(Bucket(int(second), float(area), float(seen)) for second, area, seen in given)


def span_of(
    previous: Mapping[str, tuple[float, float]], gateway: str, started_at: float, at: float, total: float
) -> tuple[float, float, float] | None:
    """What a gateway's cumulative `concurrency_s` adds since its last report.

    `previous` maps a gateway process to (at, total). One not seen before counts from its start,
    so that what it carried before the first report is not lost. None where time has not moved.
    """
    before_at, before_total = previous.get(gateway, (started_at, 0.0))
    if at <= before_at:
        return None
    return (before_at, at, max(0.0, total - before_total))


def _cut(start: float, end: float) -> dict[int, float]:
    """How much of each second lies between two times."""
    parts = {}
    second = int(start)
    while second < end:
        length = min(end, second + 1) - max(start, second)
        if length > 0:
            parts[second] = length
        second += 1
    return parts

"""Metric history: a point a second of each deployment and node, rolled up and bounded.

Rates come from differences of the gateways' cumulative counters, so that a lost report loses nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from django.db.models import Min

from appliance.models import MetricPoint
from appliance.policies.fleet import FleetSnapshot
from appliance.policies.report import DeploymentReport, quantile

#: Seconds a point stands for, and how long such points are kept.
KEPT_S = {1: 15 * 60, 10: 3 * 3600, 60: 2 * 86400, 3600: 365 * 86400}
_STEPS = ((1, 10), (10, 60), (60, 3600))
_CLEAN_EVERY_S = 60
#: Buckets rolled up at most in one go, so that a clock that jumped cannot hold up the loop.
_MAX_CATCH_UP = 400

Values = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU and memory of a node in percent, None where it cannot be told."""

    cpu_percent: float | None
    memory_percent: float | None


@dataclass(frozen=True, slots=True)
class Counted:
    """A gateway process' counters of one deployment at one time."""

    at: float
    report: DeploymentReport


class Recorder:
    """Remembers the last counters and writes points. Used by one thread at a time."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, float, str], Counted] = {}
        self._rolled: dict[int, int] = {}
        self._cleaned_at = 0.0

    def write(self, snapshot: FleetSnapshot, usage: Usage | None) -> None:
        """Write this second's points, roll up what is complete, and forget what is too old."""
        second = int(snapshot.now)
        points = [
            MetricPoint(series=series, resolution_s=1, at=second, values=dict(values))
            for series, values in self._series(snapshot, usage).items()
        ]
        _upsert(points)
        for fine, coarse in _STEPS:
            self._roll_up(fine, coarse, second)
        if snapshot.now - self._cleaned_at >= _CLEAN_EVERY_S:
            self._cleaned_at = snapshot.now
            for resolution_s, kept_s in KEPT_S.items():
                MetricPoint.objects.filter(resolution_s=resolution_s, at__lt=second - kept_s).delete()

    def _series(self, snapshot: FleetSnapshot, usage: Usage | None) -> dict[str, Values]:
        series: dict[str, Values] = {}
        newest: dict[tuple[str, float, str], Counted] = {}
        ready = Counter(
            agent.deployment for agent in snapshot.agents if agent.state == "ready" and agent.wanted == "warm"
        )
        for deployment in snapshot.deployments:
            pairs = []
            for report, seen in snapshot.deployment_reports(deployment.name):
                key = (report.gateway, report.started_at, deployment.name)
                newest[key] = Counted(report.at, seen)
                pairs.append((self._last.get(key), newest[key]))
            series[f"deployment:{deployment.name}"] = {
                **rates(pairs),
                "ready": float(ready[deployment.name]),
            }
        self._last = newest
        for node in snapshot.nodes:
            told = node_usage(snapshot, node.name, node.ram_bytes, usage)
            series[f"node:{node.name}"] = {
                "cpu_percent": told.cpu_percent,
                "memory_percent": told.memory_percent,
            }
        return series

    def _roll_up(self, fine: int, coarse: int, second: int) -> None:
        """Make the coarse points of all buckets that ended since the last time."""
        until = second - second % coarse
        start = self._rolled.get(coarse)
        if start is None:
            oldest = MetricPoint.objects.filter(resolution_s=fine).aggregate(oldest=Min("at"))["oldest"]
            newest = (
                MetricPoint.objects.filter(resolution_s=coarse)
                .order_by("-at")
                .values_list("at", flat=True)
                .first()
            )
            start = newest + coarse if newest is not None else (oldest if oldest is not None else second)
            start -= start % coarse
        start = max(start, until - _MAX_CATCH_UP * coarse)
        if start < until:
            found = MetricPoint.objects.filter(resolution_s=fine, at__gte=start, at__lt=until)
            groups: dict[tuple[str, int], list[Values]] = {}
            for series, at, values in found.values_list("series", "at", "values"):
                groups.setdefault((series, at - at % coarse), []).append(values)
            _upsert(
                [
                    MetricPoint(series=series, resolution_s=coarse, at=at, values=mean(values))
                    for (series, at), values in groups.items()
                ]
            )
        self._rolled[coarse] = max(until, start)


def rates(pairs: Iterable[tuple[Counted | None, Counted]]) -> dict[str, float | None]:
    """Rates and latencies of one deployment from (earlier, later) counters, one pair a gateway.

    All None where no gateway reports; the rates None where no earlier counters are known. In seconds of
    the gateways' own clocks; latencies in milliseconds, None where nothing was answered.
    """
    pairs = list(pairs)
    if not pairs:
        return dict.fromkeys(
            ("rps", "p50_ms", "p95_ms", "in_flight", "queued", "tokens_per_s", "failed_per_s")
        )
    spans = [(old, new) for old, new in pairs if old is not None and new.at > old.at]

    def rate(count: Callable[[DeploymentReport], int]) -> float | None:
        if not spans:
            return None
        return sum((count(new.report) - count(old.report)) / (new.at - old.at) for old, new in spans)

    counts = [0] * len(pairs[0][1].report.duration.counts)
    for old, new in spans:
        for index, (before, after) in enumerate(
            zip(old.report.duration.counts, new.report.duration.counts, strict=True)
        ):
            counts[index] += after - before
    return {
        "rps": rate(lambda one: one.answered),
        "p50_ms": _milliseconds(quantile(counts, 0.5)),
        "p95_ms": _milliseconds(quantile(counts, 0.95)),
        "in_flight": float(sum(new.report.in_flight for _, new in pairs)),
        "queued": float(sum(new.report.queued for _, new in pairs)),
        "tokens_per_s": rate(lambda one: one.tokens),
        "failed_per_s": rate(lambda one: one.failed),
    }


def node_usage(snapshot: FleetSnapshot, node: str, ram_bytes: int | None, usage: Usage | None) -> Usage:
    """A node's load: what was read off the machine itself, else what its agents said last."""
    if usage is not None and node == "local":
        return usage
    newest = snapshot.newest_word(node)
    if newest is None or (newest.load_age_s or 0.0) >= 10:
        return Usage(None, None)
    memory = None
    if newest.node_available_bytes is not None and ram_bytes:
        memory = round(100 * (1 - min(1.0, newest.node_available_bytes / ram_bytes)), 2)
    return Usage(newest.node_cpu_percent, memory)


def mean(points: Iterable[Values]) -> dict[str, float | None]:
    """Means by name; what could not be told is left out, and None where it never could."""
    known: dict[str, list[float]] = {}
    for point in points:
        for name, value in point.items():
            known.setdefault(name, []).extend([] if value is None else [value])
    return {name: (sum(values) / len(values) if values else None) for name, values in known.items()}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)


def _upsert(points: list[MetricPoint]) -> None:
    MetricPoint.objects.bulk_create(
        points,
        update_conflicts=True,
        unique_fields=("series", "resolution_s", "at"),
        update_fields=("values",),
    )

"""Reading for the overview: rows, history and, where nobody watches yet, the gateways once."""

from collections import defaultdict

from django.conf import settings
from django.db import DatabaseError

from appliance.fleet import read_rows
from appliance.gateways import read_reports
from appliance.models import Decision, MetricPoint, Transfer
from dashboard.presenters import OverviewRows, build_snapshot, rates_of_points

HISTORY_S = 300
DECISIONS_SHOWN = 12
TRANSFERS_SHOWN = 200
#: With more series than this the charts start from coarser points, so that a page stays small.
_FINE_SERIES = 20

Series = dict[str, list[float | None]]


def read_overview_rows(now: float) -> OverviewRows:
    """Six queries, whatever the fleet's size."""
    return OverviewRows(
        fleet=read_rows(now),
        decisions=tuple(Decision.objects.all()[:DECISIONS_SHOWN]),
        transfers=tuple(Transfer.objects.filter(state=Transfer.State.RUNNING)[:TRANSFERS_SHOWN]),
    )


def read_snapshot(now: float) -> dict[str, object]:
    """A snapshot from one look at everything: rates come from the newest second of history."""
    rows = read_overview_rows(now)
    reports = read_reports(settings.ENVIRONMENT.run_dir, timeout_s=0.5)
    return build_snapshot(rows, reports, rates_of_points(rows.fleet.points), now)


def read_history(now: float) -> dict[str, object]:
    """What the charts start with: `{"at": [Unix seconds], "lines": {name: [number or null]}}`."""
    since = int(now) - HISTORY_S
    recent = MetricPoint.objects.filter(at__gte=since)
    try:
        series = recent.filter(resolution_s=10).values("series").distinct().count()
        step_s = 1 if series <= _FINE_SERIES else 10
        points = recent.filter(resolution_s=step_s).order_by("at").values_list("at", "series", "values")
        return join_points(list(points), since, int(now), step_s)
    except DatabaseError:  # history may be lost without harm
        return join_points([], since, int(now), 1)


def join_points(
    points: list[tuple[int, str, dict[str, float | None]]], since: int, until: int, step_s: int
) -> dict[str, object]:
    """Join all series into the page's lines; rates add up, latency and load are the highest."""
    by_second: dict[int, list[tuple[str, dict[str, float | None]]]] = defaultdict(list)
    for at, name, values in points:
        by_second[at - at % step_s].append((name, values))
    begin = since - since % step_s
    seconds = list(range(begin, until, step_s))
    lines: Series = {name: [] for name in (*_SUMMED, *_HIGHEST)}
    for second in seconds:
        there = by_second.get(second, [])
        for name in _SUMMED:
            known = _known(there, name)
            lines[name].append(sum(known) if known else None)
        for name in _HIGHEST:
            lines[name].append(max(_known(there, name), default=None))
    return {"at": seconds, "lines": lines, "step_s": step_s}


_SUMMED = ("rps", "in_flight", "queued")
_HIGHEST = ("p50_ms", "p95_ms", "cpu_percent", "memory_percent")


def _known(there: list[tuple[str, dict[str, float | None]]], name: str) -> list[float]:
    return [value for _, values in there if (value := values.get(name)) is not None]

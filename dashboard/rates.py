"""Rates and latencies from gateways' cumulative counters. Pure.

A trail is one gateway's recent reports. Counters grow only while a gateway process lives, so a
restart (another `started_at`) begins the trail anew, counted from zero at its start.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from appliance.policies.report import DeploymentReport, GatewayReport, Histogram, quantile

RATE_WINDOW_S = 3.0
LATENCY_WINDOW_S = 10.0

Trail = tuple[GatewayReport, ...]


@dataclass(frozen=True, slots=True)
class Rates:
    """One deployment over the last seconds, all gateways together; None where it cannot be told."""

    rps: float | None = None
    failed_per_s: float | None = None
    tokens_per_s: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None


def extend(trail: Trail, report: GatewayReport) -> Trail:
    """The trail with one more report, without what no window reaches any more."""
    if trail and (trail[-1].started_at != report.started_at or trail[-1].at > report.at):
        trail = ()
    older = [past for past in trail if past.at < report.at - LATENCY_WINDOW_S]
    kept = [past for past in trail if past.at >= report.at - LATENCY_WINDOW_S]
    return (*older[-1:], *kept, report)


def measure(trails: Iterable[Trail]) -> dict[str, Rates]:
    """Rates by deployment. Where two gateways serve one, rates add up and latencies are merged."""
    rates: dict[str, Rates] = {}
    counts: dict[str, list[int]] = {}
    for trail in trails:
        if not trail:
            continue
        for entry in trail[-1].deployments:
            rates[entry.name] = _add_rates(rates.get(entry.name, Rates()), entry, trail)
            _add_counts(counts.setdefault(entry.name, []), entry, trail)
    for name, merged in counts.items():
        p50, p95 = quantile(merged, 0.5), quantile(merged, 0.95)
        rates[name] = replace(rates[name], p50_ms=_to_ms(p50), p95_ms=_to_ms(p95))
    return rates


def _add_rates(sum_: Rates, entry: DeploymentReport, trail: Trail) -> Rates:
    base = _baseline(trail, RATE_WINDOW_S)
    if base is None:
        return sum_
    since, before = base
    elapsed_s = trail[-1].at - since
    past = before.get(entry.name, _zero(entry))
    return Rates(
        rps=(sum_.rps or 0.0) + (entry.accepted - past.accepted) / elapsed_s,
        failed_per_s=(sum_.failed_per_s or 0.0)
        + (entry.failed + entry.shed - past.failed - past.shed) / elapsed_s,
        tokens_per_s=(sum_.tokens_per_s or 0.0) + (entry.tokens - past.tokens) / elapsed_s,
    )


def _add_counts(merged: list[int], entry: DeploymentReport, trail: Trail) -> None:
    base = _baseline(trail, LATENCY_WINDOW_S)
    if base is None:
        return
    past = base[1].get(entry.name, _zero(entry)).duration.counts
    grown = [new - old for new, old in zip(entry.duration.counts, past, strict=True)]
    merged[:] = [a + b for a, b in zip(merged, grown, strict=True)] if merged else grown


def _baseline(trail: Trail, window_s: float) -> tuple[float, dict[str, DeploymentReport]] | None:
    """Since when, and with which counters by name, to take differences; None: too young to tell."""
    last = trail[-1]
    begin = last.at - window_s
    past: Sequence[GatewayReport] = [report for report in trail[:-1] if report.at <= begin][-1:]
    if not past and begin <= last.started_at < last.at:
        return last.started_at, {}  # it started inside the window: all its counters are of the window
    past = past or trail[:1]
    if past[0].at >= last.at:
        return None
    return past[0].at, {entry.name: entry for entry in past[0].deployments}


def _zero(entry: DeploymentReport) -> DeploymentReport:
    empty = Histogram((0,) * len(entry.duration.counts), 0.0)
    return DeploymentReport(entry.name, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0, empty, empty)


def _to_ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000.0

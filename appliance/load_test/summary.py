"""From single requests to figures. Pure, standard library only; times are given, never taken."""

import math
from collections import Counter
from dataclasses import asdict, dataclass, field

#: Latencies are counted in buckets this much wider than the one before: 0.5 % of resolution in
#: bounded memory, however long the run.
BUCKET_GROWTH = 1.005
_LOG_GROWTH = math.log(BUCKET_GROWTH)
_SMALLEST_S = 1e-6


class LatencyHistogram:
    """Durations in seconds, counted. Quantiles are exact to 0.5 %; count, mean and maximum are exact."""

    __slots__ = ("_counts", "count", "max_s", "sum_s")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.sum_s = 0.0
        self.max_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration; what is under a microsecond counts as one."""
        seconds = max(seconds, _SMALLEST_S)
        self._counts[int(math.log(seconds / _SMALLEST_S) / _LOG_GROWTH)] += 1
        self.count += 1
        self.sum_s += seconds
        self.max_s = max(self.max_s, seconds)

    def quantile(self, q: float) -> float | None:
        """The q-quantile (0..1) in seconds, or None where nothing was counted."""
        if not self.count:
            return None
        rank, below = max(1, math.ceil(q * self.count)), 0
        for bucket in sorted(self._counts):
            below += self._counts[bucket]
            if below >= rank:
                return min(_SMALLEST_S * math.exp((bucket + 0.5) * _LOG_GROWTH), self.max_s)
        return self.max_s

    def figures(self) -> "Latency":
        """The usual quantiles in milliseconds."""
        return Latency(
            p50_ms=_to_ms(self.quantile(0.5)),
            p95_ms=_to_ms(self.quantile(0.95)),
            p99_ms=_to_ms(self.quantile(0.99)),
            max_ms=_to_ms(self.max_s if self.count else None),
            mean_ms=_to_ms(self.sum_s / self.count if self.count else None),
        )


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds; None where nothing was measured."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    mean_ms: float | None


@dataclass(slots=True)
class SecondRow:
    """What happened in one second of the run: requests begun in it, answers and failures that fell in it."""

    second: int
    sent: int = 0
    answered: int = 0
    failed: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one run. `requests` = answered + failed, always.

    `statuses` counts answers by HTTP status, `failures` requests without an answer by cause:
    refused, connect_timeout, connect_failed, closed, bad_answer, timeout, overflow, interrupted.
    Latency and throughput are of 2xx answers only, the latter over the time in which
    requests were begun. `lag` tells how late the generator itself was (open loop only): where
    it is near the latency, the generator was the bottleneck. `started_at` is by this machine's
    monotonic clock, so that what else happened can be put beside the requests. `cpu_s` is the
    processor time that the generator itself took.
    """

    mode: str
    connections: int
    offered_rps: float | None
    window_s: float
    requests: int
    answered: int
    failed: int
    statuses: dict[str, int]
    failures: dict[str, int]
    reconnects: int
    throughput_rps: float
    latency: Latency
    lag: Latency | None
    interrupted: bool
    seconds: list[SecondRow] = field(default_factory=list)
    started_at: float = 0.0
    cpu_s: float = 0.0

    @property
    def not_ok(self) -> int:
        """Requests without an answer, and answers with a status other than 2xx."""
        return self.failed + sum(n for status, n in self.statuses.items() if not status.startswith("2"))

    def to_json(self) -> dict[str, object]:
        """The summary as a JSON object with the names of the fields."""
        return asdict(self) | {"not_ok": self.not_ok}


class Recorder:
    """Gathers a run's requests. All times are seconds since the run's start and do not go back."""

    def __init__(self, window_s: float | None) -> None:
        self._window_s = window_s
        self._latency = LatencyHistogram()
        self._lag = LatencyHistogram()
        self._this_second = LatencyHistogram()
        self._in_window = 0
        self._last_end = 0.0
        self.statuses: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self.reconnects = 0
        self.rows = [SecondRow(0)]

    def begin(self, now: float, lag_s: float | None = None) -> None:
        """A request was written; `lag_s` after it was due."""
        self._row(now).sent += 1
        if lag_s is not None:
            self._lag.add(lag_s)

    def answer(self, now: float, latency_s: float, status: int) -> None:
        """An answer came."""
        row = self._row(now)
        self.statuses[status] += 1
        self._last_end = now
        row.answered += 1
        if 200 <= status < 300:
            self._latency.add(latency_s)
            self._this_second.add(latency_s)
            if self._window_s is None or now <= self._window_s:
                self._in_window += 1

    def fail(self, now: float, cause: str) -> None:
        """A request ended without an answer."""
        self._row(now).failed += 1
        self._last_end = now
        self.failures[cause] += 1

    def settle(self, now: float) -> SecondRow | None:
        """Close the rows before `now` and return the last of them, for a line of progress."""
        self._row(now)
        return self.rows[-2] if len(self.rows) > 1 else None

    def summarise(
        self,
        *,
        mode: str,
        connections: int,
        offered_rps: float | None,
        ended_s: float,
        interrupted: bool,
        started_at: float = 0.0,
        cpu_s: float = 0.0,
    ) -> Summary:
        """Figures of a run that ended at `ended_s`."""
        self._close_row()
        window_s = self._last_end if self._window_s is None else min(self._window_s, ended_s)
        answered, failed = self.statuses.total(), self.failures.total()
        return Summary(
            mode=mode,
            connections=connections,
            offered_rps=offered_rps,
            window_s=window_s,
            requests=answered + failed,
            answered=answered,
            failed=failed,
            statuses={str(status): n for status, n in sorted(self.statuses.items())},
            failures=dict(sorted(self.failures.items())),
            reconnects=self.reconnects,
            throughput_rps=self._in_window / window_s if window_s > 0 else 0.0,
            latency=self._latency.figures(),
            lag=self._lag.figures() if self._lag.count else None,
            interrupted=interrupted,
            seconds=self.rows,
            started_at=started_at,
            cpu_s=cpu_s,
        )

    def _row(self, now: float) -> SecondRow:
        second = int(now)
        while self.rows[-1].second < second:
            self._close_row()
            self.rows.append(SecondRow(self.rows[-1].second + 1))
        return self.rows[-1]

    def _close_row(self) -> None:
        if self._this_second.count:
            row = self.rows[-1]
            row.p50_ms = _to_ms(self._this_second.quantile(0.5))
            row.p99_ms = _to_ms(self._this_second.quantile(0.99))
            self._this_second = LatencyHistogram()


def render_summary(summary: Summary) -> str:
    """The table that people read."""
    offered = f", {summary.offered_rps:g}/s offered" if summary.offered_rps is not None else ""
    statuses = ", ".join(f"{status}: {n}" for status, n in summary.statuses.items()) or "none"
    rows = [
        ("load", f"{summary.mode} loop, {summary.connections} connections{offered}"),
        ("measured for", f"{summary.window_s:.1f} s" + (" (interrupted)" if summary.interrupted else "")),
        ("requests", str(summary.requests)),
        ("answered", f"{summary.answered} ({statuses})"),
        ("failed", ", ".join([str(summary.failed), *(f"{c}: {n}" for c, n in summary.failures.items())])),
        ("reconnects", str(summary.reconnects)),
        ("throughput", f"{summary.throughput_rps:.1f}/s"),
        ("latency", _render_latency(summary.latency)),
    ]
    if summary.lag is not None:
        rows.append(("generator lag", _render_latency(summary.lag)))
    return "\n".join(f"{name:<14} {value}" for name, value in rows)


def _render_latency(latency: Latency) -> str:
    if latency.p50_ms is None:
        return "nothing measured"
    return (
        f"p50 {latency.p50_ms:.2f} ms, p95 {latency.p95_ms:.2f} ms, "
        f"p99 {latency.p99_ms:.2f} ms, max {latency.max_ms:.2f} ms"
    )


def _to_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 4)

"""From faults to tables and marks. Pure."""

from collections.abc import Callable, Sequence
from statistics import median

from tests.bench.failover import KILL_60, KILL_80, OURS, SCENARIOS, STOP_60, Failover, Fault, Scenario
from tests.bench.report import Mark, render_table

#: Milliseconds that p99 may rise by in the 5 s after a kill.
RISE_MARK_MS = 250.0
BACKLOG_MARK_S = 5.0
EJECTED_MARK_MS = 500.0


def render_failover(findings: Failover) -> str:
    """Medians over the rounds; failures are counted over all of them."""
    rows = []
    for scenario in SCENARIOS:
        for server in dict.fromkeys(fault.server for fault in findings.faults):
            faults = select(findings, scenario, server)
            if not faults:
                continue
            rows.append([
                scenario.name, server, str(sum(fault.requests for fault in faults)), _render_failures(faults),
                _tell(faults, lambda fault: fault.usual_p99_ms, "{:.1f}"),
                _tell(faults, lambda fault: fault.p99_ms, "{:.1f}"),
                _tell(faults, lambda fault: fault.longest_ms, "{:.0f}"),
                _tell(faults, lambda fault: fault.ejected_ms, "{:.0f}"),
                _tell(faults, lambda fault: fault.ready_s, "{:.2f}"),
                _tell(faults, lambda fault: fault.backlog_s, "{:.2f}"),
            ])  # fmt: skip
    head = [
        "fault", "server", "requests", "failed", "usual p99 ms", "p99 ms, 5 s after", "longest ms",
        "ejected after ms", "ready again after s", "backlog gone after s",
    ]  # fmt: skip
    lines = [render_table(head, rows), ""]
    lines += [f"- {server}: NOT MEASURED: {why}" for server, why in findings.troubles.items()]
    lines += [f"- {f.server}, {f.scenario}: {f.unbalanced}" for f in findings.faults if f.unbalanced]
    return "\n".join(lines).rstrip()


def compute_failover_marks(findings: Failover) -> list[Mark]:
    """Zero failed in each; a small rise, a short backlog, a quick ejection; and balance after all."""
    marks = [_mark_failures(findings, scenario) for scenario in SCENARIOS]
    rises = [
        fault.p99_ms - fault.usual_p99_ms
        for fault in select(findings, KILL_60, OURS)
        if fault.p99_ms is not None and fault.usual_p99_ms is not None
    ]
    marks.append(
        _mark(f"{KILL_60.name}: p99 rises by at most {RISE_MARK_MS:g} ms", rises, RISE_MARK_MS, "ms")
    )
    backlogs = [fault.backlog_s for fault in select(findings, KILL_80, OURS)]
    text = f"{KILL_80.name}: backlog gone within {BACKLOG_MARK_S:g} s of the replacement being ready"
    marks.append(_mark(text, backlogs, BACKLOG_MARK_S, "s"))
    ejections = [fault.ejected_ms for fault in select(findings, STOP_60, OURS)]
    text = f"{STOP_60.name}: ejected within {EJECTED_MARK_MS:g} ms"
    marks.append(_mark(text, ejections, EJECTED_MARK_MS, "ms"))
    ours = [fault for fault in findings.faults if fault.server == OURS]
    broken = [fault for fault in ours if fault.unbalanced]
    marks.append(
        Mark(
            "all accepted ended once, after each fault",
            not broken if ours else None,
            f"{len(broken)} did not",
        )
    )
    return marks


def select(findings: Failover, scenario: Scenario, server: str) -> list[Fault]:
    """The faults of one scenario at one server."""
    return [fault for fault in findings.faults if (fault.scenario, fault.server) == (scenario.name, server)]


def _mark_failures(findings: Failover, scenario: Scenario) -> Mark:
    faults = select(findings, scenario, OURS)
    failed = sum(fault.failed for fault in faults)
    text = f"{scenario.name}: zero failed requests"
    return Mark(text, failed == 0 if faults else None, f"{failed} failed" if faults else "not measured")


def _mark(text: str, figures: Sequence[float | None], most: float, unit: str) -> Mark:
    """The median must hold; where one round has no figure, the mark is missed."""
    told = [figure for figure in figures if figure is not None]
    if not figures:
        return Mark(text, None, "not measured")
    if len(told) < len(figures):
        return Mark(text, False, f"not at all in {len(figures) - len(told)} of {len(figures)}")
    return Mark(text, median(told) <= most, f"{median(told):.{0 if unit == 'ms' else 2}f} {unit}")


def _render_failures(faults: Sequence[Fault]) -> str:
    causes: dict[str, int] = {}
    for fault in faults:
        for cause, count in fault.failures.items():
            causes[cause] = causes.get(cause, 0) + count
    told = ", ".join(f"{cause}: {count}" for cause, count in sorted(causes.items()))
    return f"{sum(causes.values())}" + (f" ({told})" if told else "")


def _tell(faults: Sequence[Fault], figure: Callable[[Fault], float | None], form: str) -> str:
    told = [value for fault in faults if (value := figure(fault)) is not None]
    return form.format(median(told)) if told else ""

"""From measurements to tables and marks. Pure."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench.end_to_end import CONNECTIONS, Findings
from tests.bench.engine_ceiling import BATCHES, PROCESSES, Cell

#: Of the machine; what the ceiling is measured with.
CORES = os.cpu_count() or 1

#: The share of the engine's ceiling that the appliance must reach at the most connections, of what the
#: load generator leaves of the cores.
CEILING_MARK = 0.8
#: So many times a peer's throughput at the most connections; with fewer it must be ahead.
PEER_MARKS = {"FastAPI": 1.7, "LitServe": 2.0, "Ray Serve": 4.0}
#: p99 at the most connections, by the time in which each connection has its turn once.
TAIL_MARK = 1.75


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the rounds."""

    throughput_rps: float
    p50_ms: float
    p99_ms: float
    not_ok: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A figure that must hold. `reached` is None where it could not be measured."""

    text: str
    reached: bool | None
    figure: str


def compute_figures(findings: Findings) -> dict[tuple[str, int], Figures]:
    """Medians by (server, connections); what answered nothing has no figures."""
    groups: dict[tuple[str, int], list[tuple[float, float, float, int]]] = {}
    for one in findings.measurements:
        if one.p50_ms is not None and one.p99_ms is not None:
            row = (one.throughput_rps, one.p50_ms, one.p99_ms, one.not_ok)
            groups.setdefault((one.server, one.connections), []).append(row)
    return {
        place: Figures(
            median(row[0] for row in rows),
            median(row[1] for row in rows),
            median(row[2] for row in rows),
            sum(row[3] for row in rows),
        )
        for place, rows in groups.items()
    }


def compute_marks(findings: Findings, ours: str, peers: Sequence[str]) -> list[Mark]:
    """The marks that the appliance is held to."""
    figures = compute_figures(findings)
    marks = _compute_own_marks(findings, figures.get((ours, max(CONNECTIONS))), ours)
    for peer in peers:
        for connections in CONNECTIONS:
            own, other = figures.get((ours, connections)), figures.get((peer, connections))
            least = PEER_MARKS.get(peer, 1.0) if connections == max(CONNECTIONS) else 1.0
            wanted = "ahead of" if least == 1 else f"at least {least:g} x"
            text = f"{wanted} {peer} at {connections} connections"
            if own is None or other is None:
                marks.append(Mark(text, None, "not measured"))
            else:
                ratio = own.throughput_rps / other.throughput_rps
                marks.append(Mark(text, ratio > 1 if least == 1 else ratio >= least, f"x {ratio:.2f}"))
    return marks


def _compute_own_marks(findings: Findings, own: Figures | None, ours: str) -> list[Mark]:
    most = max(CONNECTIONS)
    texts = (
        f"at {most} connections at least {CEILING_MARK:.0%} of the ceiling, of what the load leaves",
        f"p99 at {most} connections at most {TAIL_MARK:g} x {most} / throughput",
    )
    if own is None:
        return [Mark(text, None, "not measured") for text in texts]
    cores = median(
        one.generator_cores for one in findings.measurements if (one.server, one.connections) == (ours, most)
    )
    left = max(1 - cores / CORES, 0.01)
    share = own.throughput_rps / (median(findings.ceilings) * left)
    tail = own.p99_ms / (most / own.throughput_rps * 1000)
    return [
        Mark(texts[0], share >= CEILING_MARK, f"{share:.1%} of {left:.1%}"),
        Mark(texts[1], tail <= TAIL_MARK, f"x {tail:.2f}"),
    ]


def render_ceiling(cells: Sequence[Cell]) -> str:
    """Sentences per second by processes and batch size."""
    given = {(cell.processes, cell.batch): cell.sentences_per_s for cell in cells}
    rows = [
        [f"{n} process{'es' if n > 1 else ''} x 1 thread", *(f"{given[n, b]:.0f}" for b in BATCHES)]
        for n in PROCESSES
    ]
    return render_table(["sentences/s", *(f"batch {batch}" for batch in BATCHES)], rows)


def render_end_to_end(findings: Findings, names: Sequence[str], ours: str) -> str:
    """Throughput, latency and ratios of every server."""
    figures, ceiling = compute_figures(findings), median(findings.ceilings)
    rows = []
    for connections in CONNECTIONS:
        own = figures.get((ours, connections))
        for name in names:
            one = figures.get((name, connections))
            if one is None:
                continue
            ratio = "" if own is None or name == ours else f"{own.throughput_rps / one.throughput_rps:.2f}"
            rows.append([
                str(connections), name, f"{one.throughput_rps:.0f}", f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}",
                f"{one.throughput_rps / ceiling:.1%}", ratio, str(one.not_ok),
            ])  # fmt: skip
    head = ["connections", "server", "requests/s", "p50 ms", "p99 ms", "of ceiling", f"{ours} / it", "failed"]
    return render_table(head, rows)


def render_added_latency(findings: Findings, names: Sequence[str]) -> str:
    """What a lone request takes over the call within a process."""
    figures, call_ms = compute_figures(findings), median(findings.calls_ms)
    rows = [["call within a process", f"{call_ms:.2f}", ""]]
    rows += [
        [name, f"{one.p50_ms:.2f}", f"{one.p50_ms - call_ms:+.2f}"]
        for name in names
        if (one := figures.get((name, min(CONNECTIONS))))
    ]
    return render_table(["one connection", "p50 ms", "added ms"], rows)


def render_marks(marks: Sequence[Mark]) -> str:
    """Each mark with its figure."""
    words = {True: "reached", False: "MISSED", None: "unknown"}
    return render_table(["mark", "", "figure"], [[m.text, words[m.reached], m.figure] for m in marks])


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first two to the left, the rest to the right."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        placed = [
            c.ljust(w) if at < 2 else c.rjust(w) for at, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(placed)} |"

    rule = "|" + "|".join("-" * (w + 1) + ("-" if at < 2 else ":") for at, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])

"""From overload runs to tables and marks. Pure."""

from collections.abc import Iterable, Sequence
from statistics import median

from tests.bench.overload import DEADLINE_S, HIGH_SHARE, SERVICE_MS, TIMES, Overload, Overloads
from tests.bench.report import Mark, render_table
from tests.bench.tally import fair_shares

#: Goodput over capacity: refusing costs the cores that a real model computes on.
GOODPUT_MARKS = {"fixed service": 0.95, "MiniLM": 0.75}
REFUSAL_MARK_MS = 10.0
#: Memory grows by no more than this in a minute.
FLAT_BYTES_PER_S = 1024 * 1024 / 60
#: What an agent executes and what is one batch ahead of it is not interrupted for high priority.
HIGH_MARK_MS = 2 * SERVICE_MS
#: More than its fair share by so much is noise of the arrivals.
SHARE_MARK = 1.1


def compute_overload_marks(found: Overloads) -> list[Mark]:
    """Of the medians of all rounds; what could not be measured is unknown."""
    marks: list[Mark] = []
    for name, goodput in GOODPUT_MARKS.items():
        runs = [run for run in found.runs if run.name == name]
        if name in found.troubles or not runs:
            marks.append(Mark(f"{name}: not measured, {found.troubles.get(name, 'left out')}", None, ""))
            continue
        marks += _judge(name, runs, goodput)
    return marks


def compute_share(run: Overload) -> float:
    """What the greedy key had, over its fair share of what was answered to all of normal priority."""
    normal = {name: kind for name, kind in run.figures["kinds"].items() if name != "high"}
    window_s = run.figures["window_s"]
    offered = {name: kind["offered"] / window_s for name, kind in normal.items()}
    had = {name: kind["goodput_rps"] for name, kind in normal.items()}
    return had["greedy"] / max(fair_shares(sum(had.values()), offered)["greedy"], 1e-9)


def _judge(name: str, runs: Sequence[Overload], goodput: float) -> list[Mark]:
    reached = median(_goodput(run) for run in runs)
    late = median(run.figures["all"]["answered_ms"]["p99"] or 0.0 for run in runs)
    refused = median(run.figures["all"]["refused_ms"]["p99"] or 0.0 for run in runs)
    slope = median(run.rss_slope_bytes_per_s or 0.0 for run in runs)
    share = median(compute_share(run) for run in runs)
    failed = sum(_not_answered(run) for run in runs)
    marks = [
        Mark(f"{name}: goodput at least {goodput:.0%} of capacity", reached >= goodput, f"{reached:.1%}"),
        Mark(f"{name}: answered p99 within {DEADLINE_S * 1000:.0f} ms", late <= DEADLINE_S * 1000,
             f"{late:.0f} ms"),
        Mark(f"{name}: refused in at most {REFUSAL_MARK_MS:.0f} ms (p99)", refused <= REFUSAL_MARK_MS,
             f"{refused:.1f} ms"),
        Mark(f"{name}: memory flat, at most 1 MiB a minute", slope <= FLAT_BYTES_PER_S,
             f"{slope * 60 / 1024:+.0f} KiB a minute"),
        Mark(f"{name}: every one of high priority answered", failed == 0, f"{failed} not"),
        Mark(f"{name}: the greedy key has at most {SHARE_MARK:.0%} of its share", share <= SHARE_MARK,
             f"{share:.0%}"),
    ]  # fmt: skip
    if name == "fixed service":
        more = median(_high_more_ms(run) for run in runs)
        text = f"{name}: p99 of high priority at most two services over that without overload"
        marks.append(Mark(text, more <= HIGH_MARK_MS, f"{more:+.1f} ms"))
    return marks


def render_overload(found: Overloads) -> str:
    """A row for each kind of traffic, and below what the run as a whole took."""
    parts = []
    for name in dict.fromkeys(run.name for run in found.runs):
        runs = [run for run in found.runs if run.name == name]
        kinds = list(runs[0].figures["kinds"])
        rows = [_row(kind, [run.figures["kinds"][kind] for run in runs], runs) for kind in kinds]
        rows.append(_row("all", [run.figures["all"] for run in runs], runs))
        head = ["kind", "offered/s", "in time/s", "p50 ms", "p99 ms", "429", "429 p99 ms", "504", "no answer"]
        parts.append(f"### {name}\n\n{render_table(head, rows)}\n\n{_foot(runs)}")
    parts += [f"{name}: NOT MEASURED: {why}" for name, why in found.troubles.items()]
    return "\n\n".join(parts)


def _row(kind: str, counts: Sequence[dict], runs: Sequence[Overload]) -> list[str]:  # type: ignore[type-arg]
    windows = [run.figures["window_s"] for run in runs]
    return [
        kind,
        f"{median(c['offered'] / w for c, w in zip(counts, windows, strict=True)):.1f}",
        f"{median(c['goodput_rps'] for c in counts):.1f}",
        _ms(c["answered_ms"]["p50"] for c in counts),
        _ms(c["answered_ms"]["p99"] for c in counts),
        str(sum(c["statuses"].get("429", 0) for c in counts)),
        _ms(c["refused_ms"]["p99"] for c in counts),
        str(sum(c["statuses"].get("504", 0) for c in counts)),
        str(sum(sum(c["failures"].values()) for c in counts)),
    ]


def _foot(runs: Sequence[Overload]) -> str:
    def cores(part: str) -> str:
        return f"{median(run.cpu_s[part] / run.cpu_s['elapsed'] for run in runs):.2f}"

    refusal = [run.refusal_us for run in runs if run.refusal_us is not None]
    alone = _ms(run.high_alone_ms["p99"] for run in runs)
    return (
        f"Offered {TIMES:g} x {median(run.capacity_rps for run in runs):.0f}/s "
        f"for {runs[0].figures['window_s']:g} s, {HIGH_SHARE:.0%} of it of high priority "
        f"(p99 without the rest {alone} ms), each with a deadline of {DEADLINE_S * 1000:.0f} ms; "
        f"closed loop before and after {median(run.closed_rps for run in runs):.0f}/s.\n"
        f"Cores taken: gateway {cores('gateway')}, agents {cores('agents')}, "
        f"load generator {cores('generator')}; for {cores('gateway waited')} of the time the gateway "
        "waited for a core. "
        f"The gateway's CPU for an answered request {median(run.answer_us for run in runs):.0f} us, "
        f"for a refused one {f'{median(refusal):.0f} us' if refusal else 'unknown'}; "
        f"the generator itself was late by {_ms(run.figures['lag_ms']['p99'] for run in runs)} ms (p99)."
    )


def _goodput(run: Overload) -> float:
    return float(run.figures["all"]["goodput_rps"]) / run.capacity_rps


def _not_answered(run: Overload) -> int:
    high = run.figures["kinds"]["high"]
    return int(high["offered"] - high["statuses"].get("200", 0))


def _high_more_ms(run: Overload) -> float:
    return (run.figures["kinds"]["high"]["answered_ms"]["p99"] or 0.0) - (run.high_alone_ms["p99"] or 0.0)


def _ms(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):.1f}" if known else "-"

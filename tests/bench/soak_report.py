"""From a soak to its table and its marks. Pure."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

from tests.bench.report import Mark, render_table
from tests.bench.soak_explain import explain
from tests.bench.tally import Event, fit_slope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.soak import Soak

#: A slope says something after this long, and memory is not looked at before so much of the run.
SLOPE_S = 100.0
WARM_SHARE = 0.5
FLAT_BYTES_PER_MINUTE = 128 * 1024
MINUTE_S = 60.0
SHOWN = 20


def find_unexplained(soak: Soak) -> list[Event]:
    """Requests that failed for nothing that was done to the plant."""
    faults = [*soak.faults, *soak.stalls]
    events = [Event(*event) for event in soak.load["events"]]
    return [event for event in events if explain(event, faults) is None]


def find_slopes(soak: Soak) -> dict[str, float]:
    """Bytes a minute by process, of those that lived long enough after the warm-up."""
    slopes = {}
    warm_at = soak.began_at + WARM_SHARE * soak.seconds
    for name, samples in soak.samples.items():
        last_pid = samples[-1][1]
        points = [(s[0], float(s[2])) for s in samples if s[0] >= warm_at and s[1] == last_pid]
        slope = fit_slope(points)
        if slope is not None and points[-1][0] - points[0][0] >= SLOPE_S:
            slopes[name] = slope * MINUTE_S
    return slopes


def find_miscounts(soak: Soak) -> list[str]:
    """Codes that the gateway counted otherwise than the clients, who may leave before they read theirs."""
    told = soak.load["all"]
    left = told["failures"].get("left", 0)
    found = []
    for code in sorted({*soak.codes, *told["statuses"]} - {"499"}):
        gateway, clients = soak.codes.get(code, 0), told["statuses"].get(code, 0)
        if not clients <= gateway <= clients + left:
            found.append(f"{code}: {clients} read by clients, {gateway:.0f} counted by the gateway")
    if soak.codes.get("499", 0) > left:
        found.append(f"499: {left} clients left, {soak.codes['499']:.0f} counted by the gateway")
    return found


def compute_soak_marks(soak: Soak) -> list[Mark]:
    """What must hold; a slope over too short a time is unknown."""
    unexplained, miscounts, slopes = find_unexplained(soak), find_miscounts(soak), find_slopes(soak)
    lost = soak.load["events_lost"]
    slowest = max((f.recovered_at - f.healed_at for f in soak.faults if f.recovered_at), default=0.0)
    before, after = soak.descriptors
    agents = [slope for name, slope in slopes.items() if name != "gateway"]
    return [
        Mark("no request failed unexplained", not unexplained and not lost, f"{len(unexplained) + lost}"),
        Mark("accepted = finished + in flight + queued after each fault, and nothing is left at the end",
             not soak.troubles, f"{soak.balances} times"),
        Mark("clients and gateway counted the same answers", not miscounts, f"{len(miscounts)} differ"),
        Mark("every agent came back after each fault", all(f.recovered_at for f in soak.faults),
             f"the last after {slowest:.1f} s"),
        Mark("the gateway's descriptors are what they were", after <= before, f"{before} -> {after}"),
        _judge_slope("gateway", slopes.get("gateway")),
        _judge_slope("agents", median(agents) if agents else None),
    ]  # fmt: skip


def _judge_slope(who: str, bytes_per_minute: float | None) -> Mark:
    text = f"memory of the {who} is flat: at most {FLAT_BYTES_PER_MINUTE // 1024} KiB a minute"
    if bytes_per_minute is None:
        return Mark(text, None, "too short")
    figure = f"{bytes_per_minute / 1024:+.0f} KiB a minute"
    return Mark(text, bytes_per_minute <= FLAT_BYTES_PER_MINUTE, figure)


def render_soak(soak: Soak, marks: Sequence[Mark]) -> str:
    """Requests by kind and outcome, reasons, faults, and the marks."""
    head = ["kind", "offered", "200", "p50 ms", "p99 ms", "max ms", "left", "other"]
    rows = [_row(name, counts) for name, counts in soak.load["kinds"].items()]
    rows.append(_row("all", soak.load["all"]))
    words = {True: "held", False: "DID NOT HOLD", None: "unknown"}
    judged = render_table(["mark", "", "figure"], [[m.text, words[m.reached], m.figure] for m in marks])
    parts = [render_table(head, rows), _render_reasons(soak), _render_faults(soak), judged]
    return "\n\n".join([*parts, *soak.troubles, *find_miscounts(soak)])


def _row(name: str, counts: dict) -> list[str]:  # type: ignore[type-arg]
    took = counts["answered_ms"]
    others = {status: n for status, n in counts["statuses"].items() if status != "200"}
    others |= {cause: n for cause, n in counts["failures"].items() if cause != "left"}
    return [
        name, str(counts["offered"]), str(counts["statuses"].get("200", 0)),
        *("-" if took[q] is None else f"{took[q]:.1f}" for q in ("p50", "p99", "max")),
        str(counts["failures"].get("left", 0)),
        ", ".join(f"{what}: {n}" for what, n in others.items()) or "-",
    ]  # fmt: skip


def _render_reasons(soak: Soak) -> str:
    faults = [*soak.faults, *soak.stalls]
    reasons: Counter[tuple[str, ...]] = Counter()
    for event in (Event(*event) for event in soak.load["events"]):
        reasons[event.kind, event.outcome, event.code, explain(event, faults) or "UNEXPLAINED"] += 1
    rows = [[*what, str(count)] for what, count in sorted(reasons.items())]
    lines = [render_table(["kind", "outcome", "code", "why", "requests"], rows)]
    lines += [
        f"unexplained: {e.kind} due at {e.due_at - soak.began_at:.2f} s, {e.outcome} {e.code} "
        f"after {e.at - e.due_at:.2f} s"
        for e in find_unexplained(soak)[:SHOWN]
    ]
    return "\n".join(lines)


def _render_faults(soak: Soak) -> str:
    rows = []
    for name in sorted({fault.name for fault in soak.faults}):
        done = [fault for fault in soak.faults if fault.name == name]
        held = median(fault.healed_at - fault.began_at for fault in done)
        back = [fault.recovered_at - fault.healed_at for fault in done if fault.recovered_at]
        rows.append([name, str(len(done)), f"{held:.1f}", f"{max(back):.1f}" if back else "never"])
    table = render_table(["fault", "times", "lasted s (median)", "all ready after s (most)"], rows)
    stood = sum(stall.healed_at - stall.began_at for stall in soak.stalls)
    return f"{table}\nThis machine itself stood still {len(soak.stalls)} times, {stood:.1f} s in all."

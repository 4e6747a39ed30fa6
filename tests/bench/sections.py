"""The sections that stand alone: each measures, and hands back what is printed and what is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.bench.added_latency import (
    LatencyPace,
    compute_latency_marks,
    measure_added_latency,
    render_latency,
)
from tests.bench.batching import compute_batching_marks, measure_batching, render_batching
from tests.bench.cold_start import compute_cold_start_marks, measure_cold_start, render_cold_start
from tests.bench.control_loop import (
    LoopTiming,
    compute_control_loop_marks,
    measure_control_loop,
    render_control_loop,
)
from tests.bench.engine_ceiling import compute_reference
from tests.bench.failover import OURS, Timing, measure_failover
from tests.bench.failover_report import compute_failover_marks, render_failover
from tests.bench.inputs import write_bodies
from tests.bench.live_site import make_model_home, why_not
from tests.bench.overload import OverloadPace, measure_overload
from tests.bench.overload_report import compute_overload_marks, render_overload
from tests.bench.report import render_marks
from tests.bench.scaling import SEEDS, compute_scaling_marks, measure_scaling, render_scaling
from tests.bench.scaling_live import compute_live_marks, measure_live, render_live
from tests.bench.unequal import compute_unequal_marks, measure_unequal, render_unequal


@dataclass(frozen=True, slots=True)
class Length:
    """How long to measure, and on what. `rounds` None: as many as the section is judged by.

    `find_model` gives the directory of a converted sentence model; it may have to be fetched first.
    `traces` are CSV files that policies are replayed on.
    """

    rounds: int | None = None
    quick: bool = False
    find_model: Callable[[], Path] = Path
    traces: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What a section gave: text for people, an object for the document, whether the appliance failed."""

    text: str
    findings: object
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the benchmark; `measure` raises BenchError where the appliance could not be measured."""

    title: str
    measure: Callable[[Path, Length], Told]


def _measure_unequal(scratch: Path, length: Length) -> Told:
    rounds, seconds = (1, 3.0) if length.quick else (5, 15.0)
    findings = measure_unequal(scratch, length.rounds or rounds, seconds)
    text = f"{render_unequal(findings)}\n\n{render_marks(compute_unequal_marks(findings))}"
    return Told(text, asdict(findings), "millwright" in findings.troubles)


def _measure_failover(scratch: Path, length: Length) -> Told:
    rounds, timing = (1, Timing(before_s=4.0, after_s=6.0)) if length.quick else (5, Timing())
    findings = measure_failover(scratch, length.rounds or rounds, timing)
    text = f"{render_failover(findings)}\n\n{render_marks(compute_failover_marks(findings))}"
    broken = any(fault.unbalanced for fault in findings.faults)
    return Told(text, asdict(findings), broken or OURS in findings.troubles)


def _measure_latency(scratch: Path, length: Length) -> Told:
    model, bodies = length.find_model(), scratch / "bodies.jsonl"
    write_bodies(bodies)
    pace = LatencyPace(1, 0.5, 1.0, 0.5) if length.quick else LatencyPace()
    pace = replace(pace, rounds=length.rounds or pace.rounds)
    findings = measure_added_latency(model, bodies, compute_reference(model)[0], scratch, pace)
    text = f"{render_latency(findings)}\n\n{render_marks(compute_latency_marks(findings))}"
    return Told(text, asdict(findings))


def _measure_overload(scratch: Path, length: Length) -> Told:
    bodies = scratch / "bodies.jsonl"
    write_bodies(bodies)
    pace = OverloadPace(5.0, 1.5) if length.quick else OverloadPace()
    pace = replace(pace, rounds=length.rounds or pace.rounds)
    findings = measure_overload(length.find_model(), bodies, scratch, pace)
    text = f"{render_overload(findings)}\n\n{render_marks(compute_overload_marks(findings))}"
    return Told(text, asdict(findings), bool(findings.troubles))


def _measure_batching(_scratch: Path, length: Length) -> Told:
    rounds = length.rounds or (1 if length.quick else 5)
    found = measure_batching(length.find_model(), rounds, quick=length.quick)
    text = f"{render_batching(found)}\n\n{render_marks(compute_batching_marks(found))}"
    return Told(text, [asdict(one) for one in found])


def _measure_cold_start(scratch: Path, length: Length) -> Told:
    found = measure_cold_start(length.find_model(), scratch, length.rounds or (2 if length.quick else 9))
    text = f"{render_cold_start(found)}\n\n{render_marks(compute_cold_start_marks(found))}"
    return Told(text, [asdict(one) for one in found])


def _measure_scaling(scratch: Path, length: Length) -> Told:
    del scratch
    found = measure_scaling(length.traces, SEEDS[:1] if length.quick else SEEDS)
    text = f"{render_scaling(found)}\n\n{render_marks(compute_scaling_marks(found))}"
    return Told(text, [asdict(one) for one in found])


def _measure_control_loop(scratch: Path, length: Length) -> Told:
    found = measure_control_loop(scratch, LoopTiming(25.0, 15.0) if length.quick else LoopTiming())
    text = f"{render_control_loop(found)}\n\n{render_marks(compute_control_loop_marks(found))}"
    return Told(text, asdict(found))


def _measure_live(scratch: Path, length: Length) -> Told:
    rounds, downs, kill_s = (1, 4, 20.0) if length.quick else (3, 40, 60.0)
    home = None if length.quick or why_not() else make_model_home(length.find_model(), scratch)
    found = measure_live(home, scratch, length.rounds or rounds, downs=downs, kill_s=kill_s)
    text = f"{render_live(found)}\n\n{render_marks(compute_live_marks(found))}"
    return Told(text, asdict(found), found.failed)


#: By the name that `--section` takes.
ALONE: Mapping[str, Section] = {
    "latency": Section("added latency", _measure_latency),
    "batching": Section("batching", _measure_batching),
    "unequal": Section("unequal nodes", _measure_unequal),
    "overload": Section("overload", _measure_overload),
    "failover": Section("failover", _measure_failover),
    "cold-start": Section("cold start", _measure_cold_start),
    "control-loop": Section("control loop", _measure_control_loop),
    "scaling": Section("scaling on traces", _measure_scaling),
    "scaling-live": Section("scaling on real hosts", _measure_live),
}

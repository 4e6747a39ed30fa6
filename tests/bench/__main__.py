"""`python -m tests.bench`: the performance tables. See README.md beside this file."""

import argparse
import datetime as dt
import os
import platform
import signal
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median

from tests.bench.documents import write_document
from tests.bench.end_to_end import Findings, Pace, Work, measure_rounds
from tests.bench.engine_ceiling import BATCHES, PROCESSES, Cell, compute_reference, measure_cell
from tests.bench.enrolment import (
    Enrolments,
    compute_enrolment_marks,
    measure_enrolment,
    render_enrolment,
)
from tests.bench.inputs import write_bodies
from tests.bench.ours import Ours
from tests.bench.peer_servers import Peer, build_peers, install_environment, read_versions
from tests.bench.processes import BenchError, orphans_adopted
from tests.bench.report import (
    compute_marks,
    render_added_latency,
    render_ceiling,
    render_end_to_end,
    render_marks,
)
from tests.bench.sections import ALONE, Length, Section
from tests.bench.servers import Startable

FULL = Pace(rounds=3, load_s=5.0, warm_s=2.0, ceiling_s=3.0)
#: Serving is the engine's ceiling, end to end and added latency: they share their rounds.
SECTIONS = ("serving", *ALONE, "enrolment")
QUICK = Pace(rounds=1, load_s=1.0, warm_s=0.5, ceiling_s=0.5)


def main() -> int:
    """0 measured, 1 the appliance itself could not be, 130 interrupted."""
    given = _parse_arguments()
    pace = QUICK if given.quick else FULL
    if given.rounds:
        pace = Pace(given.rounds, pace.load_s, pace.warm_s, pace.ceiling_s)
    # Whatever ends this process ends what it started: all of it unwinds on KeyboardInterrupt.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="millwright-bench-", ignore_cleanup_errors=True) as scratch:
            return _measure(Path(scratch), pace, given)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything it started is ended", file=sys.stderr)
        return 130


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=_positive, help=f"how often each server is measured ({FULL.rounds})")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run of a minute; its figures mean nothing"
    )
    parser.add_argument("--model-dir", type=Path, help="a converted model, instead of the demo's own")
    parser.add_argument(
        "--only", action="append", metavar="SERVER", help="measure this server only; may repeat"
    )
    parser.add_argument("--section", choices=SECTIONS, help="measure this part only")
    parser.add_argument(
        "--trace", type=Path, action="append", default=[], metavar="FILE.csv",
        help="traffic to replay policies on, beside what is made up; may repeat",
    )  # fmt: skip
    return parser.parse_args()


def _measure(scratch: Path, pace: Pace, given: argparse.Namespace) -> int:
    document: dict[str, object] = {"machine": _read_machine(), "pace": asdict(pace)}
    print(_render_machine(document["machine"]), flush=True)
    ours, failed = Ours(scratch), False
    if given.section in (None, "serving"):
        with orphans_adopted():
            cells, findings = _measure_serving(scratch, ours, pace, given)
        document |= {"engine_ceiling": [asdict(cell) for cell in cells], "end_to_end": asdict(findings)}
        failed = ours.name in findings.troubles
    for name, section in ALONE.items():
        if given.section in (None, name) and not given.only:
            document[name], broken = _measure_alone(scratch / name, section, ours, given)
            failed = failed or broken
    if given.section in (None, "enrolment") and not given.only:
        enrolments = _measure_enrolment(scratch, ours, pace)
        document |= {"enrolment": asdict(enrolments)}
        failed = failed or bool(enrolments.failed)
    print(f"\nwritten to {write_document(document)}")
    return 1 if failed else 0


def _measure_serving(
    scratch: Path, ours: Ours, pace: Pace, given: argparse.Namespace
) -> tuple[list[Cell], Findings]:
    bodies = scratch / "bodies.jsonl"
    write_bodies(bodies)
    model = given.model_dir or _fetch_model(ours)
    reference, tokens = compute_reference(model)

    cells = [measure_cell(model, n, batch, pace.ceiling_s) for n in PROCESSES for batch in BATCHES]
    print(f"\n## engine ceiling\n\n{render_ceiling(cells)}", flush=True)
    best = max(cells, key=lambda cell: cell.sentences_per_s)

    peers = build_peers(model, scratch)
    everyone: list[Startable] = [ours, *peers]
    servers = [one for one in everyone if not given.only or one.name in given.only]
    if not servers:
        raise BenchError(f"no such server; accepted are: {', '.join(one.name for one in everyone)}")
    trouble = _prepare_peers() if len(servers) > 1 or servers[0] is not ours else None
    measured = [one for one in servers if trouble is None or not isinstance(one, Peer)]
    findings = measure_rounds(measured, best, Work(model, bodies, reference), pace)
    findings.troubles |= {one.name: str(trouble) for one in servers if one not in measured}
    _print_findings(findings, servers, ours.name, best)
    print(f"\nA sentence of about {tokens} tokens a request; medians of {pace.rounds} x {pace.load_s:g} s.")
    return cells, findings


def _measure_alone(
    scratch: Path, section: Section, ours: Ours, given: argparse.Namespace
) -> tuple[object, bool]:
    """What goes into the document, and whether the appliance failed."""
    print(f"\n## {section.title}\n", flush=True)
    scratch.mkdir()
    try:
        with orphans_adopted():
            length = Length(
                given.rounds, given.quick, lambda: given.model_dir or _find_model(ours), given.trace
            )
            told = section.measure(scratch, length)
    except BenchError as error:
        print(f"NOT MEASURED: {error}", flush=True)
        return {"trouble": str(error)}, True
    print(told.text, flush=True)
    return told.findings, told.failed


def _measure_enrolment(scratch: Path, ours: Ours, pace: Pace) -> Enrolments:
    if not ours.home.exists():
        with orphans_adopted():
            _fetch_model(ours)
    findings = measure_enrolment(ours.home, scratch, pace.rounds)
    print(f"\n## enrolment\n\n{render_enrolment(findings)}")
    print(f"\n{render_marks(compute_enrolment_marks(findings))}", flush=True)
    return findings


def _fetch_model(ours: Ours) -> Path:
    """Start the appliance once, so that its demo's model is there."""
    print("starting the appliance for its demo's model", file=sys.stderr, flush=True)
    with ours.running():
        return ours.find_model()


def _find_model(ours: Ours) -> Path:
    """The demo's model; fetched where no section has needed it before."""
    return ours.find_model() if ours.home.exists() else _fetch_model(ours)


def _prepare_peers() -> str | None:
    """Why the peers cannot be measured, or None."""
    try:
        install_environment()
    except (BenchError, OSError) as error:
        return str(error)
    return None


def _print_findings(findings: Findings, servers: list[Startable], ours: str, best: Cell) -> None:
    names = [one.name for one in servers]
    print(f"\n## end to end\n\n{render_end_to_end(findings, names, ours)}\n")
    print(
        f"The ceiling is {median(findings.ceilings):.0f} sentences/s: {best.processes} process(es), batch "
        f"{best.batch}, measured anew in each round."
    )
    for one in servers:
        trouble = findings.troubles.get(one.name)
        print(f"- {one.name}: {one.settings}" + (f". NOT MEASURED: {trouble}" if trouble else ""))
    print(f"\n## added latency\n\n{render_added_latency(findings, names)}")
    marks = compute_marks(findings, ours, [name for name in names if name != ours])
    print(f"\n## marks\n\n{render_marks(marks)}")


def _read_machine() -> dict[str, object]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    ours = ("ctranslate2", "tokenizers", "uvicorn", "uvloop")
    return {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ours},
        "peers": read_versions(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _render_machine(facts: object) -> str:
    assert isinstance(facts, dict)

    def join(pairs: object) -> str:
        assert isinstance(pairs, dict)
        return ", ".join(f"{name} {value}" for name, value in pairs.items())

    return (
        f"# bench, {facts['at']}\n\n"
        f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, Python {facts['python']}; "
        f"load before the run {facts['load_before']}\n"
        f"ours: {join(facts['versions'])}\npeers: {join(facts['peers'])}"
    )


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 is accepted")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

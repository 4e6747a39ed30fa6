"""The rounds: each server in turn is started, checked, loaded and ended, the ceiling beside them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.engine_ceiling import Cell, measure_call_ms, measure_cell
from tests.bench.processes import BenchError
from tests.bench.servers import Startable, check_work, run_load

CONNECTIONS = (1, 16, 64)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One load run on one server; `generator_cores` is the processor time that the load took a second."""

    server: str
    round: int
    connections: int
    throughput_rps: float
    p50_ms: float | None
    p99_ms: float | None
    not_ok: int
    generator_cores: float = 0.0


@dataclass(slots=True)
class Findings:
    """All that the rounds gave. `troubles`: server -> why it could not be measured."""

    ceilings: list[float] = field(default_factory=list)
    calls_ms: list[float] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long each thing takes, in seconds."""

    rounds: int
    load_s: float
    warm_s: float
    ceiling_s: float


@dataclass(frozen=True, slots=True)
class Work:
    """What every server does: the model, the requests, and the vector that the first one must give."""

    model: Path
    bodies: Path
    reference: list[float]


def measure_rounds(servers: Sequence[Startable], best: Cell, work: Work, pace: Pace) -> Findings:
    """Every round measures the best cell of the ceiling anew, one call, then each server in turn.

    The order of the servers turns with the rounds, so that none always follows the same one.
    """
    findings = Findings()
    for number in range(pace.rounds):
        cell = measure_cell(work.model, best.processes, best.batch, pace.ceiling_s)
        findings.ceilings.append(cell.sentences_per_s)
        findings.calls_ms.append(measure_call_ms(work.model, pace.ceiling_s))
        turn = number % len(servers)
        for server in [*servers[turn:], *servers[:turn]]:
            if server.name in findings.troubles:
                continue
            _show(f"round {number + 1}/{pace.rounds}: {server.name}")
            try:
                findings.measurements += _measure_server(server, number, work, pace)
            except BenchError as error:
                findings.troubles[server.name] = str(error)
                _show(f"{server.name}: {error}")
    return findings


def _measure_server(startable: Startable, number: int, work: Work, pace: Pace) -> list[Measurement]:
    with startable.running() as server:
        check_work(server, work.bodies, work.reference)
        run_load(server, work.bodies, max(CONNECTIONS), pace.warm_s)
        return [
            _read_summary(startable.name, number, n, run_load(server, work.bodies, n, pace.load_s))
            for n in CONNECTIONS
        ]


def _read_summary(server: str, number: int, connections: int, summary: dict[str, Any]) -> Measurement:
    latency = summary["latency"]
    return Measurement(
        server, number, connections, summary["throughput_rps"],
        latency["p50_ms"], latency["p99_ms"], summary["not_ok"],
        summary["cpu_s"] / max(summary["window_s"], 1e-9),
    )  # fmt: skip


def _show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

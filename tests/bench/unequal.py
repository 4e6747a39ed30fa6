"""Three agents of unequal speed: the gateway beside nginx, HAProxy and an ideal queue, same arrivals."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.balancers import build_balancers, install_balancers
from tests.bench.inputs import write_bodies
from tests.bench.open_load import OpenPlan, percentile, run_open
from tests.bench.plant import AgentKind, Plant
from tests.bench.processes import BenchError
from tests.bench.report import Mark, render_table
from tests.bench.servers import ROOT, Server

sys.path += [str(ROOT / "tests" / "policies")]

from queue_simulator import central_queue_ms

#: Milliseconds that each agent takes for one request; it takes one at a time.
SERVICE_MS = (10.0, 10.0, 40.0)
#: Requests per second: 80 % of what the agents can do together, and 50 %.
RATES = (180.0, 112.0)
MARKED_RATE = RATES[0]
OURS, IDEAL, FIRST_FREE = "millwright", "ideal: earliest completion", "ideal: first free agent"
PEERS = ("nginx", "HAProxy")
PEER_MARK, IDEAL_MARK = 0.5, 1.3
#: Peers queue at the agents, as they would in life.
UNBOUNDED = 10_000
WARM_S = 2.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One run on one server, or the computed ideal for its arrivals. Milliseconds, None without answers."""

    server: str
    rate: float
    round: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    failed: int


@dataclass(slots=True)
class Unequal:
    """All turns. `troubles`: server -> why it could not be measured."""

    turns: list[Turn] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


def measure_unequal(scratch: Path, rounds: int, seconds: float) -> Unequal:
    """Each round has arrivals of its own, the same for all servers, which take turns in turning order."""
    findings, bodies = Unequal(), scratch / "bodies.jsonl"
    write_bodies(bodies)
    kinds = [AgentKind(ms) for ms in SERVICE_MS]
    patient = [AgentKind(ms, admits=UNBOUNDED) for ms in SERVICE_MS]
    with contextlib.ExitStack() as stack:
        plant = stack.enter_context(Plant(scratch / "ours", kinds))
        bare = stack.enter_context(Plant(scratch / "theirs", patient, gateway=False))
        site = _Site(scratch, bodies, plant, bare)
        servers = _start_turns(site, findings)
        for rate in RATES:
            for number in range(rounds):
                at = number % len(servers)
                plan = OpenPlan(rate, seconds, seed=number + 1)
                for name in [*servers[at:], *servers[:at]]:
                    _take_turn(site, name, number, plan, findings)
        plant.check_conservation()
    return findings


class _Site:
    """What is measured on: our plant, and agents of the same kind with either balancer before them."""

    def __init__(self, scratch: Path, bodies: Path, plant: Plant, bare: Plant) -> None:
        self.scratch, self.bodies, self._plant = scratch, bodies, plant
        self.balancers = {one.name: one for one in build_balancers(scratch, bare.agents, bare.client)}

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[Server]:
        if name == OURS:
            yield self._plant.server
            return
        with self.balancers[name].running(self.bodies.read_bytes().splitlines()[0]) as server:
            yield server


def _start_turns(site: _Site, findings: Unequal) -> list[str]:
    """Who is measured."""
    findings.settings = {one.name: one.settings for one in site.balancers.values()}
    try:
        install_balancers()
    except BenchError as error:
        findings.troubles = dict.fromkeys(PEERS, str(error))
        return [OURS]
    return [OURS, *PEERS]


def _take_turn(site: _Site, name: str, number: int, plan: OpenPlan, findings: Unequal) -> None:
    if name in findings.troubles:
        return
    print(f"{plan.rps:g}/s, round {number + 1}: {name}", file=sys.stderr, flush=True)
    record = site.scratch / "record"
    try:
        with site.running(name) as server:
            run_open(server, site.bodies, OpenPlan(plan.rps, WARM_S, seed=0), record)
            run = run_open(server, site.bodies, plan, record)
    except BenchError as error:
        findings.troubles[name] = str(error)
        return
    findings.turns.append(build_turn(name, plan.rps, number, run.latencies_ms(), len(run.failed)))
    if name == OURS:
        arrivals = [row.t for row in run.rows]
        services_s = [ms / 1000 for ms in SERVICE_MS]
        for ideal, first_free in ((IDEAL, False), (FIRST_FREE, True)):
            told = central_queue_ms(arrivals, services_s, first_free=first_free)
            findings.turns.append(build_turn(ideal, plan.rps, number, told, 0))


def build_turn(server: str, rate: float, number: int, latencies_ms: Sequence[float], failed: int) -> Turn:
    """Quantiles of sorted latencies."""
    p50, p95, p99 = (percentile(latencies_ms, share) for share in (0.50, 0.95, 0.99))
    return Turn(server, rate, number, p50, p95, p99, failed)


def render_unequal(findings: Unequal) -> str:
    """Medians over the rounds, with ratios of p99."""
    rows = []
    for rate in RATES:
        ours = _median(findings, OURS, rate, "p99_ms")
        for name in (OURS, *PEERS, IDEAL, FIRST_FREE):
            turns = [one for one in findings.turns if (one.server, one.rate) == (name, rate)]
            if not turns:
                continue
            figures = [_median(findings, name, rate, which) for which in ("p50_ms", "p95_ms", "p99_ms")]
            ratio = "" if name == OURS or not ours or not figures[2] else f"{ours / figures[2]:.2f}"
            told = ["-" if figure is None else f"{figure:.1f}" for figure in figures]
            rows.append([f"{rate:g}", name, *told, ratio, str(sum(one.failed for one in turns))])
    head = ["arrivals/s", "server", "p50 ms", "p95 ms", "p99 ms", f"p99 {OURS} / it", "failed"]
    lines = [render_table(head, rows), ""]
    lines += [f"- {name}: {told}" for name, told in findings.settings.items()]
    lines += [f"- {name}: NOT MEASURED: {why}" for name, why in findings.troubles.items()]
    return "\n".join(lines)


def compute_unequal_marks(findings: Unequal) -> list[Mark]:
    """The marks of the tail: half of either peer's, near the ideal's."""
    ours = _median(findings, OURS, MARKED_RATE, "p99_ms")
    marks = []
    for name, most in (*((peer, PEER_MARK) for peer in PEERS), (IDEAL, IDEAL_MARK)):
        text = f"p99 at {MARKED_RATE:g}/s at most {most:g} x {name}"
        other = _median(findings, name, MARKED_RATE, "p99_ms")
        if ours is None or other is None:
            marks.append(Mark(text, None, "not measured"))
        else:
            marks.append(Mark(text, ours <= most * other, f"x {ours / other:.2f}"))
    return marks


def _median(findings: Unequal, server: str, rate: float, which: str) -> float | None:
    turns = [one for one in findings.turns if (one.server, one.rate) == (server, rate)]
    told = [value for one in turns if (value := getattr(one, which)) is not None]
    return median(told) if told else None

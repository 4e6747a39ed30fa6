"""One of three equal agents dies, or stands still, under load: what clients notice; nginx and HAProxy beside.

A killed agent is started again as systemd would, after 100 ms; one that is stopped goes on after a while.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.balancers import Balancer, build_balancers, install_balancers
from tests.bench.inputs import write_bodies
from tests.bench.open_load import Loading, OpenPlan, OpenRun, Row, percentile, run_open
from tests.bench.plant import AgentKind, Plant, PlantAgent
from tests.bench.processes import BenchError

OURS, PEERS = "millwright", ("nginx", "HAProxy")
AGENTS, SERVICE_MS = 3, 10.0
RESTART_S = 0.1
#: How long a stopped agent stands still.
STOPPED_S = 4.0
#: Clients judge the time after a fault by this much of it, and compare it with as much before.
WINDOW_S = 5.0
READY_S = 30.0
UNBOUNDED = 10_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault at a share of the agents' capacity. `beside`: the peers are measured too."""

    name: str
    load: float
    stops: bool = False
    beside: bool = False


KILL_60 = Scenario("SIGKILL at 60 %", 0.6, beside=True)
KILL_80 = Scenario("SIGKILL at 80 %", 0.8)
STOP_60 = Scenario("SIGSTOP at 60 %", 0.6, stops=True)
SCENARIOS = (KILL_60, KILL_80, STOP_60)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of a run: the fault comes after `before_s`, the load goes on for `after_s`."""

    before_s: float = 8.0
    after_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What one fault did. `failures` by status or cause; times without a figure are None.

    `usual_p99_ms` is of the seconds before it, `p99_ms` of the 5 s from it on, `longest_ms` of any request
    that ended since. `ready_s` is from the fault until the agent was ready again, `backlog_s` from there
    until no more requests were under way than usual, `ejected_ms` from a stop until the gateway no more
    counted the agent as ready.
    """

    server: str
    scenario: str
    round: int
    requests: int
    failures: dict[str, int]
    usual_p99_ms: float | None
    p99_ms: float | None
    longest_ms: float | None
    ready_s: float | None = None
    backlog_s: float | None = None
    ejected_ms: float | None = None
    unbalanced: str = ""

    @property
    def failed(self) -> int:
        """Requests that were not answered with 2xx."""
        return sum(self.failures.values())


@dataclass(slots=True)
class Failover:
    """All faults. `troubles`: server -> why it could not be measured."""

    faults: list[Fault] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Moments:
    """When it happened, by the monotonic clock."""

    fault: float = 0.0
    ejected: float | None = None
    ready: float | None = None


def measure_failover(scratch: Path, rounds: int, timing: Timing) -> Failover:
    """Each round does each fault to the next agent; the peers take their turns after us."""
    findings, bodies = Failover(), scratch / "bodies.jsonl"
    write_bodies(bodies)
    try:
        install_balancers()
    except BenchError as error:
        findings.troubles |= dict.fromkeys(PEERS, str(error))
    for number in range(rounds):
        for scenario in SCENARIOS:
            _show(f"{scenario.name}, round {number + 1}: {OURS}")
            folder = scratch / f"{number}-{SCENARIOS.index(scenario)}"
            with Plant(folder / "ours", _kinds()) as plant:
                findings.faults.append(measure_fault(plant, bodies, scenario, number, timing))
            if scenario.beside:
                with Plant(folder / "theirs", _kinds(UNBOUNDED), gateway=False) as bare:
                    peers = _Peers(bare, bodies, timing, findings)
                    for balancer in build_balancers(folder, bare.agents, bare.client):
                        peers.measure(balancer, scenario, number)
    return findings


def measure_fault(plant: Plant, bodies: Path, scenario: Scenario, number: int, timing: Timing) -> Fault:
    """One fault to a plant of three agents, with conservation checked at the end. Raises BenchError."""
    agent = plant.agents[number % len(plant.agents)]
    moments = Moments()

    def during(loading: Loading) -> None:
        loading.wait_until(timing.before_s)
        act = _stop if scenario.stops else _kill
        act(agent, moments, plant.count_ready)

    plan = _plan(plant, scenario, number, timing)
    run = run_open(plant.server, bodies, plan, bodies.with_name("record"), during)
    unbalanced = ""
    try:
        plant.check_conservation()
    except BenchError as error:
        unbalanced = str(error)
    return judge(run, moments, server=OURS, scenario=scenario, number=number, unbalanced=unbalanced)


def _kinds(admits: int | None = None) -> list[AgentKind]:
    return [AgentKind(SERVICE_MS, admits=admits)] * AGENTS


def _plan(plant: Plant, scenario: Scenario, number: int, timing: Timing) -> OpenPlan:
    return OpenPlan(scenario.load * plant.capacity_rps, timing.before_s + timing.after_s, seed=number + 1)


def _kill(agent: PlantAgent, moments: Moments, count_ready: Callable[[], int]) -> None:
    moments.fault = time.monotonic()
    agent.kill()
    time.sleep(max(0.0, moments.fault + RESTART_S - time.monotonic()))
    agent.start()
    moments.ready = _when(lambda: count_ready() >= AGENTS, 0.02)


def _stop(agent: PlantAgent, moments: Moments, count_ready: Callable[[], int]) -> None:
    moments.fault = time.monotonic()
    agent.stop()
    try:
        moments.ejected = _when(lambda: count_ready() < AGENTS, 0.01, STOPPED_S)
        time.sleep(max(0.0, moments.fault + STOPPED_S - time.monotonic()))
    finally:
        agent.cont()
    moments.ready = _when(lambda: count_ready() >= AGENTS, 0.02)


def _when(is_so: Callable[[], bool], every_s: float, within_s: float = READY_S) -> float | None:
    """When it was so first, None where it was not within that time."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            return None
        time.sleep(every_s)
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class _Peers:
    """Measures the balancers before the agents of one plant."""

    bare: Plant
    bodies: Path
    timing: Timing
    findings: Failover

    def measure(self, balancer: Balancer, scenario: Scenario, number: int) -> None:
        """One fault; what cannot be measured is not tried again."""
        if balancer.name in self.findings.troubles:
            return
        _show(f"{scenario.name}, round {number + 1}: {balancer.name}")
        try:
            self.findings.faults.append(self._measure(balancer, scenario, number))
        except BenchError as error:
            self.findings.troubles[balancer.name] = str(error)

    def _measure(self, balancer: Balancer, scenario: Scenario, number: int) -> Fault:
        agent, moments = self.bare.agents[number % AGENTS], Moments()

        def during(loading: Loading) -> None:
            loading.wait_until(self.timing.before_s)
            _kill(agent, moments, lambda: AGENTS)

        with balancer.running(self.bodies.read_bytes().splitlines()[0]) as server:
            plan = _plan(self.bare, scenario, number, self.timing)
            run = run_open(server, self.bodies, plan, self.bodies.with_name("record"), during)
        moments.ready = None  # when it takes the agent back a balancer does not tell
        return judge(run, moments, server=balancer.name, scenario=scenario, number=number)


def judge(
    run: OpenRun, moments: Moments, *, server: str, scenario: Scenario, number: int, unbalanced: str = ""
) -> Fault:
    """From a run and what happened in it to figures. Pure."""
    fault_s = moments.fault - run.started_at
    since = [row.ms for row in run.rows if row.good and row.ended_s >= fault_s]
    backlog_s = None
    if moments.ready is not None:
        backlog_s = find_backlog_s(run.rows, fault_s, moments.ready - run.started_at)
    return Fault(
        server, scenario.name, number, len(run.rows),
        dict(Counter(str(row.status or row.cause) for row in run.failed)),
        percentile(run.latencies_ms(fault_s - WINDOW_S, fault_s), 0.99),
        percentile(run.latencies_ms(fault_s, fault_s + WINDOW_S), 0.99),
        max(since, default=None),
        None if moments.ready is None else moments.ready - moments.fault,
        backlog_s,
        None if moments.ejected is None else (moments.ejected - moments.fault) * 1000,
        unbalanced,
    )  # fmt: skip


def count_under_way(rows: Sequence[Row]) -> list[tuple[float, int]]:
    """How many requests had come and not ended, from each moment of a change on."""
    changes = sorted([(row.t, 1) for row in rows] + [(row.ended_s, -1) for row in rows])
    count, told = 0, []
    for at, change in changes:
        count += change
        told.append((at, count))
    return told


def find_backlog_s(rows: Sequence[Row], fault_s: float, ready_s: float) -> float | None:
    """Seconds from `ready_s` until no more are under way than on average in the time before the fault.

    None where that does not happen while requests still come.
    """
    told = count_under_way(rows)
    usual = [row for row in rows if fault_s - WINDOW_S <= row.t < fault_s]
    window_s = min(WINDOW_S, fault_s)
    average = sum(row.ms for row in usual) / 1000 / window_s  # Little's law
    last_s = max((row.t for row in rows), default=0.0)
    for at, count in told:
        if ready_s <= at <= last_s and count <= max(1.0, average):
            return at - ready_s
    return None


def _show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

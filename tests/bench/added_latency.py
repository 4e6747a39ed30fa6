"""What a lone request takes over a call within a process, and what a request costs in CPU time."""

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.engine_ceiling import measure_call_ms
from tests.bench.peer_servers import build_peers
from tests.bench.plant import AgentKind, Plant
from tests.bench.process_figures import CpuWatch, read_thread_cpu_s
from tests.bench.processes import BenchError
from tests.bench.report import Mark, render_table
from tests.bench.servers import Server, check_work, run_load

OURS = "millwright"
WORKERS = 2
CONNECTIONS = 64
ADDED_MARK_MS = 0.7
GATEWAY_MARK_US = 120.0


@dataclass(frozen=True, slots=True)
class LatencyPace:
    """Rounds, and seconds of each part of a round."""

    rounds: int = 7
    lone_s: float = 2.0
    cpu_s: float = 4.0
    warm_s: float = 2.0


@dataclass(frozen=True, slots=True)
class CpuCost:
    """Microseconds of CPU for a request at 64 connections.

    `agent_us` is the agent's but for the threads that its engine computes in.
    """

    requests: int
    gateway_us: float
    agent_us: float
    engine_us: float


@dataclass(slots=True)
class AddedLatency:
    """By round: medians in ms of `calls` within a process, and of `lone` requests by server; CPU."""

    calls: list[float] = field(default_factory=list)
    lone: dict[str, list[float]] = field(default_factory=dict)
    cpu: list[CpuCost] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)


def measure_added_latency(
    model: Path, bodies: Path, reference: list[float], scratch: Path, pace: LatencyPace
) -> AddedLatency:
    """All servers run at once, and are asked in turn: call, server, server; the order turns with the rounds.

    FastAPI stands beside ours; where it cannot be run, `troubles` says why.
    """
    found = AddedLatency()
    with Plant(scratch / "latency", [AgentKind(model_dir=model, workers=WORKERS, batch_size=8)]) as plant:
        with contextlib.ExitStack() as peer_stack:
            servers = [plant.server]
            peer = build_peers(model, scratch)[0]
            try:
                server = peer_stack.enter_context(peer.running())
                check_work(server, bodies, reference)
                servers.append(server)
            except (BenchError, OSError) as error:
                found.troubles[peer.name] = str(error)
            check_work(plant.server, bodies, reference)
            run_load(plant.server, bodies, CONNECTIONS, pace.warm_s)
            for number in range(pace.rounds):
                _show(f"added latency {number + 1}/{pace.rounds}")
                found.calls.append(measure_call_ms(model, pace.lone_s))
                turn = number % len(servers)
                for server in [*servers[turn:], *servers[:turn]]:
                    found.lone.setdefault(server.name, []).append(_ask_alone(server, bodies, pace.lone_s))
        for _ in range(pace.rounds):
            found.cpu.append(_measure_cpu(plant, bodies, pace.cpu_s))
        plant.check_conservation()
    return found


def _ask_alone(server: Server, bodies: Path, seconds: float) -> float:
    """Median ms of a request at one connection."""
    summary = run_load(server, bodies, 1, seconds)
    if summary["not_ok"] or summary["latency"]["p50_ms"] is None:
        raise BenchError(f"{server.name}: {summary['not_ok']} requests at one connection were not answered")
    return float(summary["latency"]["p50_ms"])


def _measure_cpu(plant: Plant, bodies: Path, seconds: float) -> CpuCost:
    agent = plant.agents[0].pid
    watch, before = CpuWatch({"gateway": plant.gateway_pid}), read_thread_cpu_s(agent)
    answered = run_load(plant.server, bodies, CONNECTIONS, seconds)["answered"]
    gateway_s = watch.read()["gateway"]
    engine_s, rest_s = split_engine(before, read_thread_cpu_s(agent), WORKERS)
    return CpuCost(answered, gateway_s / answered * 1e6, rest_s / answered * 1e6, engine_s / answered * 1e6)


def split_engine(
    before: Mapping[int, float], after: Mapping[int, float], workers: int
) -> tuple[float, float]:
    """CPU seconds between two looks at a process's threads: of those that compute, and of all others.

    The engine computes in one thread for each worker: they are those that took most.
    """
    used = sorted((seconds - before.get(thread, 0.0) for thread, seconds in after.items()), reverse=True)
    return sum(used[:workers]), sum(used[workers:])


def compute_added(found: AddedLatency) -> dict[str, float]:
    """By server the median over the rounds of what it added to the call of the same round, in ms."""
    return {
        name: median(ms - call for ms, call in zip(lone, found.calls, strict=True))
        for name, lone in found.lone.items()
    }


def compute_latency_marks(found: AddedLatency) -> list[Mark]:
    """One connection, the gateway's CPU, and ahead of the peer."""
    added = compute_added(found)
    gateway_us = median(cost.gateway_us for cost in found.cpu)
    marks = [
        Mark(f"one connection: at most {ADDED_MARK_MS} ms over the call within a process",
             added[OURS] <= ADDED_MARK_MS, f"{added[OURS]:+.2f} ms"),
        Mark(f"the gateway's CPU for a request at {CONNECTIONS} connections at most {GATEWAY_MARK_US:.0f} us",
             gateway_us <= GATEWAY_MARK_US, f"{gateway_us:.0f} us"),
    ]  # fmt: skip
    marks += [
        Mark(f"adds less than {name}", added[OURS] < ms, f"{added[OURS]:+.2f} against {ms:+.2f} ms")
        for name, ms in added.items()
        if name != OURS
    ]
    marks += [
        Mark(f"adds less than {name}: {why}", None, "not measured") for name, why in found.troubles.items()
    ]
    return marks


def render_latency(found: AddedLatency) -> str:
    """Two tables: milliseconds of a lone request, and CPU time of one among many."""
    added = compute_added(found)
    rows = [["call within a process", f"{median(found.calls):.2f}", ""]]
    rows += [[name, f"{median(lone):.2f}", f"{added[name]:+.2f}"] for name, lone in found.lone.items()]
    lone = render_table(["one connection", "p50 ms", "added ms"], rows)
    parts = {
        "gateway": [cost.gateway_us for cost in found.cpu],
        "agent, but for its engine": [cost.agent_us for cost in found.cpu],
        "engine": [cost.engine_us for cost in found.cpu],
    }
    cpu = render_table(
        [f"CPU of a request, {CONNECTIONS} connections", "us", "least", "most"],
        [[name, f"{median(us):.0f}", f"{min(us):.0f}", f"{max(us):.0f}"] for name, us in parts.items()],
    )
    return f"{lone}\n\n{cpu}"


def _show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

"""Three times as much is asked as can be done: what is still answered, in time, and who gets it."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.inputs import build_sentences
from tests.bench.mixed_load import Kind, MixedPlan, mixed_load
from tests.bench.plant import AgentKind, Plant
from tests.bench.process_figures import CpuWatch, Sampler, read_waited_s
from tests.bench.processes import BenchError
from tests.bench.servers import run_load
from tests.bench.tally import cost_per_refusal_us, fit_slope

TIMES = 3.0
DEADLINE_S = 1.0
AGENTS, SERVICE_MS = 4, 20.0
CONNECTIONS = 64
#: Of the traffic: high priority, and of the rest what the greedy key sends for one of each other key.
HIGH_SHARE, GREEDY_PARTS = 0.1, 10
MODEST = ("modest-1", "modest-2", "modest-3")
WARM_S = 3.0
#: Memory is looked at from here on: queues and tables have filled by then.
SETTLED_S = 10.0


@dataclass(frozen=True, slots=True)
class Overload:
    """One run. CPU in seconds, costs in microseconds of the gateway's CPU.

    `cpu_s` is over `elapsed`; in `gateway waited` of it the gateway was ready to run and had no core.
    `capacity_rps` is what is offered three times; `high_alone_ms` how long high priority takes with
    nothing beside it.
    """

    name: str
    round: int
    capacity_rps: float
    closed_rps: float
    cpu_s: dict[str, float]
    answer_us: float
    refusal_us: float | None
    high_alone_ms: dict[str, float | None]
    rss_slope_bytes_per_s: float | None
    rss_bytes: list[int]
    figures: dict[str, Any]
    balanced: dict[str, float]


@dataclass(slots=True)
class Overloads:
    """All runs; `troubles` says by name what could not be measured, and why."""

    runs: list[Overload] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OverloadPace:
    """Seconds of the overload and of the closed loop before and after it, and how often all that is done."""

    seconds: float = 60.0
    closed_s: float = 8.0
    rounds: int = 1


def measure_overload(model: Path | None, bodies: Path, scratch: Path, pace: OverloadPace) -> Overloads:
    """Agents of fixed service time, then those of a real model (None: left out), round after round."""
    setups: dict[str, list[AgentKind]] = {"fixed service": [AgentKind(SERVICE_MS)] * AGENTS}
    if model is not None:
        setups["MiniLM"] = [AgentKind(model_dir=model, batch_size=8)] * 2
    found = Overloads()
    for number in range(pace.rounds):
        for name, kinds in setups.items():
            if name in found.troubles:
                continue
            print(f"overload {number + 1}/{pace.rounds}: {name}", file=sys.stderr, flush=True)
            try:
                with Plant(scratch / f"overload-{len(found.runs)}", kinds) as plant:
                    found.runs.append(_measure(plant, name, number, bodies, pace))
            except BenchError as error:
                found.troubles[name] = str(error)
    return found


def _measure(plant: Plant, name: str, number: int, bodies: Path, pace: OverloadPace) -> Overload:
    keys = {key: plant.add_key(key) for key in ("high", "greedy", *MODEST)}
    plant.write_routes()
    run_load(plant.server, bodies, CONNECTIONS, WARM_S)
    idle = CpuWatch({"gateway": plant.gateway_pid})
    time.sleep(WARM_S)
    idle_share = _share(idle.read())
    closed = CpuWatch({"gateway": plant.gateway_pid})
    before = run_load(plant.server, bodies, CONNECTIONS, pace.closed_s)
    used = closed.read()
    answer_us = (used["gateway"] - idle_share * used["elapsed"]) / before["answered"] * 1e6
    fixed = plant.agents[0].kind.model_dir is None
    capacity = AGENTS * 1000 / SERVICE_MS if fixed else before["throughput_rps"]

    alone = build_kinds(keys, only_high=True)
    with mixed_load(MixedPlan(plant.url, capacity * TIMES * HIGH_SHARE, pace.closed_s, alone)) as load:
        high_alone = load.finish()["kinds"]["high"]["answered_ms"]
    plan = MixedPlan(plant.url, capacity * TIMES, pace.seconds, build_kinds(keys), events=False)
    figures, cpu_s, samples = _overload(plant, plan)
    after = run_load(plant.server, bodies, CONNECTIONS, pace.closed_s)
    closed_rps = (before["throughput_rps"] + after["throughput_rps"]) / 2
    every = figures["all"]
    began = figures["started_at"]
    settled = [
        (s.at - began, float(s.rss_bytes))
        for s in samples
        if s.at - began >= min(SETTLED_S, pace.seconds / 3)
    ]
    return Overload(
        name, number, capacity if fixed else closed_rps, closed_rps, cpu_s, answer_us,
        cost_per_refusal_us(
            cpu_s["gateway"], idle_share * cpu_s["elapsed"], every["answered_ms"]["count"], answer_us,
            every["refused_ms"]["count"],
        ),
        high_alone, fit_slope(settled), [s.rss_bytes for s in samples], figures,
        plant.check_conservation(),
    )  # fmt: skip


def _overload(plant: Plant, plan: MixedPlan) -> tuple[dict[str, Any], dict[str, float], Sequence[Any]]:
    """The load's figures, CPU by part, and looks at the gateway's memory while it lasted."""
    with mixed_load(plan) as load, Sampler(lambda: {"gateway": plant.gateway_pid}) as sampler:
        agents = {f"agent {at}": agent.pid for at, agent in enumerate(plant.agents)}
        watch = CpuWatch({"gateway": plant.gateway_pid, "generator": load.pid} | agents)
        waited_s = read_waited_s(plant.gateway_pid)
        time.sleep(plan.seconds)
        used = watch.read() | {"gateway waited": read_waited_s(plant.gateway_pid) - waited_s}
        figures = load.finish()
    used["agents"] = sum(used.pop(name) for name in agents)
    return figures, used, list(sampler.samples.get("gateway", ()))


def build_kinds(keys: Mapping[str, Path], *, only_high: bool = False) -> tuple[Kind, ...]:
    """High priority by a key of its own; normal by one greedy key and modest ones. All with a deadline."""
    parts = {"high": 0.0, "greedy": float(GREEDY_PARTS)} | dict.fromkeys(MODEST, 1.0)
    whole = sum(parts.values())
    shares = {name: (1 - HIGH_SHARE) * part / whole for name, part in parts.items()} | {"high": HIGH_SHARE}
    sentences = [
        json.dumps({"model": "minilm", "input": text, "encoding_format": "base64"})
        for text in build_sentences()
    ]
    return tuple(
        Kind(
            name, share, tuple(sentences),
            {
                "Authorization": f"Bearer {keys[name].read_text()}",
                "x-deadline-ms": f"{DEADLINE_S * 1000:.0f}",
                "x-priority": "high" if name == "high" else "normal",
            },
            deadline_s=DEADLINE_S,
        )
        for name, share in shares.items()
        if not only_high or name == "high"
    )  # fmt: skip


def _share(used: Mapping[str, float]) -> float:
    """Of one core, what the gateway took."""
    return used["gateway"] / used["elapsed"]

"""`python -m tests.bench.soak` (that is `make soak`): mixed load for minutes while one fault follows another.

Ends with 1 where a request failed that no fault explains, where the counters do not balance, where
an agent does not come back, or where memory or descriptors grow.
"""

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.documents import write_document
from tests.bench.mixed_load import Kind, MixedPlan, RunningLoad, mixed_load
from tests.bench.ours import Ours
from tests.bench.plant import AgentKind, Plant
from tests.bench.process_figures import Sampler, read_sample
from tests.bench.processes import BenchError, orphans_adopted, signals_interrupt
from tests.bench.relay import Relays
from tests.bench.soak_explain import HURRIED_S, Fault
from tests.bench.soak_faults import COMING, Faults, SoakPlant, StallWatch
from tests.bench.soak_report import SLOPE_S, WARM_SHARE, compute_soak_marks, render_soak

#: Three agents of 20 ms, one at a time, have 43 % of their capacity to do, and two 64 %.
RPS, MAIN_SERVICE_MS = 80.0, 20.0
DEADLINE_S = 30.0
#: The first fault comes after this, and no new one begins in so many last seconds.
CALM_S = 5.0
IDLE_S = 20.0
#: Where memory is judged, first so many scrapes: each leaves some 10 KiB until Python looks for cycles,
#: and only then is there as much of it as there will ever be.
SETTLING_SCRAPES = 2500
_REQUESTS = re.compile(r"millwright_requests_total\{(?:.*,)?(\d{3})(?:,.*)?\}")
WORDS = ("mill", "river", "stone", "wheel", "grain", "flour", "water", "sack", "cart", "bread", "baker")


@dataclass(slots=True)
class Soak:
    """What a soak gave. `codes` are the gateway's own counts of answers, `troubles` what did not balance."""

    seconds: float
    seed: int
    began_at: float
    faults: list[Fault] = field(default_factory=list)
    stalls: list[Fault] = field(default_factory=list)
    load: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[Any]] = field(default_factory=dict)
    codes: dict[str, float] = field(default_factory=dict)
    descriptors: tuple[int, int] = (0, 0)
    balances: int = 0
    troubles: list[str] = field(default_factory=list)


def run_soak(scratch: Path, seconds: float, seed: int, model: Path | None, every_s: float = 8.0) -> Soak:
    """Load and faults for so long; a fault begins up to `every_s` after the last one has healed."""
    deployment = {"deadline_s": DEADLINE_S}
    with Plant(scratch / "plant", [], deployment=deployment) as plant, Relays() as relays:
        soaked = SoakPlant(plant, relays)
        kinds = _set_up(soaked, model)
        if seconds >= SLOPE_S / WARM_SHARE:
            for _ in range(SETTLING_SCRAPES):
                plant.scrape()
        idle_before = read_sample(plant.gateway_pid).descriptors
        soak = Soak(seconds, seed, time.monotonic())
        with (
            mixed_load(MixedPlan(plant.url, RPS, seconds, kinds, seed)) as load,
            Sampler(lambda: _find_pids(plant)) as sampler,
            StallWatch() as stalls,
        ):
            _do_faults(soak, soaked, load, every_s)
            soak.load = load.finish()
        soak.stalls, soak.samples = stalls.stalls, dict(sampler.samples)
        _settle(soak, plant, idle_before)
    return soak


def _set_up(soaked: SoakPlant, model: Path | None) -> tuple[Kind, ...]:
    """Three equal agents; one behind a cache, one that comes and goes, and one with a real model."""
    plant = soaked.plant
    plant.add_deployment("cached", cache_bytes=1_000_000)
    plant.add_deployment(COMING)
    agents = [AgentKind(MAIN_SERVICE_MS)] * 3
    agents += [AgentKind(8.0, batch_size=4, deployment=name) for name in ("cached", COMING)]
    if model is not None:
        plant.add_deployment("real")
        agents.append(AgentKind(model_dir=model, batch_size=8, deployment="real"))
    for agent in agents:
        soaked.add_agent(agent)
    keys = {name: plant.add_key(name) for name in ("one", "two")} | {"rated": plant.add_key("rated", rpm=60)}
    plant.write_routes()
    plant.wait_ready()
    return _build_kinds({name: path.read_text() for name, path in keys.items()}, real=model is not None)


def _build_kinds(keys: Mapping[str, str], *, real: bool) -> tuple[Kind, ...]:
    chance = random.Random(1)

    def bodies(model: str, count: int, most: int) -> tuple[str, ...]:
        texts = (" ".join(chance.choices(WORDS, k=int(most ** chance.random()))) for _ in range(count))
        return tuple(json.dumps({"model": model, "input": text}) for text in texts)

    def build(name: str, share: float, texts: tuple[str, ...], key: str = "one", **more: Any) -> Kind:
        headers = {"Authorization": f"Bearer {keys[key]}"} | more.pop("headers", {})
        return Kind(name, share, texts, headers, **more)

    varied = bodies("minilm", 100, 400)
    kinds = [
        build("patient", 0.3, varied, deadline_s=DEADLINE_S),
        build("other key", 0.15, varied, "two", headers={"x-priority": "low"}, deadline_s=DEADLINE_S),
        build("high", 0.1, varied, headers={"x-priority": "high"}, deadline_s=DEADLINE_S),
        build("hurried", 0.1, varied, headers={"x-deadline-ms": f"{HURRIED_S * 1000:.0f}"}),
        build("leaving", 0.1, varied, leaving=0.7, leave_s=0.03),
        build("rated", 0.05, bodies("minilm", 20, 50), "rated"),
        build("cached", 0.08, bodies("cached", 30, 50), deadline_s=DEADLINE_S),
        build("coming", 0.07, bodies(COMING, 30, 50)),
        build("nonsense", 0.02, ("{}", "[]", "no JSON")),
    ]
    if real:
        kinds.append(build("real", 0.1, bodies("real", 50, 100), "two", deadline_s=DEADLINE_S))
    return tuple(kinds)


def _do_faults(soak: Soak, soaked: SoakPlant, load: RunningLoad, every_s: float) -> None:
    """One after the other until the load is about to end; the counters must balance after each."""
    plant, chance = soaked.plant, random.Random(soak.seed)
    faults = Faults(soaked, soak.seed)
    pause_s = CALM_S
    while load.running():
        left_s = soak.began_at + soak.seconds - time.monotonic()
        if left_s < pause_s + CALM_S:
            return
        time.sleep(pause_s)
        fault = faults.run_next()
        soak.faults.append(fault)
        at_s = fault.began_at - soak.began_at
        print(f"{at_s:6.1f} s: {fault.name} {fault.target}", file=sys.stderr, flush=True)
        _check_balance(soak, plant)
        if fault.recovered_at is None:
            soak.troubles.append(f"{fault.target} was not ready again after {fault.name}")
        pause_s = chance.uniform(0.2, 1.0) * every_s


def _check_balance(soak: Soak, plant: Plant) -> None:
    try:
        plant.check_balance()
        soak.balances += 1
    except (BenchError, OSError) as error:
        soak.troubles.append(str(error))


def _settle(soak: Soak, plant: Plant, idle_before: int) -> None:
    """The load is over: nothing may be left of it, in counters or descriptors."""
    try:
        scrape = plant.check_conservation(idle_within_s=DEADLINE_S + 5)
        soak.codes = _sum_codes(scrape)
    except (BenchError, OSError) as error:
        soak.troubles.append(str(error))
    until = time.monotonic() + IDLE_S
    while (after := read_sample(plant.gateway_pid).descriptors) > idle_before and time.monotonic() < until:
        time.sleep(0.1)
    soak.descriptors = (idle_before, after)


def _sum_codes(scrape: Mapping[str, float]) -> dict[str, float]:
    """Answers by code, over deployments and tasks."""
    codes: dict[str, float] = {}
    for name, count in scrape.items():
        found = _REQUESTS.fullmatch(name)
        if found:
            codes[found[1]] = codes.get(found[1], 0) + count
    return codes


def _find_pids(plant: Plant) -> dict[str, int]:
    return {"gateway": plant.gateway_pid} | {a.name: a.pid for a in list(plant.agents) if a.running}


def main(arguments: Sequence[str] | None = None) -> int:
    """0 all held, 1 something did not, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    minutes = os.environ.get("SOAK_MINUTES") or "10"
    parser.add_argument("--minutes", type=_minutes, default=minutes, help="how long (SOAK_MINUTES, else 10)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the faults; printed")
    parser.add_argument("--model-dir", type=Path, help="a converted model, instead of the demo's own")
    parser.add_argument("--no-model", action="store_true", help="agents of fixed service time only")
    given = parser.parse_args(arguments)
    with (
        signals_interrupt(),
        tempfile.TemporaryDirectory(prefix="millwright-soak-", ignore_cleanup_errors=True) as directory,
        orphans_adopted(),
    ):
        try:
            return _soak(Path(directory), given)
        except BenchError as error:
            print(f"soak: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("soak: interrupted; everything it started is ended", file=sys.stderr)
            return 130


def _soak(scratch: Path, given: argparse.Namespace) -> int:
    model = None
    if not given.no_model:
        model = given.model_dir or _fetch_model(scratch)
    print(f"# soak of {given.minutes:g} minutes, seed {given.seed}\n", flush=True)
    soak = run_soak(scratch, given.minutes * 60, given.seed, model)
    marks = compute_soak_marks(soak)
    print(render_soak(soak, marks))
    path = write_document({"soak": asdict(soak), "marks": [asdict(mark) for mark in marks]}, "soak-")
    print(f"\nwritten to {path}")
    return 1 if any(mark.reached is False for mark in marks) else 0


def _fetch_model(scratch: Path) -> Path:
    ours = Ours(scratch)
    with ours.running():
        return ours.find_model()


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0.3 <= minutes <= 1440:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of minutes from 0.3 to 1440 is accepted")
    return minutes


if __name__ == "__main__":
    sys.exit(main())

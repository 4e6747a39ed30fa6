"""Scaling on real hosts: a load step, from zero, from parked, scale-downs under load, a worker killed."""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle, pairwise, repeat
from pathlib import Path
from statistics import median

from tests.bench.documents import write_document
from tests.bench.live_site import (
    CAPACITY_RPS,
    Fleet,
    LiveSite,
    Phases,
    count_ready,
    live_site,
    make_trees,
    seconds_of,
    wait_until,
    why_not,
)
from tests.bench.live_stages import Stages, in_words, read_stages
from tests.bench.open_load import Row, percentile
from tests.bench.processes import signals_interrupt
from tests.bench.report import Mark, render_marks, render_table

#: The step: from idle to 80 % of what four agents do.
ENOUGH_AGENTS, PART = 4, 0.8
STEP_RPS = PART * ENOUGH_AGENTS * CAPACITY_RPS
STEP_AGENTS_MOST = 8
#: What 95 % of requests are to take less than, and how the appliance is told.
SLO_S = 0.5
TOLD = {"target_p95_ms": 1000 * SLO_S, "target_queue_wait_ms": 1000 * SLO_S}
#: More than any box here does, for as long as it takes to see what it does.
FLOOD_RPS, FLOOD_S, FLOOD_SEEN_S = 1000.0, 10.0, 4.0
STEP_MARK_S, ZERO_MARK_S, PARKED_MARK_S, GAP_MARK_S = 6.0, 1.5, 0.2, 5.0
HELD = 200
GONE_S, TICKS_S, NOTICED_S = 120.0, 30.0, 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """A load step. `back_s` is from the step until p95 stayed under its SLO, None: it did not.

    `p95_s` are of requests due in each second since, `stages` until enough agents were there.
    """

    back_s: float | None
    p95_s: tuple[float | None, ...]
    requests: int
    failed: int
    most_ready: int
    stages: Stages


@dataclass(frozen=True, slots=True)
class ModelSteps:
    """The same with a real model: what four of its agents do in all, what was offered, and how it went."""

    four_rps: float
    offered_rps: float
    steps: list[Step]


@dataclass(frozen=True, slots=True)
class Downs:
    """Scale-downs under load: how many agents fewer in all, and what clients noticed."""

    agents: int
    requests: int
    failures: list[str]
    p99_s: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Kills:
    """A worker killed again and again. `differ`: what deciding again on recorded inputs says, '' nothing."""

    kills: int
    ticks: int
    longest_gap_s: float
    requests: int
    failures: list[str]
    changes: int
    differ: str


@dataclass(slots=True)
class LiveFigures:
    """What was measured; `trouble` says why nothing was, `failed` that it was the appliance's fault."""

    steps: list[Step] = field(default_factory=list)
    model: ModelSteps | None = None
    zero_s: list[float] = field(default_factory=list)
    held: tuple[int, int, float] = (0, 0, 0.0)
    empty_s: float = 0.0
    parked_s: list[float] = field(default_factory=list)
    downs: Downs | None = None
    kills: Kills | None = None
    trouble: str = ""
    failed: bool = False


def measure_step(
    site: LiveSite, name: str, seconds: float = 20.0, rps: float = STEP_RPS, slo_s: float = SLO_S
) -> Step:
    """From one idle agent to `rps`, all at once; 95 % of requests are to take less than `slo_s`."""
    most, created = 0, {}
    with Phases(site, name, [(rps, seconds)]) as load:
        while load.running:
            agents = site.agents(name)
            created.update({one["id"]: seconds_of(one["created_at"]) for one in agents})
            most = max(most, count_ready(agents))
            time.sleep(0.2)
    (run,) = load.runs
    p95_s = _by_second(run.rows, seconds)
    late = [second for second, value in enumerate(p95_s) if value is not None and value > slo_s]
    back_s = 0.0 if not late else float(late[-1] + 1)
    back = back_s if back_s < len(p95_s) else None
    stages = read_stages(site, name, run, created, ENOUGH_AGENTS)
    return Step(back, p95_s, len(run.rows), len(run.failed), most, stages)


def _by_second(rows: Sequence[Row], seconds: float) -> tuple[float | None, ...]:
    due: list[list[float]] = [[] for _ in range(int(seconds))]
    for row in rows:
        if row.t < len(due):
            due[int(row.t)].append(row.ms / 1000 if row.good else float("inf"))
    return tuple(percentile(sorted(values), 0.95) for values in due)


def measure_steps(site: LiveSite, name: str, rounds: int, rps: float = STEP_RPS) -> list[Step]:
    """Steps, each from one agent that has rested."""
    steps = []
    for _ in range(rounds):
        wait_until(partial(_rests, site, name, 1), GONE_S, "one agent is left")
        steps.append(measure_step(site, name, rps=rps))
    return steps


def measure_model_steps(site: LiveSite, model: str, rounds: int) -> ModelSteps:
    """A step to the same part of what four agents of a real model do together on these boxes."""
    name = f"{model}-step"
    site.deploy(name, model, least=ENOUGH_AGENTS, most=ENOUGH_AGENTS, park_s=0, idle_s=3, **TOLD)
    site.wait_ready(name, ENOUGH_AGENTS)
    flood = site.offer(name, FLOOD_RPS, FLOOD_S)
    ended = sum(row.good and FLOOD_SEEN_S <= row.ended_s < FLOOD_S for row in flood.rows)
    four_rps = ended / (FLOOD_S - FLOOD_SEEN_S)
    site.scale(name, min=1, max=STEP_AGENTS_MOST)
    steps = measure_steps(site, name, rounds, PART * four_rps)
    site.undeploy(name)
    return ModelSteps(four_rps, PART * four_rps, steps)


def wait_empty(site: LiveSite, name: str, state: str = "") -> float:
    """Wait until no agent is there, or only ones in this state; for how long that took."""
    began = time.monotonic()

    def is_so() -> bool:
        states = [one["state"] for one in site.agents(name)]
        there = all(one == state for one in states) and bool(states) == bool(state)
        return there and site.desired(name) == 0

    wait_until(is_so, GONE_S, f"{name} is at zero, its agents {state or 'gone'}")
    return time.monotonic() - began


def measure_first_answers(site: LiveSite, name: str, rounds: int, state: str = "") -> list[float]:
    """Seconds to the first answer, each time from zero, or with agents in that state alone."""
    found = []
    for _ in range(rounds):
        wait_empty(site, name, state)
        found.append(site.ask(name))
    return found


def measure_held(
    site: LiveSite, name: str, count: int = HELD, within_s: float = 0.5
) -> tuple[int, int, float]:
    """So many requests arrive at nobody: how many were answered, how many not, and the longest wait."""
    wait_empty(site, name)

    def ask(number: int) -> float | None:
        time.sleep(within_s * number / count)
        try:
            return site.ask(name)
        except OSError:
            return None

    with ThreadPoolExecutor(count) as pool:
        took = list(pool.map(ask, range(count)))
    answered = [seconds for seconds in took if seconds is not None]
    return len(answered), count - len(answered), max(answered, default=0.0)


def measure_downs(site: LiveSite, name: str, wanted: int, high: int = 5, low: int = 1) -> Downs:
    """Between `low` and `high` agents again and again under steady load, until so many were scaled down."""
    began, over = time.time(), threading.Event()
    steady = Phases(site, name, repeat((0.6 * low * CAPACITY_RPS, 10.0)), over)
    with steady, site.verbs() as verbs:
        try:
            while site.scaled_down(name, began) < wanted:
                for count in (high, low):
                    verbs.scale(name, min=count, max=count)
                    wait_until(partial(_serve, site, name, count), GONE_S, f"{count} serve")
        finally:
            over.set()
    took = sorted(row.ms / 1000 for run in steady.runs for row in run.rows if row.good)
    fewer = site.scaled_down(name, began)
    return Downs(fewer, steady.requests, steady.failures, percentile(took, 0.99), time.time() - began)


def _serve(site: LiveSite, name: str, count: int) -> bool:
    return site.ready(name) == count


def measure_kills(site: LiveSite, name: str, seconds: float, every_s: float = 10.0) -> Kills:
    """SIGKILL the worker each `every_s` while the load swings between a fifth of an agent and three."""
    began, over, kills = time.time(), threading.Event(), 0
    swing = [(CAPACITY_RPS * share, 8.0) for share in (0.2, 1.5, 3.0, 0.8, 2.2)]
    load = Phases(site, name, cycle(swing), over)
    with load:
        try:
            while time.time() - began < seconds:
                time.sleep(every_s)
                os.kill(site.appliance.pid_of("worker"), signal.SIGKILL)
                kills += 1
            wait_until(lambda: _ticked(site, time.time() - 2.0), TICKS_S, "ticks go on after the last kill")
        finally:
            over.set()
    ticks = site.ticks_since(began)
    told = site.appliance.run("decisions", name, "--verify", check=False)
    differ = (told.stdout + told.stderr).strip()[-500:] if told.returncode else ""
    gap_s = max((later - before for before, later in pairwise([began, *ticks])), default=time.time() - began)
    return Kills(kills, len(ticks), gap_s, load.requests, load.failures, site.changes(name, began), differ)


def _ticked(site: LiveSite, since: float) -> bool:
    return bool(site.ticks_since(since))


def check_stopped_gateway(site: LiveSite, name: str, seconds: float) -> tuple[int, int]:
    """The gateway stands still for so long: agents wanted when that was noticed, and the fewest since."""
    gateway = site.appliance.pid_of("appliance.gateway")
    os.kill(gateway, signal.SIGSTOP)
    try:
        wait_until(partial(site.cannot_tell, name), NOTICED_S, "its silence is noticed")
        before = site.desired(name)
        until, least = time.monotonic() + seconds, before
        while time.monotonic() < until:
            least = min(least, site.desired(name))
            time.sleep(0.2)
    finally:
        os.kill(gateway, signal.SIGCONT)
    return before, least


def measure_live(home: Path | None, scratch: Path, rounds: int, *, downs: int, kill_s: float) -> LiveFigures:
    """Everything, on two boxes; `home` is a state directory to use, None: a new one."""
    if reason := why_not():
        return LiveFigures(trouble=reason)
    found = LiveFigures()
    try:
        make_trees(["bookworm"])
        with Fleet() as fleet, live_site(fleet, scratch, home=home) as site:
            _measure(site, found, rounds, downs, kill_s)
    except (AssertionError, OSError, TimeoutError, RuntimeError) as error:
        found.trouble, found.failed = str(error).strip()[:2000] or type(error).__name__, True
    return found


def _measure(site: LiveSite, found: LiveFigures, rounds: int, downs: int, kill_s: float) -> None:
    site.add("step", least=1, most=STEP_AGENTS_MOST, park_s=0, idle_s=3, **TOLD)
    found.steps = measure_steps(site, "step", rounds)
    site.undeploy("step")
    if site.models():
        found.model = measure_model_steps(site, site.models()[0], rounds)
    site.add("zero", least=0, most=4, park_s=0, idle_s=3)
    found.zero_s = measure_first_answers(site, "zero", 3 * rounds)
    found.held = measure_held(site, "zero")
    began = time.monotonic()
    wait_empty(site, "zero")
    found.empty_s = time.monotonic() - began
    site.scale("zero", park_s=600)
    site.ask("zero")
    found.parked_s = measure_first_answers(site, "zero", 3 * rounds, "parked")
    site.undeploy("zero")
    site.add("downs", least=1, most=1, park_s=0)
    found.downs = measure_downs(site, "downs", downs)
    site.undeploy("downs")
    site.add("kills", least=1, most=6, park_s=0)
    site.wait_ready("kills", 1)
    found.kills = measure_kills(site, "kills", kill_s)


def _rests(site: LiveSite, name: str, count: int) -> bool:
    return site.desired(name) == count == len(site.agents(name)) == site.ready(name)


def render_live(found: LiveFigures) -> str:
    """A line for each story."""
    if found.trouble:
        return f"NOT MEASURED: {found.trouble}"
    rows = []
    rows += _render_steps(found.steps, f"idle to {STEP_RPS:.0f}/s")
    if found.model is not None:
        four = f"real model, four agents do {found.model.four_rps:.0f}/s: idle to"
        rows += _render_steps(found.model.steps, f"{four} {found.model.offered_rps:.0f}/s")
    for name, times in (("zero", found.zero_s), ("parked", found.parked_s)):
        if times:
            worst = f"best {min(times):.3f} s, worst {max(times):.3f} s"
            rows.append([f"first answer from {name}, median", f"{median(times):.3f} s", worst])
    answered, lost, longest_s = found.held
    rows.append(
        [f"{HELD} requests at nobody", f"{answered} answered", f"{lost} lost, the last {longest_s:.2f} s"]
    )
    rows.append(["back to zero after the last of them", f"{found.empty_s:.1f} s", "idle_s is 3"])
    if found.downs is not None:
        one = found.downs
        p99 = "-" if one.p99_s is None else f"{one.p99_s * 1000:.0f} ms"
        words = f"{one.requests} requests, {len(one.failures)} failed, p99 {p99}, {one.seconds:.0f} s"
        rows.append(["agents scaled down under load", str(one.agents), words])
    if found.kills is not None:
        two = found.kills
        words = (
            f"{two.ticks} ticks, {two.changes} changes, {two.requests} requests, {len(two.failures)} failed"
        )
        rows.append([f"worker killed {two.kills} times: longest gap", f"{two.longest_gap_s:.1f} s", words])
    return render_table(["two boxes, agents of 50 ms one at a time", "", ""], rows)


def _render_steps(steps: Sequence[Step], what: str) -> list[list[str]]:
    rows = []
    for step in steps:
        back = "never" if step.back_s is None else f"{step.back_s:.0f} s"
        words = f"{step.requests} requests, {step.failed} failed, {step.most_ready} agents at most"
        rows.append([f"{what}: p95 stays under {SLO_S:g} s after", back, words])
    stages = in_words([step.stages for step in steps])
    return [*rows, [f"median s to agent {ENOUGH_AGENTS}", "", stages]] if steps else rows


def compute_live_marks(found: LiveFigures) -> list[Mark]:
    """What scaling is held to on real hosts."""
    if found.trouble or found.downs is None or found.kills is None:
        return [Mark("scaling on real hosts", None, "not measured")]
    backs = [step.back_s for step in found.steps]
    late = [back for back in backs if back is None or back > STEP_MARK_S]
    failed = found.held[1] + len(found.downs.failures) + len(found.kills.failures)
    failed += sum(step.failed for step in found.steps)
    zero_s, parked_s = median(found.zero_s), median(found.parked_s)
    return [
        Mark(f"after a step p95 is under its SLO within {STEP_MARK_S:g} s", not late, f"{backs} s"),
        Mark(f"from zero within {ZERO_MARK_S:g} s", zero_s <= ZERO_MARK_S, f"{zero_s:.2f} s"),
        Mark(f"from parked within {PARKED_MARK_S * 1000:g} ms", parked_s <= PARKED_MARK_S,
             f"{parked_s * 1000:.0f} ms"),
        Mark("no request fails", not failed, f"{failed}"),
        Mark(f"ticks go on within {GAP_MARK_S:g} s of a kill", found.kills.longest_gap_s <= GAP_MARK_S,
             f"{found.kills.longest_gap_s:.1f} s"),
        Mark("each decision is what its recorded input gives", not found.kills.differ,
             found.kills.differ or "all"),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m tests.bench.scaling_live [--downs 500] [--kill-minutes 10]`: the long run of all this."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scaling_live", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--downs", type=int, default=500, help="agents to scale down under load (500)")
    parser.add_argument("--kill-minutes", type=float, default=10.0, help="for how long the worker is killed")
    given = parser.parse_args(arguments)
    with (
        signals_interrupt(),
        tempfile.TemporaryDirectory(prefix="millwright-live-", ignore_cleanup_errors=True) as scratch,
    ):
        try:
            kill_s = 60 * given.kill_minutes
            found = measure_live(None, Path(scratch), given.rounds, downs=given.downs, kill_s=kill_s)
        except KeyboardInterrupt:
            print("scaling: interrupted; everything it started is ended", file=sys.stderr)
            return 130
    marks = compute_live_marks(found)
    print(f"{render_live(found)}\n\n{render_marks(marks)}")
    print(f"\nwritten to {write_document({'scaling_live': asdict(found)}, 'scaling-live-')}")
    return 1 if found.failed or any(mark.reached is False for mark in marks) else 0


if __name__ == "__main__":
    sys.exit(main())

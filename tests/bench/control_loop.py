"""The control loop at 200 nodes and 2,000 agents: how long a tick takes, what the worker costs.

The worker, its rows and its lanes are real; stewards answer from memory, and one gateway is played whose load
changes so that some deployments scale in each tick.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.open_load import percentile
from tests.bench.process_figures import read_cpu_s, read_sample
from tests.bench.processes import BenchError
from tests.bench.report import Mark, render_table
from tests.bench.servers import ROOT, find_free_port
from tests.bench.simulated_fleet import TICKS_FILE

NODES, AGENTS, DEPLOYMENTS = 200, 2000, 50
TICK_MARK_S, CORE_MARK, RSS_MARK_BYTES = 1.0, 0.5, 400 * 10**6
MAKE_S, END_S = 300.0, 10.0


@dataclass(frozen=True, slots=True)
class LoopTiming:
    """Seconds: until the loop has settled, and for how long it is looked at then."""

    settle_s: float = 45.0
    watch_s: float = 60.0


@dataclass(frozen=True, slots=True)
class LoopFigures:
    """What a worker took for its ticks. `cores` is its CPU time by time passed, all threads together.

    `tick_cpu_s` is what the ticks' own thread computed; `changed` agents more or fewer in a tick, the mean.
    """

    nodes: int
    agents: int
    deployments: int
    ticks: int
    tick_s: tuple[float, float, float]
    tick_cpu_s: tuple[float, float, float]
    longest_gap_s: float
    changed: float
    cores: float
    rss_bytes: int


def measure_control_loop(
    scratch: Path, timing: LoopTiming, counts: tuple[int, int, int] = (NODES, AGENTS, DEPLOYMENTS)
) -> LoopFigures:
    """One run. Raises BenchError."""
    home = scratch / "home"
    home.mkdir(mode=0o700)
    env = dict(os.environ) | {
        "APPLIANCE_HOME": str(home),
        "APPLIANCE_PORT": str(find_free_port()),
        "GATEWAY_PORT": str(find_free_port()),
        "DJANGO_SETTINGS_MODULE": "appliance.settings",
    }
    made = subprocess.run(
        _command("simulated_fleet", "make", home, *counts),
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=MAKE_S, check=False,
    )  # fmt: skip
    if made.returncode:
        raise BenchError(f"the fleet could not be made: {made.stderr.strip()[-300:]}")
    with (
        _running(_command("simulated_gateway", home), env, scratch / "gateway.log"),
        _running(_command("simulated_fleet", "work", home), env, scratch / "worker.log") as worker,
    ):
        time.sleep(timing.settle_s)
        if worker.poll() is not None:
            raise BenchError(f"the worker ended: {(scratch / 'worker.log').read_text()[-300:]}")
        began, cpu_s = time.time(), read_cpu_s(worker.pid)
        time.sleep(timing.watch_s)
        cores = (read_cpu_s(worker.pid) - cpu_s) / (time.time() - began)
        rss_bytes = read_sample(worker.pid).rss_bytes
    lines = (home / TICKS_FILE).read_text().splitlines()
    ticks = [one for one in map(json.loads, lines) if one["ran"] and one["at"] >= began]
    return _figures(counts, ticks, cores, rss_bytes)


def _command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)]


@contextlib.contextmanager
def _running(command: Sequence[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _figures(
    counts: tuple[int, int, int], ticks: Sequence[dict[str, Any]], cores: float, rss_bytes: int
) -> LoopFigures:
    if len(ticks) < 2:
        raise BenchError(f"{len(ticks)} ticks ran: two at least are needed")
    begun = [one["at"] for one in ticks]
    return LoopFigures(
        *counts,
        ticks=len(ticks),
        tick_s=_spread([one["took_s"] for one in ticks]),
        tick_cpu_s=_spread([one["cpu_s"] for one in ticks]),
        longest_gap_s=max(later - before for before, later in pairwise(begun)),
        changed=sum(one["changed"] for one in ticks) / len(ticks),
        cores=cores,
        rss_bytes=rss_bytes,
    )


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, p99 and the most."""
    ordered = sorted(values)
    return median(ordered), percentile(ordered, 0.99) or 0.0, ordered[-1]


def render_control_loop(found: LoopFigures) -> str:
    """Ticks, and the worker as a whole."""
    rows = [
        ["a tick, from beginning to end", "s", *(f"{value:.3f}" for value in found.tick_s)],
        ["CPU of its thread", "s", *(f"{value:.3f}" for value in found.tick_cpu_s)],
    ]
    head = [f"{found.nodes} nodes, {found.agents} agents, {found.deployments} deployments", ""]
    table = render_table([*head, "median", "p99", "most"], rows)
    return (
        f"{table}\n\n{found.ticks} ticks, the latest {found.longest_gap_s:.1f} s after the one before; in "
        f"the mean {found.changed:.1f} agents more or fewer a tick. The worker, 200 lanes among its threads: "
        f"{found.cores:.2f} cores, {found.rss_bytes / 1e6:.0f} MB."
    )


def compute_control_loop_marks(found: LoopFigures) -> list[Mark]:
    """What the loop is held to."""
    return [
        Mark(f"a tick takes at most {TICK_MARK_S:g} s (p99)", found.tick_s[1] <= TICK_MARK_S,
             f"{found.tick_s[1]:.2f} s"),
        Mark(f"the worker takes less than {CORE_MARK:g} of a core", found.cores < CORE_MARK,
             f"{found.cores:.2f}"),
        Mark(f"and less than {RSS_MARK_BYTES / 1e6:.0f} MB", found.rss_bytes < RSS_MARK_BYTES,
             f"{found.rss_bytes / 1e6:.0f} MB"),
        Mark("some scale in each tick", found.changed >= 1, f"{found.changed:.1f} agents"),
    ]  # fmt: skip

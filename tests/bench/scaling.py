"""How policies scale on the same traffic: made-up always, CSV files where given. Computed, not measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.simulate.compare import Verdict, build_document, judge, run_policies
from appliance.simulate.plant import Plant, Traffic
from appliance.simulate.policies.ours import default_policy
from appliance.simulate.synthetic import SYNTHETIC, small
from appliance.simulate.traces import BadTrace, ServiceTime, read_traffic
from tests.bench.processes import BenchError
from tests.bench.report import Mark, render_table

#: One-slot agents of 3 s start, a tick every 2 s, at most 64; a wait over 2 s is a miss.
PLANT = Plant()
#: As agents of small models are: many slots, requests of milliseconds, a quick start, a tick every second.
SMALL_PLANT = Plant(slots=16, start_s=1.5, tick_s=1.0)
SEEDS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Scaled:
    """One traffic under all policies; `document` is what `simulate --json` prints. Not all are marked."""

    name: str
    document: dict[str, Any]
    verdict: Verdict
    marked: bool = True


def measure_scaling(traces: Sequence[Path], seeds: Sequence[int] = SEEDS) -> list[Scaled]:
    """Replay everything. Raises BenchError where a file is not a trace."""
    made = [make(seed) for make in SYNTHETIC.values() for seed in seeds]
    try:
        given = [read_traffic(path, ServiceTime()) for path in traces]
    except (BadTrace, OSError) as error:
        raise BenchError(str(error)) from None
    return [_replay(traffic) for traffic in (*made, *given)] + [_replay(small(), SMALL_PLANT, marked=False)]


def _replay(traffic: Traffic, plant: Plant = PLANT, *, marked: bool = True) -> Scaled:
    outcomes = run_policies(traffic, plant, default_policy(plant), others=True)
    verdict = judge(outcomes)
    assert verdict is not None
    return Scaled(traffic.name, build_document(traffic, outcomes), verdict, marked)


def render_scaling(found: Sequence[Scaled]) -> str:
    """Each policy on each traffic; agent-seconds also as a part of the Knative-style policy's."""
    rows = []
    for one in found:
        policies = {row["name"]: row for row in one.document["policies"]}
        base = policies["knative"]["agent_seconds"]
        for name, row in policies.items():
            rows.append([
                one.name, name, f"{row['slo_misses_percent']:.3f}", f"{row['agent_seconds']:.0f}",
                f"{row['agent_seconds'] / base:.2f}", f"{row['busy_percent']:.0f}", str(row["cold_starts"]),
                str(row["changes"]), str(row["flaps"]),
            ])  # fmt: skip
    heads = ["traffic", "policy", "misses %", "agent-s", "of knative", "busy %", "starts", "changes", "flaps"]
    return render_table(heads, rows)


def compute_scaling_marks(found: Sequence[Scaled]) -> list[Mark]:
    """No more misses than the Knative-style policy, 0.85 of its agent-seconds, twice its changes."""
    return [
        Mark(
            f"{one.name}: misses at most knative's, agent-seconds x 0.85, changes x 2",
            one.verdict.holds,
            f"{one.verdict.misses[0]} to {one.verdict.misses[1]}, x {one.verdict.agent_seconds:.2f}, "
            f"{one.verdict.changes[0]} to {one.verdict.changes[1]}",
        )
        for one in found
        if one.marked
    ]

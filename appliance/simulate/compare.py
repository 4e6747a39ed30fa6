"""Several policies on the same traffic and plant, and what came of it as a table, a document, a picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.policies.scaling import ScalingPolicy
from appliance.simulate.plant import Outcome, Plant, Policy, Traffic, replay
from appliance.simulate.policies.fixed import FixedMax
from appliance.simulate.policies.hpa import HorizontalPods
from appliance.simulate.policies.knative import Knative
from appliance.simulate.policies.ours import Ours
from appliance.simulate.policies.ray import RayServe

OTHERS: Sequence[Callable[[Plant], Policy]] = (Knative, RayServe, HorizontalPods, FixedMax)
#: What ours is held to, against the Knative-style policy.
MOST_AGENT_SECONDS, MOST_CHANGES = 0.85, 2.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Ours against the Knative-style policy. Ratios are None where the other is zero."""

    misses: tuple[int, int]
    agent_seconds: float
    changes: tuple[int, int]

    @property
    def holds(self) -> bool:
        """Whether all three marks are reached."""
        fewer = self.misses[0] <= self.misses[1]
        steady = self.changes[0] <= MOST_CHANGES * self.changes[1]
        return fewer and steady and self.agent_seconds <= MOST_AGENT_SECONDS


def run_policies(
    traffic: Traffic, plant: Plant, policy: ScalingPolicy, *, others: bool, say: Callable[[str], object] = str
) -> list[Outcome]:
    """Ours first, then the others where asked for. `say` is told which one runs."""
    policies: list[Policy] = [Ours(policy)]
    if others:
        policies += [make(plant) for make in OTHERS]
    outcomes = []
    for one in policies:
        say(one.name)
        outcomes.append(replay(traffic, one, plant))
    return outcomes


def judge(outcomes: Sequence[Outcome]) -> Verdict | None:
    """Ours against the Knative-style one; None where either is missing."""
    by_name = {one.name: one for one in outcomes}
    ours, other = by_name.get("millwright"), by_name.get("knative")
    if ours is None or other is None:
        return None
    return Verdict(
        (ours.misses, other.misses), ours.agent_seconds / other.agent_seconds, (ours.changes, other.changes)
    )


def build_document(traffic: Traffic, outcomes: Sequence[Outcome]) -> dict[str, object]:
    """What `--json` prints."""
    policies = [
        {
            "name": one.name,
            "slo_misses_percent": round(one.slo_misses_percent, 4),
            "agent_seconds": round(one.agent_seconds, 1),
            "cold_starts": one.cold_starts,
            "changes": one.changes,
            "flaps": one.flaps,
            "misses": one.misses,
            "busy_percent": round(_busy_percent(one), 2),
            "p99_wait_s": round(quantile(one.waits_s, 0.99), 4),
        }
        for one in outcomes
    ]
    return {
        "trace": traffic.name,
        "requests": len(traffic.arrivals),
        "duration_s": round(traffic.duration_s, 3),
        "policies": policies,
    }


def build_rows(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table for people."""
    heads = ["policy", "misses %", "agent-s", "busy %", "starts", "changes", "flaps", "p99 wait s"]
    rows = [
        [
            one.name, f"{one.slo_misses_percent:.3f}", f"{one.agent_seconds:.0f}",
            f"{_busy_percent(one):.1f}", str(one.cold_starts), str(one.changes), str(one.flaps),
            f"{quantile(one.waits_s, 0.99):.2f}",
        ]
        for one in outcomes
    ]  # fmt: skip
    return heads, rows


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile (0..1), the nearest that is there; 0.0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def _busy_percent(outcome: Outcome) -> float:
    slot_seconds = outcome.agent_seconds * outcome.slots
    return 100.0 * outcome.busy_seconds / slot_seconds if slot_seconds else 0.0

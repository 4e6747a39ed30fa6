"""The appliance's own policy, by the very code of the control loop."""

import json
from dataclasses import dataclass, field

from appliance.policies.scaling import (
    Decision,
    GatewayLoad,
    Load,
    ScalingPolicy,
    ScalingState,
    decide,
    state_from_json,
)
from appliance.simulate.plant import Plant, Seen


def default_policy(plant: Plant) -> ScalingPolicy:
    """What a deployment has that nobody tuned, on that plant."""
    return ScalingPolicy(
        min_agents=plant.min_agents, max_agents=plant.max_agents, target=0.7 * plant.slots,
        slots=float(plant.slots), start_s=plant.start_s, slo_wait_s=plant.slo_wait_s, stabilization_s=14.0,
        idle_s=75.0,
    )  # fmt: skip


@dataclass(slots=True)
class Ours:
    """Shows the plant as one gateway would report it.

    `reload_every_s`: its memory goes through JSON so often. `decisions` are kept where asked for: (second,
    agents wanted before, decision). Each request is of `tokens_each`, None: nobody counts them.
    """

    policy: ScalingPolicy
    name: str = "millwright"
    initial: int = 1
    reload_every_s: float | None = None
    tokens_each: float | None = None
    keep: bool = False
    decisions: list[tuple[float, int, Decision]] = field(default_factory=list)
    state: ScalingState | None = None
    _reloaded_at: float = 0.0
    _counted: tuple[float, float] = (0.0, 0.0)

    def want(self, seen: Seen) -> int:
        """The decision at a tick."""
        if self.reload_every_s is not None and seen.now - self._reloaded_at >= self.reload_every_s:
            self._reloaded_at = seen.now
            if self.state is not None:
                self.state = state_from_json(json.loads(json.dumps(self.state.to_json())))
        gateway = GatewayLoad(
            "plant", 0.0, seen.now, seen.concurrency_s, seen.in_flight, seen.queued, seen.accepted,
            seen.finished, seen.service_s,
            tokens=None if self.tokens_each is None else round(seen.finished * self.tokens_each),
        )  # fmt: skip
        load = Load(seen.current, seen.ready, (gateway,), held=seen.held, cpu_percent=self._cpu_percent(seen))
        decision = decide(self.policy, load, self.state, seen.now)
        self.state = decision.state
        if self.keep:
            self.decisions.append((seen.now, seen.current, decision))
        return decision.replicas

    def _cpu_percent(self, seen: Seen) -> float | None:
        """The share of slots that executed since the last tick."""
        at, busy_s = self._counted
        self._counted = (seen.now, seen.busy_s)
        if seen.now <= at:
            return None
        slots = max(1, seen.ready) * (self.policy.slots or 1.0)
        return min(100.0, 100.0 * (seen.busy_s - busy_s) / (seen.now - at) / slots)

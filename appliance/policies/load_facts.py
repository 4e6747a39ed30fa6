"""What a deployment's load is now, from what gateways report. Standard library only."""

from collections.abc import Sequence

from appliance.policies.fleet import AgentFacts, FleetSnapshot
from appliance.policies.latency import counts_of
from appliance.policies.report import DeploymentReport, GatewayReport
from appliance.policies.scaling_facts import GatewayLoad, Load, ScalingPolicy
from appliance.policies.turn import Turn

#: What an agent said of its node longer ago says nothing of now.
FRESH_S = 3.0


def load_of(turn: Turn) -> Load:
    """Of all gateways that were heard."""
    name, policy = turn.deployment.name, turn.deployment.policy
    ready = [agent for agent in turn.warm() if agent.state == "ready"]
    return Load(
        current=turn.deployment.decided,
        ready=len(ready),
        gateways=tuple(_counted(policy, *seen) for seen in turn.snapshot.deployment_reports(name)),
        complete=not turn.snapshot.silent,
        held=name in turn.snapshot.held,
        cpu_percent=cpu_percent(turn.snapshot, ready),
    )


def cpu_percent(snapshot: FleetSnapshot, agents: Sequence[AgentFacts]) -> float | None:
    """Mean CPU of the nodes that these agents are on; None where one of them is not known now."""
    known = []
    for node in {agent.node for agent in agents}:
        word = snapshot.newest_word(node)
        if word is None or word.node_cpu_percent is None or (word.load_age_s or 0.0) > FRESH_S:
            return None
        known.append(word.node_cpu_percent)
    return sum(known) / len(known) if known else None


def _counted(policy: ScalingPolicy, report: GatewayReport, seen: DeploymentReport) -> GatewayLoad:
    """What a gateway counted. A request that was answered from memory asks no agent for anything.

    How long requests took is left out where no target is set for it: each tick is recorded with its load.
    """
    return GatewayLoad(
        process=f"{report.gateway}@{report.started_at:.3f}",
        started_at=report.started_at,
        at=report.at,
        concurrency_s=seen.concurrency_s,
        in_flight=seen.in_flight,
        queued=seen.queued,
        accepted=max(0, seen.accepted - seen.cache_hits - seen.cache_shared),
        finished=seen.executed,
        service_s=seen.service_s,
        oldest_wait_s=seen.oldest_wait_s,
        durations=None if policy.target_p95_ms is None else counts_of(seen.duration),
        first_tokens=None if policy.target_ttft_ms is None else counts_of(seen.first_token),
        tokens=seen.tokens,
    )

"""What a deployment's load is now, from what gateways report. Standard library only."""

from appliance.policies.scaling_facts import GatewayLoad, Load
from appliance.policies.turn import Turn


def load_of(turn: Turn) -> Load:
    """Of all gateways that were heard."""
    name = turn.deployment.name
    return Load(
        current=turn.deployment.desired,
        ready=sum(agent.state == "ready" for agent in turn.warm()),
        gateways=tuple(
            GatewayLoad(
                f"{report.gateway}@{report.started_at:.3f}", report.started_at, report.at,
                seen.concurrency_s, seen.in_flight, seen.queued,
            )
            for report, seen in turn.snapshot.deployment_reports(name)
        ),
        complete=not turn.snapshot.silent,
        held=name in turn.snapshot.held,
    )  # fmt: skip

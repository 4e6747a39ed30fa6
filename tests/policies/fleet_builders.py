"""Small constructors of facts and reports for tests of policies and of the loop."""

from appliance.policies.fleet import AgentFacts, DeploymentFacts, FleetSnapshot, NodeFacts
from appliance.policies.report import (
    LATENCY_BUCKETS_S,
    AgentReport,
    DeploymentReport,
    GatewayReport,
    Histogram,
)
from appliance.policies.scaling import ScalingPolicy
from appliance.policies.snapshot import Generation

NOW = 1_000_000.0
EPOCH = "e"
GB = 10**9


def histogram(**counts: int) -> Histogram:
    """Counts by bucket number: `histogram(b3=2)`."""
    values = [0] * (len(LATENCY_BUCKETS_S) + 1)
    for name, count in counts.items():
        values[int(name[1:])] = count
    return Histogram(tuple(values), 0.0)


def deployment_report(name="mini", **given) -> DeploymentReport:
    zeros = dict.fromkeys(
        ("accepted", "answered", "failed", "shed", "cancelled", "in_flight", "queued", "tokens"), 0
    )
    values = {
        **zeros, "concurrency_s": 0.0, "oldest_wait_s": 0.0,
        "duration": histogram(), "queue_wait": histogram(), **given,
    }  # fmt: skip
    return DeploymentReport(name=name, **values)


def agent_report(
    agent="mini-1", state="ready", *, in_flight=0, busy=0, load_age_s=0.5, **given
) -> AgentReport:
    return AgentReport(
        id=agent, deployment="mini", node="local", state=state, in_flight=in_flight, sent=0, answered=0,
        failed=0, refused=0, load_age_s=load_age_s, executing=busy, waiting=0 if busy is not None else None,
        **given,
    )  # fmt: skip


def gateway_report(*agents, deployments=(), gateway="gateway-1", at=NOW, number=1, started_at=NOW - 1000):
    return GatewayReport(
        gateway=gateway, pid=1, started_at=started_at, at=at, generation=Generation(EPOCH, number),
        deployments=tuple(deployments), agents=tuple(agents),
    )  # fmt: skip


def deployment(name="mini", *, least=1, most=4, desired=1, revision=1, park_s=0.0, **given):
    policy = ScalingPolicy(min_agents=least, max_agents=most, target=10.0, park_s=park_s)
    return DeploymentFacts(
        name=name,
        revision=revision,
        model_bytes=24_000_000,
        policy=policy,
        desired=desired,
        deadline_s=60.0,
        **given,
    )


def agent(name="mini-1", *, revision=1, **given) -> AgentFacts:
    values = {
        "deployment": "mini", "revision": revision, "node": "local", "created_at": NOW - 100,
        "state": "ready", "started_at": NOW - 100, "ready_at": NOW - 90, "pid": 11, "threads": 2,
        "model_bytes": 24_000_000, **given,
    }  # fmt: skip
    return AgentFacts(id=name, **values)


def snapshot(*, agents=(), deployments=None, reports=None, running=None, **given) -> FleetSnapshot:
    """A fleet on one node of 16 GB. Unless said otherwise all agents run and one gateway sees them ready.

    `running` is of node `local`, or maps nodes to what runs there.
    """
    deployments = (deployment(),) if deployments is None else deployments
    running = {one.id: one.pid or 11 for one in agents} if running is None else running
    if not any(isinstance(there, dict) for there in running.values()):
        running = {"local": running}
    if reports is None:
        living = {agent for there in running.values() for agent in there or ()}
        seen = [agent_report(one.id) for one in agents if one.id in living]
        reports = (gateway_report(*seen, deployments=[deployment_report(one.name) for one in deployments]),)
    nodes = (NodeFacts("local", 16 * GB, 2),)
    values = {"now": NOW, "epoch": EPOCH, "nodes": nodes, "heard_since": NOW - 100, **given}
    return FleetSnapshot(
        agents=tuple(agents),
        deployments=tuple(deployments),
        reports=tuple(reports),
        running=running,
        **values,
    )

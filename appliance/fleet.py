"""The fleet as it stands: rows joined with what gateways report, states computed from both.

`read_rows` is the only part that touches the database; the rest are functions of rows, reports
and one frozen `now`, so that everything in one answer is of the same instant.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from django.db import DatabaseError

from appliance.agent_shapes import describe_shape, read_starts, reported_shape
from appliance.models import Agent, Deployment, MetricPoint, Node
from appliance.models.agents import capacities_on_boxes
from appliance.policies.report import AgentReport, GatewayReport
from appliance.policies.shapes import Shape

#: A node that was not observed for longer is unreachable.
NODE_FRESH_S = 10.0
#: An agent's own words are not shown when they are older.
LOAD_FRESH_S = 10.0
#: A gateway that did not report for longer is not counted.
REPORT_FRESH_S = 5.0

#: Starts in a row without success after which a deployment counts as failed also between two starts.
_HOPELESS_ATTEMPTS = 3

Point = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class FleetRows:
    """What the database says. `points` holds each series' newest second of history.

    `starts` are the shapes that agents which have grown would start with, by their ids.
    """

    nodes: tuple[Node, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    agents: tuple[Agent, ...] = ()
    points: Mapping[str, Point] = field(default_factory=dict)
    starts: Mapping[str, Shape] = field(default_factory=dict)


def read_fleet(reports: Sequence[GatewayReport], now: float) -> dict[str, list[dict[str, object]]]:
    """The document of `fleet --json`. `now` is in Unix seconds."""
    return describe_fleet(read_rows(now), reports, now)


def read_rows(now: float) -> FleetRows:
    """Read all that `describe_fleet` needs: four queries, six where agents have grown; no transaction."""
    agents = tuple(Agent.objects.select_related("deployment", "node"))
    return FleetRows(
        nodes=tuple(Node.objects.all()),
        deployments=tuple(Deployment.objects.select_related("model")),
        agents=agents,
        points=_read_newest_points(now),
        starts=read_starts(agents),
    )


def describe_fleet(
    rows: FleetRows, reports: Iterable[GatewayReport], now: float
) -> dict[str, list[dict[str, object]]]:
    """Join rows and reports; keys and values are those of `fleet --json`."""
    fresh = [report for report in reports if now - report.at <= REPORT_FRESH_S]
    seen = links_by_agent(fresh)
    states = {agent.id: agent_state(agent, seen.get(agent.id, ())) for agent in rows.agents}
    capacities = capacities_on_boxes(rows.agents)
    return {
        "nodes": [_describe_node(node, rows, fresh, now) for node in rows.nodes],
        "deployments": [
            _describe_deployment(row, rows.agents, states, fresh)
            | {"capacity_rps": deployment_capacity(row, rows.agents, states, capacities)}
            for row in rows.deployments
        ],
        "agents": [
            {
                "id": agent.id,
                "deployment": agent.deployment.name,
                "node": agent.node.name,
                "state": states[agent.id],
                "in_flight": sum(link.in_flight for link in seen.get(agent.id, ())),
                "health": agent_health(seen.get(agent.id, ())),
                **describe_shape(agent, rows.starts.get(agent.id)),
                "reported": reported_shape(seen.get(agent.id, ())),
                **describe_speed(agent, capacities[agent.id]),
            }
            for agent in rows.agents
        ],
    }


def describe_speed(agent: Agent, capacity_rps: float) -> dict[str, object]:
    """How fast an agent is, and how that is known: None where it is not.

    `capacity_rps` is what it can do beside the other agents of its node.
    """
    profile = agent.profile
    share = capacity_rps / agent.capacity_rps if agent.capacity_rps else 0.0
    return {
        "capacity_rps": round(capacity_rps, 1) if share else None,
        "tokens_per_s": round(share * float(profile.get("tokens_per_s") or 0.0)) if share else None,
        "profile": str(profile.get("source") or "default"),
    }


def deployment_capacity(
    deployment: Deployment,
    agents: Iterable[Agent],
    states: Mapping[str, str],
    capacities: Mapping[str, float],
) -> float | None:
    """Requests per second that its ready agents can do; None where that of one is not known."""
    ready = [one for one in agents if one.deployment_id == deployment.pk and states[one.id] == "ready"]
    rates = [capacities.get(one.id, 0.0) for one in ready]
    return round(sum(rates), 1) if rates and all(rates) else None


def read_capacities() -> dict[str, float]:
    """Requests per second that each agent can do beside the others of its node; one query."""
    return capacities_on_boxes(Agent.objects.select_related("node"))


def links_by_agent(reports: Iterable[GatewayReport]) -> dict[str, list[AgentReport]]:
    """Each agent as the gateways see it, one entry a gateway."""
    links: dict[str, list[AgentReport]] = {}
    for report in reports:
        for link in report.agents:
            links.setdefault(link.id, []).append(link)
    return links


def agent_state(agent: Agent, links: Sequence[AgentReport]) -> str:
    """Starting, ready, parked, draining, stopped or failed.

    What the control loop saw of the process comes first (it alone knows of a failure), then what
    was ordered, then what the gateways see, who notice a lost connection within the second. One that is
    ejected is ready all the same: `agent_health` tells.
    """
    if agent.state in {Agent.State.STOPPED, Agent.State.FAILED}:
        return str(agent.state)
    if Agent.State.DRAINING in {agent.wanted, agent.state}:
        return "draining"
    seen = {"ready" if link.state == "ejected" else link.state for link in links}
    for state in ("ready", "parked", "draining"):
        if state in seen:
            return state
    return "starting" if seen else str(agent.state)


def agent_health(links: Sequence[AgentReport]) -> str:
    """Why gateways give an agent no requests, or one at a time; empty where all trust it."""
    ejected = [link for link in links if link.state == "ejected"]
    if ejected:
        where = "" if len(ejected) == len(links) else f" from {len(ejected)} of {len(links)} gateways"
        return f"ejected, gets no requests{where}: {ejected[0].health}"
    tried = [link for link in links if link.health and link.state == "ready"]
    return f"tried with one request at a time: {tried[0].health}" if tried else ""


def node_state(node: Node, now: float) -> str:
    """Retired, enrolling, unreachable, asleep, waking, draining, cordoned or ready: the first that applies.

    One that sleeps, or is waited for, is not there because it was told so: it is not unreachable.
    """
    if node.retired_at is not None or node.wanted == Node.Wanted.RETIRED:
        return "retired"
    if node.enrolled_at is None and not node.is_local:
        return "enrolling"
    if node.power_stage in (Node.PowerStage.ASLEEP, Node.PowerStage.WAKING):
        return str(node.power_stage)
    if node.seen_at is None or now - node.seen_at.timestamp() >= NODE_FRESH_S:
        return "unreachable"
    if node.wanted == Node.Wanted.DRAINED or node.operation_stage or node.power_stage:
        return "draining"
    return "cordoned" if node.wanted == Node.Wanted.CORDONED else "ready"


def deployment_state(deployment: Deployment, agents: Sequence[Agent], states: Mapping[str, str]) -> str:
    """Idle, starting, ready, degraded, draining or failed, from its agents and their states.

    With enough agents for what was decided (and for the minimum) it is ready. With some it is
    ready while it grows, degraded below its minimum or beside a failed agent. With none it is
    failed where a start failed, starting where some are wanted, else idle.
    """
    if deployment.removing:
        return "draining"
    ready = sum(states[agent.id] == "ready" for agent in agents)
    failed = any(
        states[agent.id] == "failed" or (agent.attempt >= _HOPELESS_ATTEMPTS and agent.error)
        for agent in agents
    )
    wanted = max(deployment.desired, deployment.min_agents)
    if ready:
        return "degraded" if ready < deployment.min_agents or (failed and ready < wanted) else "ready"
    if failed:
        return "failed"
    coming = any(states[agent.id] == "starting" for agent in agents)
    return "starting" if wanted or coming else "idle"


def _describe_node(
    node: Node, rows: FleetRows, reports: Iterable[GatewayReport], now: float
) -> dict[str, object]:
    cpu, _ = node_load(node, rows.points, reports)
    return {
        "name": node.name,
        "address": node.address,
        "state": node_state(node, now),
        "cores": node.cores,
        "ram_bytes": node.ram_bytes,
        "cpu_percent": cpu,
        "problems": [str(problem.get("code")) for problem in node.problems],
    }


def node_load(
    node: Node, points: Mapping[str, Point], reports: Iterable[GatewayReport]
) -> tuple[float | None, float | None]:
    """CPU and memory of a node in percent: what the worker wrote last, else what an agent there said."""
    point = points.get(f"node:{node.name}", {})
    cpu, memory = point.get("cpu_percent"), point.get("memory_percent")
    said = [
        link
        for report in reports
        for link in report.agents
        if link.node == node.name and link.load_age_s is not None and link.load_age_s < LOAD_FRESH_S
    ]
    freshest = min(said, key=lambda link: link.load_age_s or 0.0, default=None)
    if freshest is not None:
        cpu = freshest.node_cpu_percent if cpu is None else cpu
        if memory is None and freshest.node_available_bytes is not None and node.ram_bytes:
            memory = 100.0 * (1 - min(1.0, freshest.node_available_bytes / node.ram_bytes))
    return cpu, memory


def _describe_deployment(
    deployment: Deployment,
    agents: Iterable[Agent],
    states: Mapping[str, str],
    reports: Iterable[GatewayReport],
) -> dict[str, object]:
    own = [agent for agent in agents if agent.deployment_id == deployment.pk]
    counted = [entry for report in reports for entry in report.deployments if entry.name == deployment.name]
    return {
        "name": deployment.name,
        "model": deployment.model.name,
        "task": deployment.model.task,
        "state": deployment_state(deployment, own, states),
        "desired": deployment.desired,
        "would": deployment.would,
        "ready": sum(states[agent.id] == "ready" for agent in own),
        "min": deployment.min_agents,
        "max": deployment.max_agents,
        "in_flight": sum(entry.in_flight for entry in counted),
        "queued": sum(entry.queued for entry in counted),
    }


def _read_newest_points(now: float) -> dict[str, Point]:
    """Each series' newest second of the last ten; nothing where the history cannot be read."""
    recent = MetricPoint.objects.filter(resolution_s=1, at__gte=int(now - LOAD_FRESH_S)).order_by("at")
    try:
        return dict(recent.values_list("series", "values"))
    except DatabaseError:  # history may be lost without harm
        return {}

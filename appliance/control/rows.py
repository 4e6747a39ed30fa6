"""Rows to facts and back: only what changed is written, and only where nobody else changed it."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from appliance.models import Agent, Deployment, Node, RouteState
from appliance.models.agents import capacities_on_boxes
from appliance.models.nodes import LOCAL_NODE
from appliance.models.routes import new_epoch
from appliance.policies.fleet import AgentFacts, DeploymentFacts
from appliance.policies.profiles import Profile, ProfileKey, choose_profile, default_profile, is_outdated
from appliance.policies.scaling import ScalingPolicy, state_from_json
from appliance.profiles import key_for

#: Requests an agent should carry, as a part of those it executes at once, unless people say otherwise.
UTILIZATION = 0.7
_TIMES = frozenset({"started_at", "ready_at", "unready_at", "retry_at", "leaving_at", "away_at"})
#: Facts of an agent that a tick may change, by the names of their columns.
_KEPT = ("wanted", "state", "attempt", "pid", "error", "draining_generation", *sorted(_TIMES))


def read_deployments(
    nodes: Sequence[Node], known: Mapping[ProfileKey, Profile]
) -> tuple[DeploymentFacts, ...]:
    """All deployments; the agents of node `local` set the default target."""
    rows = Deployment.objects.select_related("model", "revision__model")
    return tuple(deployment_facts(row, nodes, known) for row in rows)


def deployment_facts(
    row: Deployment, nodes: Sequence[Node], known: Mapping[ProfileKey, Profile]
) -> DeploymentFacts:
    """What the policies must know of a deployment."""
    profiles = {}
    if row.revision is not None:
        profiles = {node.name: choose_profile(known, key_for(node, row.revision)) for node in nodes}
    local = profiles.get(LOCAL_NODE) or default_profile(_local_cores(nodes))
    slots = local.workers * local.batch_size
    model = row.revision.model if row.revision is not None else row.model
    return DeploymentFacts(
        name=row.name,
        revision=row.revision.pk if row.revision is not None else None,
        model_bytes=model.size_bytes,
        policy=ScalingPolicy(
            min_agents=row.min_agents,
            max_agents=row.max_agents,
            target=row.target_in_flight or UTILIZATION * slots,
        ),
        desired=row.desired,
        deadline_s=row.deadline_s,
        paused=row.paused,
        removing=row.removing,
        removing_at=_seconds(row.removing_at),
        proven=row.revision is None or row.revision.proven_at is not None,
        scaling_state=state_from_json(row.scaling_state),
        reason_kind=row.reason_kind,
        problem=row.problem,
        capacities={name: one.capacity_rps for name, one in profiles.items() if one.capacity_rps},
    )


def _local_cores(nodes: Iterable[Node]) -> int:
    return next((node.cores for node in nodes if node.is_local), 1)


def read_agents(known: Mapping[ProfileKey, Profile]) -> tuple[AgentFacts, ...]:
    """All agents, oldest first; `known` are the profiles."""
    rows = Agent.objects.select_related("deployment", "revision__model", "node").order_by("created_at", "id")
    capacities = capacities_on_boxes(rows)
    return tuple(
        AgentFacts(
            id=row.id,
            deployment=row.deployment.name,
            revision=row.revision.pk,
            node=row.node.name,
            created_at=row.created_at.timestamp(),
            threads=row.engine_threads,
            capacity_rps=capacities[row.id],
            outdated=is_outdated(known, key_for(row.node, row.revision), row.profile),
            model_bytes=row.revision.model.size_bytes,
            **{name: _fact(name, getattr(row, name)) for name in _KEPT},
        )
        for row in rows
    )


def read_epoch() -> str:
    """The epoch of this database's routes."""
    state, _ = RouteState.objects.get_or_create(pk=1, defaults={"epoch": new_epoch()})
    return state.epoch


def write_agents(before: Iterable[AgentFacts], after: Iterable[AgentFacts], generation: int | None) -> None:
    """Write the changed columns of changed agents, each only where `wanted` is still what was read.

    Agents that begin to drain are given `generation`, which takes them out of service.
    """
    known = {agent.id: agent for agent in before}
    for agent in after:
        was = known[agent.id]
        changes = {
            name: _value(name, getattr(agent, name))
            for name in _KEPT
            if getattr(agent, name) != getattr(was, name)
        }
        if agent.wanted in ("draining", "resting") and agent.draining_generation is None:
            changes["draining_generation"] = generation
        if changes:
            Agent.objects.filter(pk=agent.id, wanted=was.wanted).update(**changes)


def to_time(seconds: float | None) -> dt.datetime | None:
    """Unix seconds as rows have them."""
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)


def _seconds(time: dt.datetime | None) -> float | None:
    return None if time is None else time.timestamp()


def _fact(name: str, value: Any) -> Any:
    return _seconds(value) if name in _TIMES else value


def _value(name: str, value: Any) -> Any:
    return to_time(value) if name in _TIMES else value


assert set(_KEPT) <= {field.name for field in fields(AgentFacts)}

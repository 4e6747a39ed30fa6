"""Rows to facts and back: only what changed is written, and only where nobody else changed it."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from appliance.models import Agent, Deployment, RouteState
from appliance.models.routes import new_epoch
from appliance.policies.fleet import AgentFacts, DeploymentFacts
from appliance.policies.scaling import ScalingPolicy, state_from_json

#: Requests an agent should carry, as a part of those it executes at once, unless people say otherwise.
UTILIZATION = 0.7
#: Requests an agent's engine takes in one batch, until it is measured.
BATCH_SIZE = 8
_TIMES = frozenset({"started_at", "ready_at", "unready_at", "retry_at", "leaving_at", "away_at"})
#: Facts of an agent that a tick may change, by the names of their columns.
_KEPT = ("wanted", "state", "attempt", "pid", "error", "draining_generation", *sorted(_TIMES))


def default_profile(cores: int) -> dict[str, int]:
    """What a new agent is started with: one thread a worker, a worker for each physical core."""
    return {"workers": max(1, cores), "threads": 1, "batch_size": BATCH_SIZE}


def read_deployments(cores: int) -> tuple[DeploymentFacts, ...]:
    """All deployments; `cores` are those of the node whose agents set the default target."""
    rows = Deployment.objects.select_related("model", "revision__model")
    return tuple(deployment_facts(row, cores) for row in rows)


def deployment_facts(row: Deployment, cores: int) -> DeploymentFacts:
    """What the policies must know of a deployment."""
    profile = default_profile(cores)
    slots = profile["workers"] * profile["batch_size"]
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
    )


def read_agents() -> tuple[AgentFacts, ...]:
    """All agents, oldest first."""
    rows = Agent.objects.select_related("deployment", "revision__model", "node").order_by("created_at", "id")
    return tuple(
        AgentFacts(
            id=row.id,
            deployment=row.deployment.name,
            revision=row.revision.pk,
            node=row.node.name,
            created_at=row.created_at.timestamp(),
            threads=int(row.profile["workers"]) * int(row.profile["threads"]),
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

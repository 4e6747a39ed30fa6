"""Deployments: what clients ask for by name."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from ninja import Query, Router, Status
from pydantic import BaseModel, ConfigDict, Field

from appliance import deployments as verbs
from appliance.api.access import ApiRequest, needs
from appliance.api.errors import ApiError
from appliance.api.pages import Page, Paging, answers, late_gateways, page_of
from appliance.errors import VerbError
from appliance.fleet import agent_state, deployment_capacity, deployment_state, read_capacities
from appliance.models import Agent, Deployment
from appliance.models.deployments import MAX_AGENTS
from appliance.policies.balancing import policy_names
from appliance.row_settings import meant, show_values
from appliance.serving_settings import (
    LEAST_DEADLINE_S,
    MOST_CACHE_MB,
    MOST_DEADLINE_S,
    MOST_QUEUED,
    MOST_QUEUED_TOKENS,
    SERVING,
)

router = Router(tags=["deployments"])

VIEW, CHANGE, REMOVE = (
    "appliance.view_deployment",
    "appliance.change_deployment",
    "appliance.delete_deployment",
)


class Serving(BaseModel):
    """How a deployment is served, in each gateway; `cache_mb` is in 1,000,000 bytes, 0: no cache."""

    balancing: str
    queue_limit: int
    queue_tokens: int
    deadline_s: float
    cache_mb: float
    cache_shared: bool
    sticky: bool
    hedging: bool


class ServingBody(BaseModel):
    """What is to be another; what is left out stays as it is, null is the default."""

    model_config = ConfigDict(extra="forbid", strict=True)

    balancing: str | None = Field(None, json_schema_extra={"enum": [*policy_names(), None]})
    queue_limit: int | None = Field(None, ge=1, le=MOST_QUEUED)
    queue_tokens: int | None = Field(None, ge=1, le=MOST_QUEUED_TOKENS)
    deadline_s: float | None = Field(None, ge=LEAST_DEADLINE_S, le=MOST_DEADLINE_S)
    cache_mb: float | None = Field(None, ge=0, le=MOST_CACHE_MB)
    cache_shared: bool | None = None
    sticky: bool | None = None
    hedging: bool | None = None


class DeploymentAnswer(BaseModel):
    """A deployment; `desired`, `ready`, `min` and `max` count warm agents, as the control loop sees them."""

    name: str
    model: str
    task: str
    revision: int | None
    state: str
    desired: int
    would: int | None = Field(description="What `desired` would be by the load, in a dry run; else null.")
    ready: int
    min: int
    max: int
    capacity_rps: float | None = Field(
        description="Requests a second that its ready agents can do; null where that is not known yet."
    )
    paused: bool
    serving: Serving
    reason: str = Field(description="Why `desired` is what it is.")
    problem: str = Field(description="What keeps it from being as wanted.")
    created_at: dt.datetime


class DeployBody(BaseModel):
    """What is wanted; min and max stay as they are where they are left out (a new one has 1)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    min: int | None = Field(None, ge=0, le=MAX_AGENTS)
    max: int | None = Field(None, ge=1, le=MAX_AGENTS)


class Changed(DeploymentAnswer):
    """A deployment after a change, and the gateways that do not serve the change yet."""

    late_gateways: list[str]


@router.get("/deployments", response=answers({200: Page[DeploymentAnswer]}), auth=needs(VIEW))
def list_deployments(request: ApiRequest, paging: Query[Paging]) -> dict[str, Any]:
    """All deployments, by name."""
    rows = Deployment.objects.select_related("model", "revision").prefetch_related("agents")
    capacities = read_capacities()
    return page_of(rows, paging, lambda row: DeploymentAnswer(**_describe(row, capacities)))


@router.get("/deployments/{name}", response=answers({200: DeploymentAnswer}, 404), auth=needs(VIEW))
def get_deployment(request: ApiRequest, name: str) -> DeploymentAnswer:
    """One deployment."""
    return DeploymentAnswer(**_describe(_find(name)))


@router.put(
    "/deployments/{name}",
    response=answers({200: Changed, 201: Changed}, 409, 415),
    auth=needs(CHANGE),
)
def deploy(request: ApiRequest, name: str, body: DeployBody) -> Status[Changed]:
    """Create or update a deployment."""
    done = verbs.deploy(
        name, model=body.model, min_agents=body.min, max_agents=body.max, actor=request.auth.actor
    )
    late = late_gateways(done.generation)
    return Status(201 if done.created else 200, Changed(**_describe(done.deployment), late_gateways=late))


@router.patch(
    "/deployments/{name}/serving", response=answers({200: Changed}, 404, 409, 415), auth=needs(CHANGE)
)
def set_serving(request: ApiRequest, name: str, body: ServingBody) -> Changed:
    """Change how a deployment is served."""
    row = _find(name)
    given = meant(SERVING, body.model_dump(exclude_unset=True), Deployment())
    done = verbs.set_serving(row.name, given, request.auth.actor)
    late = late_gateways(done.generation) if done.generation is not None else []
    return Changed(**_describe(done.deployment), late_gateways=late)


@router.delete("/deployments/{name}", response=answers({202: Changed}, 404), auth=needs(REMOVE))
def undeploy(request: ApiRequest, name: str) -> Status[Changed]:
    """Take a deployment out of service: its agents are drained, then it is gone."""
    row = _find(name)
    late = late_gateways(verbs.undeploy(row.name, actor=request.auth.actor))
    row.removing = True  # read again, it might be gone already
    return Status(202, Changed(**_describe(row), late_gateways=late))


def _find(name: str) -> Deployment:
    try:
        return verbs.find_deployment(name)
    except VerbError as error:
        raise ApiError(404, str(error)) from None


def _describe(row: Deployment, capacities: Mapping[str, float] | None = None) -> dict[str, Any]:
    capacities = read_capacities() if capacities is None else capacities
    agents: list[Agent] = list(row.agents.all())
    states = {agent.pk: agent_state(agent, ()) for agent in agents}
    return {
        "name": row.name,
        "model": row.model.name,
        "task": row.model.task,
        "revision": row.revision.number if row.revision else None,
        "state": deployment_state(row, agents, states),
        "desired": row.desired,
        "would": row.would,
        "ready": sum(state == "ready" for state in states.values()),
        "min": row.min_agents,
        "max": row.max_agents,
        "capacity_rps": deployment_capacity(row, agents, states, capacities),
        "paused": row.paused,
        "serving": Serving.model_validate(show_values(SERVING, row)),
        "reason": row.reason,
        "problem": row.problem,
        "created_at": row.created_at,
    }

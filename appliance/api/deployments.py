"""Deployments: what clients ask for by name."""

import datetime as dt
from typing import Any

from ninja import Query, Router, Status
from pydantic import BaseModel, ConfigDict, Field

from appliance import deployments as verbs
from appliance.api.access import ApiRequest, needs
from appliance.api.errors import ApiError
from appliance.api.pages import Page, Paging, answers, late_gateways, page_of
from appliance.errors import VerbError
from appliance.fleet import agent_state, deployment_state
from appliance.models import Agent, Deployment
from appliance.models.deployments import MAX_AGENTS

router = Router(tags=["deployments"])

VIEW, CHANGE, REMOVE = (
    "appliance.view_deployment",
    "appliance.change_deployment",
    "appliance.delete_deployment",
)


class DeploymentAnswer(BaseModel):
    """A deployment; `desired`, `ready`, `min` and `max` count warm agents, as the control loop sees them."""

    name: str
    model: str
    task: str
    revision: int | None
    state: str
    desired: int
    ready: int
    min: int
    max: int
    paused: bool
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
    return page_of(rows, paging, lambda row: DeploymentAnswer(**_describe(row)))


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


def _describe(row: Deployment) -> dict[str, Any]:
    agents: list[Agent] = list(row.agents.all())
    states = {agent.pk: agent_state(agent, ()) for agent in agents}
    return {
        "name": row.name,
        "model": row.model.name,
        "task": row.model.task,
        "revision": row.revision.number if row.revision else None,
        "state": deployment_state(row, agents, states),
        "desired": row.desired,
        "ready": sum(state == "ready" for state in states.values()),
        "min": row.min_agents,
        "max": row.max_agents,
        "paused": row.paused,
        "reason": row.reason,
        "problem": row.problem,
        "created_at": row.created_at,
    }

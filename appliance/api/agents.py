"""Agents: the list, and what each wrote last."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from ninja import Query, Router
from pydantic import BaseModel, Field

from appliance.agent_logs import DEFAULT_LINES, MAX_LINES, LogUnavailable, read_agent_log
from appliance.agent_shapes import describe_shape, read_starts
from appliance.api.access import ApiRequest, needs
from appliance.api.errors import ApiError
from appliance.api.pages import Page, Paging, answers, page_of
from appliance.fleet import agent_state, describe_speed, read_capacities
from appliance.models import Agent
from appliance.policies.shapes import Shape

router = Router(tags=["agents"])

VIEW = "appliance.view_agent"


class AgentShape(BaseModel):
    """How large an agent is."""

    workers: int
    threads: int
    batch_size: int


class AgentAnswer(BaseModel):
    """A process that serves a deployment's model on a node. `state` is as the control loop sees it."""

    id: str
    deployment: str
    revision: int
    node: str
    host: str
    port: int
    state: str
    wanted: str
    attempt: int
    error: str
    workers: int | None = Field(description="Batches that it computes at the same time, as wanted.")
    threads: int | None = Field(description="Engine threads of each worker, as wanted.")
    batch_size: int | None = Field(description="Sequences of a batch at most, as wanted.")
    stretched: bool = Field(description="Whether it has grown, as load asked and no agent could be added.")
    grown_from: AgentShape | None = Field(description="What it would start with; null: it has not grown.")
    capacity_rps: float | None = Field(
        description="Requests a second beside the other agents of its node; null: not known yet."
    )
    tokens_per_s: float | None
    profile: str = Field(description="How its speed is known: default (not yet), learned or measured.")
    release_sha256: str
    certificate_expires_at: dt.datetime | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    ready_at: dt.datetime | None


class AgentPaging(Paging):
    """Which agents."""

    deployment: str | None = None
    node: str | None = None


class LogAsked(BaseModel):
    """How much of a log."""

    lines: int = Field(DEFAULT_LINES, ge=1, le=MAX_LINES)


class AgentLog(BaseModel):
    """The newest lines, oldest first: text of the agent."""

    id: str
    node: str
    lines: list[str]


@router.get("/agents", response=answers({200: Page[AgentAnswer]}), auth=needs(VIEW))
def list_agents(request: ApiRequest, asked: Query[AgentPaging]) -> dict[str, Any]:
    """All agents, by deployment and age."""
    rows = Agent.objects.select_related("deployment", "node", "revision")
    if asked.deployment is not None:
        rows = rows.filter(deployment__name=asked.deployment)
    if asked.node is not None:
        rows = rows.filter(node__name=asked.node)
    capacities, starts = read_capacities(), read_starts(rows)
    return page_of(rows, asked, lambda row: _describe(row, capacities, starts.get(row.pk)))


@router.get("/agents/{agent}", response=answers({200: AgentAnswer}, 404), auth=needs(VIEW))
def get_agent(request: ApiRequest, agent: str) -> AgentAnswer:
    """One agent."""
    row = _find(agent)
    return _describe(row, read_capacities(), read_starts([row]).get(row.pk))


@router.get("/agents/{agent}/log", response=answers({200: AgentLog}, 404), auth=needs(VIEW))
def get_agent_log(request: ApiRequest, agent: str, asked: Query[LogAsked]) -> AgentLog:
    """What an agent wrote last, read from its node now."""
    row = _find(agent)
    try:
        lines = read_agent_log(row, asked.lines)
    except LogUnavailable as unavailable:
        raise ApiError(503, str(unavailable)) from None
    return AgentLog(id=row.pk, node=row.node.name, lines=lines)


def _find(agent: str) -> Agent:
    row = Agent.objects.select_related("deployment", "node", "revision").filter(pk=agent).first()
    if row is None:
        raise ApiError(404, f"no agent is named {agent[:100]!a}")
    return row


def _describe(row: Agent, capacities: Mapping[str, float], start: Shape | None) -> AgentAnswer:
    said = {name: getattr(row, name) for name in AgentAnswer.model_fields if hasattr(row, name)}
    return AgentAnswer(
        **said
        | {
            "deployment": row.deployment.name,
            "node": row.node.name,
            "revision": row.revision.number,
            "state": agent_state(row, ()),
            **describe_shape(row, start),
            **describe_speed(row, capacities.get(row.pk, 0.0)),  # it may have come, or gone, meanwhile
        }
    )

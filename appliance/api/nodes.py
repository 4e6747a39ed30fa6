"""Nodes: what is known of them, and what is ordered of them."""

import datetime as dt
import time
from typing import Any

from ninja import Query, Router, Status
from pydantic import BaseModel, ConfigDict, Field

from appliance import nodes as verbs
from appliance.api.access import ApiRequest, needs
from appliance.api.errors import ApiError
from appliance.api.pages import Page, Paging, answers, page_of
from appliance.errors import Conflict, VerbError
from appliance.fleet import agent_state, node_state
from appliance.models import Agent, Node, Transfer
from appliance.node_attributes import check_attributes
from appliance.profiles import profiles_of

router = Router(tags=["nodes"])

VIEW, CHANGE, RETIRE = "appliance.view_node", "appliance.change_node", "appliance.delete_node"


class NodeProblem(BaseModel):
    """What is wrong with a node now; `since` in Unix seconds."""

    code: str = ""
    message: str = ""
    remedy: str = ""
    since: float | None = None


class NodeAnswer(BaseModel):
    """A machine: what people said of it, what was ordered, what was observed."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    address: str
    port: int
    account: str
    host_key: str
    host_key_kind: str
    state: str
    wanted: str
    operation: str
    operation_stage: str
    labels: dict[str, str]
    region: str
    cost_per_hour: str | None = Field(description="A number as text, or null where it is not known.")
    preemptible: bool
    power: str
    power_wanted: str = Field(description="What people ordered: asleep, awake, or nothing.")
    power_stage: str = Field(description="leaving, sleeping, asleep, waking; empty while it is awake.")
    cores: int
    ram_bytes: int
    hardware: dict[str, Any]
    problems: list[NodeProblem]
    calibration_at: dt.datetime | None = Field(description="When a measurement was ordered; null once done.")
    calibration_error: str
    steward_sha256: str
    release_sha256: str
    next_release_sha256: str
    seen_at: dt.datetime | None
    enrolled_at: dt.datetime | None
    retired_at: dt.datetime | None


class NodeAgent(BaseModel):
    """An agent on a node."""

    id: str
    deployment: str
    state: str
    release_sha256: str


class NodeProfile(BaseModel):
    """With what agents of a deployment are started on a node, and how fast that is; 0: not known."""

    deployment: str
    workers: int
    threads: int
    batch_size: int
    capacity_rps: float
    tokens_per_s: float
    fixed_s: float
    per_token_s: float
    source: str
    measured_at: float = Field(description="Unix seconds.")


class NodeDetail(NodeAnswer):
    """A machine, the agents on it, and their profiles."""

    agents: list[NodeAgent]
    profiles: list[NodeProfile]


class AttributesBody(BaseModel):
    """What people say of a node; what is left out stays, null clears."""

    model_config = ConfigDict(extra="forbid", strict=True)

    labels: dict[str, str] | None = None
    region: str | None = None
    cost_per_hour: float | str | None = Field(None, description="A number with at most four decimals.")
    preemptible: bool | None = Field(None, description="Null: no.")
    power: str | None = Field(None, description="How it is woken: wol:MAC or exec:NAME.")

    def given(self) -> dict[str, Any]:
        """Those that were said, cleared ones as the verbs want them: empty."""
        said = self.model_dump(exclude_unset=True, include=set(AttributesBody.model_fields))
        cleared: dict[str, object] = {"labels": {}, "preemptible": False}
        return {key: cleared.get(key, "") if value is None else value for key, value in said.items()}


class TransferAnswer(BaseModel):
    """A release or a model on its way to a node."""

    model_config = ConfigDict(from_attributes=True)

    kind: str
    name: str
    digest: str
    state: str
    have_bytes: int
    total_bytes: int
    error: str
    started_at: dt.datetime
    finished_at: dt.datetime | None


class Retiring(BaseModel):
    """How a node is retired."""

    force: bool = Field(False, description="Do not touch the box: for one that is lost.")


class Upgrading(BaseModel):
    """Which nodes are upgraded, one by one."""

    nodes: list[str]


def describe_node(node: Node, now: float) -> dict[str, Any]:
    """The fields of NodeAnswer at one instant."""
    cost = node.cost_per_hour
    said = {name: getattr(node, name) for name in NodeAnswer.model_fields if hasattr(node, name)}
    return said | {
        "state": node_state(node, now),
        "cost_per_hour": None if cost is None else f"{cost.normalize():f}",
    }


def _detail(node: Node) -> NodeDetail:
    agents = [
        NodeAgent(
            id=agent.pk,
            deployment=agent.deployment.name,
            state=agent_state(agent, ()),
            release_sha256=agent.release_sha256,
        )
        for agent in Agent.objects.select_related("deployment").filter(node=node)
    ]
    profiles = [NodeProfile.model_validate(one) for one in profiles_of(node)]
    return NodeDetail(**describe_node(node, time.time()), agents=agents, profiles=profiles)


def _find(name: str) -> Node:
    try:
        return verbs.find_node(name)
    except VerbError as error:
        raise ApiError(404, str(error)) from None


def order_node(verb: Any, name: str, request: ApiRequest, **how: Any) -> NodeDetail:
    """Call a verb on a node that there is: what it refuses then is because of how the node stands."""
    _find(name)
    try:
        verb(name, **how, actor=request.auth.actor)
    except VerbError as error:
        raise Conflict(str(error)) from None
    return _detail(_find(name))


@router.get("/nodes", response=answers({200: Page[NodeAnswer]}), auth=needs(VIEW))
def list_nodes(request: ApiRequest, paging: Query[Paging]) -> dict[str, Any]:
    """All nodes, also retired ones, by name."""
    now = time.time()
    return page_of(Node.objects.all(), paging, lambda node: NodeAnswer(**describe_node(node, now)))


@router.get("/nodes/{name}", response=answers({200: NodeDetail}, 404), auth=needs(VIEW))
def get_node(request: ApiRequest, name: str) -> NodeDetail:
    """All that is known of a node."""
    return _detail(_find(name))


@router.patch("/nodes/{name}", response=answers({200: NodeDetail}, 404, 409, 415), auth=needs(CHANGE))
def set_node(request: ApiRequest, name: str, body: AttributesBody) -> NodeDetail:
    """Change what people say of a node."""
    given = body.given()
    check_attributes(given)  # what is wrong in itself is no conflict
    return order_node(verbs.set_node, name, request, **given)


@router.post("/nodes/{name}/cordon", response=answers({202: NodeDetail}, 404, 409), auth=needs(CHANGE))
def cordon_node(request: ApiRequest, name: str) -> Status[NodeDetail]:
    """No new agents there; those that are stay."""
    return Status(202, order_node(verbs.cordon_node, name, request))


@router.post("/nodes/{name}/uncordon", response=answers({202: NodeDetail}, 404, 409), auth=needs(CHANGE))
def uncordon_node(request: ApiRequest, name: str) -> Status[NodeDetail]:
    """Back to normal service after a cordon or a drain."""
    return Status(202, order_node(verbs.uncordon_node, name, request))


@router.post("/nodes/{name}/drain", response=answers({202: NodeDetail}, 404, 409), auth=needs(CHANGE))
def drain_node(request: ApiRequest, name: str) -> Status[NodeDetail]:
    """All agents leave, and none come."""
    return Status(202, order_node(verbs.drain_node, name, request))


@router.post("/nodes/{name}/reboot", response=answers({202: NodeDetail}, 404, 409), auth=needs(CHANGE))
def reboot_node(request: ApiRequest, name: str) -> Status[NodeDetail]:
    """Restart the machine once its agents have left service; they come back."""
    return Status(202, order_node(verbs.reboot_node, name, request))


@router.post("/nodes/{name}/calibrate", response=answers({202: NodeDetail}, 404, 409), auth=needs(CHANGE))
def calibrate_node(request: ApiRequest, name: str) -> Status[NodeDetail]:
    """Have the speed of the models on a node measured, one agent at a time, out of service."""
    return Status(202, order_node(verbs.calibrate_node, name, request))


@router.post("/nodes/{name}/upgrade", response=answers({202: NodeDetail}, 404, 409), auth=needs(CHANGE))
def upgrade_node(request: ApiRequest, name: str) -> Status[NodeDetail]:
    """Bring the present release to a node."""
    ordered = order_node(lambda one, *, actor: verbs.upgrade_nodes([one], actor=actor), name, request)
    return Status(202, ordered)


@router.post("/upgrade", response=answers({202: Upgrading}), auth=needs(CHANGE))
def upgrade_all_nodes(request: ApiRequest) -> Status[Upgrading]:
    """Bring the present release to all nodes, one by one, the first as a canary."""
    ordered = verbs.upgrade_nodes(None, actor=request.auth.actor)
    return Status(202, Upgrading(nodes=[node.name for node in ordered]))


@router.delete("/nodes/{name}", response=answers({202: NodeDetail}, 404, 409), auth=needs(RETIRE))
def retire_node(request: ApiRequest, name: str, how: Query[Retiring]) -> Status[NodeDetail]:
    """Take a node out for good: its agents leave, then all that is ours is removed from the box."""
    return Status(202, order_node(verbs.retire_node, name, request, force=how.force))


@router.get("/nodes/{name}/transfers", response=answers({200: Page[TransferAnswer]}, 404), auth=needs(VIEW))
def list_transfers(request: ApiRequest, name: str, paging: Query[Paging]) -> dict[str, Any]:
    """Releases and models on their way to a node, newest first."""
    rows = Transfer.objects.filter(node=_find(name))
    return page_of(rows, paging, TransferAnswer.model_validate)

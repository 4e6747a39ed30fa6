"""Nodes' power: put to sleep, woken, and the settings by which the loop does both."""

from typing import Any, Literal

from ninja import Router, Status
from pydantic import BaseModel, ConfigDict, Field

from appliance import power as verbs
from appliance.api.access import ApiRequest, needs
from appliance.api.nodes import CHANGE, VIEW, NodeDetail, order_node
from appliance.api.pages import answers
from appliance.models.power import PowerRules, power_rules
from appliance.power_settings import HOURS_S, MOST_NODES, POWER
from appliance.row_settings import meant, show_values

router = Router(tags=["nodes"])

How = Literal["suspend", "power_off"]


class Suspending(BaseModel):
    """How a node is put to sleep; without a body: as the fleet's setting says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    how: How | None = Field(default=None, description="Left out: as the fleet's setting says.")
    no_wake: bool = Field(default=False, description="Also where nothing could wake it.")


class PowerAnswer(BaseModel):
    """When nodes sleep and wake by themselves."""

    sleep_after_s: int
    sleep_how: str
    headroom_nodes: int
    headroom_agents: int
    stay_awake_s: int
    wake_timeout_s: int
    changes_per_10min: int
    changes_per_tick: int


class PowerBody(BaseModel):
    """What is to be another; what is left out stays as it is, null is the default."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sleep_after_s: int | None = Field(None, ge=0, le=HOURS_S, description="0: never.")
    sleep_how: How | None = None
    headroom_nodes: int | None = Field(None, ge=0, le=MOST_NODES)
    headroom_agents: int | None = Field(None, ge=0, le=MOST_NODES)
    stay_awake_s: int | None = Field(None, ge=0, le=HOURS_S)
    wake_timeout_s: int | None = Field(None, ge=5, le=3600)
    changes_per_10min: int | None = Field(None, ge=1, le=100)
    changes_per_tick: int | None = Field(None, ge=1, le=MOST_NODES)


@router.post("/nodes/{name}/suspend", response=answers({202: NodeDetail}, 404, 409, 415), auth=needs(CHANGE))
def suspend_node(request: ApiRequest, name: str, body: Suspending | None = None) -> Status[NodeDetail]:
    """Put a node to sleep once its agents have left."""
    how = body or Suspending()
    order = order_node(verbs.suspend_node, name, request, how=how.how or "", no_wake=how.no_wake)
    return Status(202, order)


@router.post("/nodes/{name}/wake", response=answers({202: NodeDetail}, 404, 409), auth=needs(CHANGE))
def wake_node(request: ApiRequest, name: str) -> Status[NodeDetail]:
    """Wake a node that sleeps, or is not there."""
    return Status(202, order_node(verbs.wake_node, name, request))


@router.get("/power", response=answers({200: PowerAnswer}), auth=needs(VIEW))
def get_power(request: ApiRequest) -> dict[str, Any]:
    """When nodes sleep and wake by themselves."""
    return _describe(power_rules())


@router.patch("/power", response=answers({200: PowerAnswer}, 415), auth=needs(CHANGE))
def set_power(request: ApiRequest, body: PowerBody) -> dict[str, Any]:
    """Change when nodes sleep and wake by themselves."""
    given = meant(POWER, body.model_dump(exclude_unset=True), PowerRules())
    return _describe(verbs.set_power(given, request.auth.actor).rules)


def _describe(rules: PowerRules) -> dict[str, Any]:
    return dict(show_values(POWER, rules))

"""The fleet as it stands: the document of `fleet --json`."""

import time
from typing import Any

from django.conf import settings
from ninja import Router
from pydantic import BaseModel, ConfigDict, Field

from appliance.api.access import ApiRequest, needs
from appliance.api.agents import AgentShape
from appliance.api.pages import answers
from appliance.fleet import read_fleet
from appliance.gateways import read_reports

router = Router(tags=["fleet"])


class _Described(BaseModel):
    model_config = ConfigDict(extra="allow")


class FleetNode(_Described):
    """A machine."""

    name: str
    address: str
    state: str
    cores: int
    ram_bytes: int
    cpu_percent: float | None
    problems: list[str]


class FleetDeployment(_Described):
    """What clients ask for by name; numbers of agents are of warm ones."""

    name: str
    model: str
    task: str
    state: str
    desired: int
    ready: int
    min: int
    max: int
    in_flight: int
    queued: int


class FleetAgent(_Described):
    """A process that serves a deployment's model on a node."""

    id: str
    deployment: str
    node: str
    state: str
    in_flight: int
    health: str
    workers: int | None = Field(description="Batches that it computes at the same time, as wanted.")
    threads: int | None = Field(description="Engine threads of each worker, as wanted.")
    batch_size: int | None = Field(description="Sequences of a batch at most, as wanted.")
    stretched: bool = Field(description="Whether it has grown, as load asked and no agent could be added.")
    grown_from: AgentShape | None = Field(description="What it would start with; null: it has not grown.")
    reported: AgentShape | None = Field(description="What it says it is; null: no gateway was told.")


class Fleet(BaseModel):
    """Everything at one instant."""

    nodes: list[FleetNode]
    deployments: list[FleetDeployment]
    agents: list[FleetAgent]


@router.get("/fleet", response=answers({200: Fleet}), auth=needs("appliance.view_deployment"))
def get_fleet(request: ApiRequest) -> dict[str, Any]:
    """Rows joined with what the gateways report, all of one instant."""
    return dict(read_fleet(read_reports(settings.ENVIRONMENT.run_dir), time.time()))

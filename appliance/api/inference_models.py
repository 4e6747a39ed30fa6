"""Models: the catalog."""

import datetime as dt
from typing import Any

from ninja import Query, Router, Status
from pydantic import BaseModel, ConfigDict, Field

from appliance.api.access import ApiRequest, needs
from appliance.api.errors import ApiError
from appliance.api.pages import Page, Paging, answers, page_of
from appliance.imports import remove_model as remove
from appliance.imports import request_import
from appliance.models import InferenceModel

router = Router(tags=["models"])

VIEW, ADD, REMOVE = (
    "appliance.view_inferencemodel",
    "appliance.add_inferencemodel",
    "appliance.delete_inferencemodel",
)


class ModelAnswer(BaseModel):
    """A model, and how its import stands."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    source: str
    task: str
    quantization: str
    state: str
    digest: str
    size_bytes: int
    stage: str
    percent: float
    error: str
    hint: str
    created_at: dt.datetime
    finished_at: dt.datetime | None


class ImportBody(BaseModel):
    """What is imported, and how."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    source: str = Field(max_length=1024, description="A directory on the appliance, or pypi:PACKAGE.")
    task: str = "embed"
    quantization: str = "int8"


@router.get("/models", response=answers({200: Page[ModelAnswer]}), auth=needs(VIEW))
def list_models(request: ApiRequest, paging: Query[Paging]) -> dict[str, Any]:
    """All models, by name."""
    return page_of(InferenceModel.objects.all(), paging, ModelAnswer.model_validate)


@router.get("/models/{name}", response=answers({200: ModelAnswer}, 404), auth=needs(VIEW))
def get_model(request: ApiRequest, name: str) -> ModelAnswer:
    """One model."""
    return ModelAnswer.model_validate(_find(name))


@router.post("/models", response=answers({202: ModelAnswer}, 409, 415), auth=needs(ADD))
def import_model(request: ApiRequest, body: ImportBody) -> Status[ModelAnswer]:
    """Have the worker import a model; `state` becomes ready or failed."""
    entry = request_import(
        body.name,
        source=body.source,
        task=body.task,
        quantization=body.quantization,
        actor=request.auth.actor,
    )
    return Status(202, ModelAnswer.model_validate(entry))


@router.delete("/models/{name}", response=answers({204: None}, 404, 409), auth=needs(REMOVE))
def remove_model(request: ApiRequest, name: str) -> Status[None]:
    """Remove a model that no deployment uses."""
    remove(_find(name).name, actor=request.auth.actor)
    return Status(204, None)


def _find(name: str) -> InferenceModel:
    entry = InferenceModel.objects.filter(name=name).first()
    if entry is None:
        raise ApiError(404, f"no model is named {name[:80]!a}")
    return entry

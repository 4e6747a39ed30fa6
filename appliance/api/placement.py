"""Where agents of deployments go."""

from typing import Any

from ninja import Router
from pydantic import BaseModel, ConfigDict, Field

from appliance.api.access import ApiRequest, needs
from appliance.api.errors import ApiError
from appliance.api.pages import answers
from appliance.deployments import find_deployment
from appliance.errors import VerbError
from appliance.models import Deployment
from appliance.placement import forbidden_nodes, show_placement
from appliance.placement import set_placement as change
from appliance.placement_settings import PLACEMENT
from appliance.policies.placement_rules import BASES, DEFAULT_RULES, PREFERS, SPREADS
from appliance.row_settings import meant

router = Router(tags=["deployments"])

VIEW, CHANGE = "appliance.view_deployment", "appliance.change_deployment"
_MEANING = {one.key: f"{one.meaning}: {one.accepted}, as `{one.example}`." for one in PLACEMENT}
_LONGEST = 3000


class PlacementOf(BaseModel):
    """Where a deployment's agents go, in the words in which it may be given."""

    require: str = Field(description=_MEANING["require"])
    avoid: str = Field(description=_MEANING["avoid"])
    regions: str = Field(description=_MEANING["regions"])
    spread: str = Field(description=_MEANING["spread"])
    base: str = Field(description=_MEANING["base"])
    prefer: str = Field(description=_MEANING["prefer"])


class PlacementBody(BaseModel):
    """What is to be another; what is left out stays as it is, null is the default."""

    model_config = ConfigDict(extra="forbid", strict=True)

    require: str | None = Field(None, max_length=_LONGEST)
    avoid: str | None = Field(None, max_length=_LONGEST)
    regions: str | None = Field(None, max_length=_LONGEST)
    spread: str | None = Field(None, json_schema_extra={"enum": [*SPREADS, None]})
    base: str | None = Field(None, json_schema_extra={"enum": [*BASES, None]})
    prefer: str | None = Field(None, json_schema_extra={"enum": [*PREFERS, None]})


class PlacementAnswer(BaseModel):
    """What is set, and which nodes that forbids."""

    name: str
    settings: PlacementOf
    forbidden: dict[str, str] = Field(description="By node, why none of its agents may go there.")


@router.get("/deployments/{name}/placement", response=answers({200: PlacementAnswer}, 404), auth=needs(VIEW))
def get_placement(request: ApiRequest, name: str) -> PlacementAnswer:
    """Where a deployment's agents go."""
    return PlacementAnswer(**_describe(_find(name)))


@router.patch(
    "/deployments/{name}/placement",
    response=answers({200: PlacementAnswer}, 404, 409, 415),
    auth=needs(CHANGE),
)
def set_placement(request: ApiRequest, name: str, body: PlacementBody) -> PlacementAnswer:
    """Change where a deployment's agents go: those that break it move, one at a time."""
    row = _find(name)
    given = meant(PLACEMENT, body.model_dump(exclude_unset=True), DEFAULT_RULES)
    done = change(row.name, given, request.auth.actor)
    return PlacementAnswer(**_describe(done.deployment))


def _find(name: str) -> Deployment:
    try:
        return find_deployment(name)
    except VerbError as error:
        raise ApiError(404, str(error)) from None


def _describe(row: Deployment) -> dict[str, Any]:
    return {
        "name": row.name,
        "settings": PlacementOf.model_validate(show_placement(row)),
        "forbidden": forbidden_nodes(row),
    }

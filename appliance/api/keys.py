"""API keys: made, listed without their text, revoked."""

import datetime as dt
from typing import Any

from ninja import Query, Router, Status
from pydantic import BaseModel, ConfigDict, Field

from appliance import keys as verbs
from appliance.api.access import ApiRequest, needs
from appliance.api.errors import ApiError
from appliance.api.pages import Page, Paging, answers, late_gateways, page_of
from appliance.models import ApiKey

router = Router(tags=["keys"])

VIEW, ADD, REVOKE = "appliance.view_apikey", "appliance.add_apikey", "appliance.delete_apikey"


class KeyAnswer(BaseModel):
    """What is known of a key: all but its text."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    team: str
    rpm: int | None
    scopes: list[str]
    created_at: dt.datetime
    revoked_at: dt.datetime | None


class KeyBody(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    team: str = Field("", max_length=63)
    rpm: int | None = Field(None, ge=1, le=1_000_000_000, description="Requests per minute; null: no limit.")
    scopes: list[str] = Field(["inference"], max_length=10, description=f"Of {', '.join(verbs.SCOPES)}.")


class CreatedKey(BaseModel):
    """A new key: it is shown this once."""

    name: str
    key: str
    late_gateways: list[str]


class RevokedKey(BaseModel):
    """A key that is refused from now on, but for the gateways that are late."""

    name: str
    late_gateways: list[str]


@router.get("/keys", response=answers({200: Page[KeyAnswer]}), auth=needs(VIEW))
def list_keys(request: ApiRequest, paging: Query[Paging]) -> dict[str, Any]:
    """All keys, also revoked ones, by name."""
    return page_of(ApiKey.objects.all(), paging, KeyAnswer.model_validate)


@router.post("/keys", response=answers({201: CreatedKey}, 409, 415), auth=needs(ADD))
def create_key(request: ApiRequest, body: KeyBody) -> Status[CreatedKey]:
    """Make a key. Its text is in this answer and nowhere else."""
    made = verbs.create_key(
        body.name, team=body.team, rpm=body.rpm, scopes=tuple(body.scopes), actor=request.auth.actor
    )
    answer = CreatedKey(name=made.name, key=made.secret, late_gateways=late_gateways(made.generation))
    return Status(201, answer)


@router.delete("/keys/{name}", response=answers({200: RevokedKey}, 404), auth=needs(REVOKE))
def revoke_key(request: ApiRequest, name: str) -> RevokedKey:
    """End a key. One that was revoked before stays so."""
    if not ApiKey.objects.filter(name=name).exists():
        raise ApiError(404, f"no key is named {name[:80]!a}")
    generation = verbs.revoke_key(name, actor=request.auth.actor)
    return RevokedKey(name=name, late_gateways=late_gateways(generation))

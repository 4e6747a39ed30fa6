"""What was decided, and who asked for what."""

import datetime as dt
from typing import Any

from ninja import Query, Router
from pydantic import BaseModel, ConfigDict

from appliance.api.access import ADMINISTER, ApiRequest, needs
from appliance.api.pages import Page, Paging, answers, page_of
from appliance.models import AuditEvent, Decision

router = Router(tags=["records"])


class DecisionAnswer(BaseModel):
    """Why the number of a deployment's agents changed, or stayed."""

    model_config = ConfigDict(from_attributes=True)

    at: dt.datetime
    deployment: str
    trigger: str
    before: int
    want: int | None
    after: int
    reason: str
    inputs: dict[str, Any]
    clamps: list[Any]
    actions: list[Any]


class DecisionPaging(Paging):
    """Which decisions."""

    deployment: str | None = None


class AuditAnswer(BaseModel):
    """One verb called by somebody."""

    model_config = ConfigDict(from_attributes=True)

    at: dt.datetime
    actor: str
    verb: str
    target: str
    detail: dict[str, Any]


@router.get(
    "/decisions", response=answers({200: Page[DecisionAnswer]}), auth=needs("appliance.view_decision")
)
def list_decisions(request: ApiRequest, asked: Query[DecisionPaging]) -> dict[str, Any]:
    """Decisions of the control loop, newest first."""
    rows = Decision.objects.all()
    if asked.deployment is not None:
        rows = rows.filter(deployment=asked.deployment)
    return page_of(rows, asked, DecisionAnswer.model_validate)


@router.get("/audit", response=answers({200: Page[AuditAnswer]}), auth=needs(ADMINISTER))
def list_audit_events(request: ApiRequest, paging: Query[Paging]) -> dict[str, Any]:
    """Who asked for what, newest first: for people who administer."""
    return page_of(AuditEvent.objects.all(), paging, AuditAnswer.model_validate)

"""Who asked for what."""

import datetime as dt
from typing import Any

from ninja import Query, Router
from pydantic import BaseModel, ConfigDict

from appliance.api.access import ADMINISTER, ApiRequest, needs
from appliance.api.pages import Page, Paging, answers, page_of
from appliance.models import AuditEvent

router = Router(tags=["records"])


class AuditAnswer(BaseModel):
    """One verb called by somebody."""

    model_config = ConfigDict(from_attributes=True)

    at: dt.datetime
    actor: str
    verb: str
    target: str
    detail: dict[str, Any]


@router.get("/audit", response=answers({200: Page[AuditAnswer]}), auth=needs(ADMINISTER))
def list_audit_events(request: ApiRequest, paging: Query[Paging]) -> dict[str, Any]:
    """Who asked for what, newest first: for people who administer."""
    return page_of(AuditEvent.objects.all(), paging, AuditAnswer.model_validate)

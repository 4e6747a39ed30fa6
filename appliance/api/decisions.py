"""Decisions of the control loop: which, why, and whether its record agrees with itself."""

import datetime as dt
import io
from typing import Any

from django.http import HttpResponse
from django.utils import timezone
from ninja import Query, Router
from pydantic import BaseModel, ConfigDict, Field

from appliance import decision_log
from appliance.api.access import ApiRequest, needs
from appliance.api.errors import ApiError
from appliance.api.pages import MAX_PAGE, Page, answers
from appliance.api.scaling import meant
from appliance.deployments import find_deployment
from appliance.errors import VerbError
from appliance.scaling_preview import compare_last_hour, comparison_document

router = Router(tags=["decisions"])

VIEW = "appliance.view_decision"
_TIME = "90s, 30m, 1h or 2d ago, or a time such as 2026-11-21T20:00:00Z."


class DecisionAnswer(BaseModel):
    """Why the number of a deployment's agents changed, or stayed."""

    id: int
    at: dt.datetime
    deployment: str
    trigger: str = Field(description="What made the loop look: tick, want, verb, watchdog or start.")
    kind: str = Field(description="The sort of reason, in one word.")
    before: int
    want: int | None = Field(description="What the load asked, before any limit; null: nobody could tell.")
    after: int
    dry_run: bool = Field(description="Nothing was done: the numbers are those that would have been.")
    reason: str
    wants: dict[str, int | None] = Field(description="What each rule asked; null: it could not tell.")
    clamps: list[Any] = Field(description="What limited or raised the number.")
    actions: list[Any] = Field(description="What was done at once, in words.")
    inputs: dict[str, Any]
    policy: dict[str, Any] = Field(
        description="By key of set_scaling, what is not the default; and what is known of its agents."
    )
    gateways: list[Any] = Field(description="The gateway processes that were heard.")
    explanation: list[str] = Field(description="The decision in sentences.")


class DecisionPage(Page[DecisionAnswer]):
    """A part of the decisions; `next` is the cursor of the part that follows, null: there is none."""

    next: str | None


class DecisionFilter(BaseModel):
    """Which decisions."""

    deployment: str | None = Field(None, max_length=63)
    since: str | None = Field(None, max_length=40, description=_TIME)
    until: str | None = Field(None, max_length=40, description=_TIME)
    kind: str | None = Field(None, max_length=200, description="Kinds of reason, with commas between them.")
    changed: bool = Field(False, description="Only where the number changed.")


class DecisionPaging(DecisionFilter):
    """Which decisions, and which part of them."""

    limit: int = Field(50, ge=1, le=MAX_PAGE, description="At most so many.")
    offset: int = Field(0, ge=0, le=1_000_000, description="Leave out so many first.")
    cursor: str | None = Field(None, max_length=40, description="`next` of an earlier answer.")


@router.get("/decisions", response=answers({200: DecisionPage}), auth=needs(VIEW))
def list_decisions(request: ApiRequest, asked: Query[DecisionPaging]) -> dict[str, Any]:
    """Decisions of the control loop, newest first."""
    rows = decision_log.find_decisions(_chosen(asked))
    total = rows.count()
    try:
        rows = decision_log.after_cursor(rows, asked.cursor) if asked.cursor else rows
    except VerbError as error:
        raise ApiError(400, str(error)) from None
    part = list(rows[asked.offset : asked.offset + asked.limit + 1])
    more, part = len(part) > asked.limit, part[: asked.limit]
    return {
        "items": [decision_log.describe(row) for row in part],
        "total": total,
        "next": decision_log.cursor_of(part[-1]) if more else None,
    }


@router.get(
    "/decisions.csv",
    response=answers({}),
    auth=needs(VIEW),
    openapi_extra={
        "responses": {200: {"description": "OK", "content": {"text/csv": {"schema": {"type": "string"}}}}}
    },
)
def export_decisions(request: ApiRequest, asked: Query[DecisionFilter]) -> HttpResponse:
    """The same as a table for spreadsheets, the newest 10,000."""
    return csv_response(decision_log.find_decisions(_chosen(asked)))


class SideAnswer(BaseModel):
    """What it costs and misses; `highest` is the largest number of agents that was wanted."""

    misses: int
    misses_percent: float
    agent_seconds: float
    cold_starts: int
    changes: int
    highest: int


class ComparisonAnswer(BaseModel):
    """The last hour, simulated under the values as they are and with the changes."""

    seconds: float
    requests: int
    service_s: float
    slots: int
    start_s: float
    slo_wait_s: float = Field(description="A request that waits longer is a miss.")
    old: SideAnswer | None = Field(description="null: there is nothing to compare, see why_not.")
    new: SideAnswer | None
    why_not: str
    left_out: list[str] = Field(description="What is set and cannot be replayed: the others decide.")


class PreviewBody(BaseModel):
    """Values by the keys of set_scaling; null: the default, as in PATCH."""

    model_config = ConfigDict(extra="forbid", strict=True)

    changes: dict[str, str | int | float | bool | list[str] | None]


@router.post(
    "/deployments/{name}/scaling/preview",
    response=answers({200: ComparisonAnswer}, 404, 415),
    auth=needs("appliance.change_deployment"),
)
def preview_scaling(request: ApiRequest, name: str, body: PreviewBody) -> dict[str, Any]:
    """What the last hour would have been under other values. Changes nothing."""
    try:
        find_deployment(name)
    except VerbError as error:
        raise ApiError(404, str(error)) from None
    try:
        changes = {key: meant(key, value) for key, value in body.changes.items()}
        return comparison_document(compare_last_hour(name, changes))
    except VerbError as error:
        raise ApiError(400, str(error)) from None


class RecordChecked(BaseModel):
    """What deciding again, from what was recorded of each tick, found. Times are Unix seconds."""

    equal: bool
    ticks: int
    different: int
    first: float | None
    last: float | None
    longest_gap_s: float
    breaks: list[float] = Field(description="When the policy's memory was not what the tick before left.")


@router.get("/deployments/{name}/record", response=answers({200: RecordChecked}, 404), auth=needs(VIEW))
def check_record(request: ApiRequest, name: str) -> RecordChecked:
    """Decide again what was recorded of the last two hours, tick by tick, and compare."""
    try:
        decision_log.require_known(name)
        found = decision_log.check_record(name)
    except VerbError as error:
        raise ApiError(404, str(error)) from None
    return RecordChecked(
        equal=found.equal, ticks=found.ticks, different=found.different, first=found.first, last=found.last,
        longest_gap_s=found.longest_gap_s, breaks=found.breaks,
    )  # fmt: skip


def csv_response(rows: Any) -> HttpResponse:
    """The newest of these decisions as a file."""
    text = io.StringIO()
    decision_log.write_csv(rows[: decision_log.MOST_EXPORTED], text)
    name = f"decisions-{timezone.now():%Y%m%d-%H%M%S}.csv"
    return HttpResponse(
        text.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _chosen(asked: DecisionFilter) -> decision_log.Chosen:
    now = timezone.now()
    try:
        since, until = (
            decision_log.read_since(text, now) if text else None for text in (asked.since, asked.until)
        )
    except VerbError as error:
        raise ApiError(400, str(error)) from None
    kinds = tuple(filter(None, (asked.kind or "").split(",")))
    return decision_log.Chosen(asked.deployment, since, until, kinds, asked.changed)

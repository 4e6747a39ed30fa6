"""What operations share: lists a page at a time, the answers they have, and waiting for gateways."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.db.models import QuerySet
from pydantic import BaseModel, Field

from appliance.api.errors import ErrorAnswer
from appliance.gateways import wait_for_generation
from appliance.policies.snapshot import Generation

MAX_PAGE = 200
GATEWAYS_TIMEOUT_S = 5.0

Item = TypeVar("Item")


class Paging(BaseModel):
    """Which part of a list."""

    limit: int = Field(50, ge=1, le=MAX_PAGE, description="At most so many.")
    offset: int = Field(0, ge=0, le=1_000_000, description="Leave out so many first.")


class Page(BaseModel, Generic[Item]):
    """A part of a list; `total` counts all of it."""

    items: list[Item]
    total: int


def page_of(rows: "QuerySet[Any]", asked: Paging, describe: Callable[[Any], Item]) -> dict[str, Any]:
    """The part that was asked for, each row described."""
    part = rows[asked.offset : asked.offset + asked.limit]
    return {"items": [describe(row) for row in part], "total": rows.count()}


def answers(good: dict[int, Any], *bad: int) -> dict[int, Any]:
    """The answers of an operation: the good ones, and refusals (400, 401, 403 and 503 are everywhere)."""
    return good | dict.fromkeys(sorted({400, 401, 403, 503, *bad}), ErrorAnswer)


def late_gateways(generation: Generation) -> list[str]:
    """Wait until every gateway that answers serves a change; those that do not within 5 s."""
    return wait_for_generation(settings.ENVIRONMENT.run_dir, generation, timeout_s=GATEWAYS_TIMEOUT_S)

"""How deployments scale: what is set of that, and what was decided last."""

import datetime as dt
from typing import Any

from ninja import Router
from pydantic import BaseModel, ConfigDict, Field, create_model

from appliance.api.access import ApiRequest, needs
from appliance.api.errors import ApiError
from appliance.api.pages import answers, late_gateways
from appliance.decision_log import wants_of
from appliance.deployments import find_deployment
from appliance.errors import VerbError
from appliance.models import Decision, Deployment
from appliance.policies.scaling_keys import KEYS, SCHEDULES, Key
from appliance.policies.schedules import EXAMPLE, MOST_SCHEDULES
from appliance.scaling import set_scaling as change
from appliance.scaling_settings import DRY_RUN, PAUSED, explain_key, show_scaling

router = Router(tags=["deployments"])

VIEW, CHANGE = "appliance.view_deployment", "appliance.change_deployment"
_SCHEDULES = f"Bounds by the clock, as `{EXAMPLE}`."


def _told(name: str, key: Key) -> tuple[Any, Any]:
    kind = int if key.whole else float
    meaning, unset = explain_key(name)
    if not key.clears:
        return (kind, Field(description=meaning))
    return (kind | None, Field(description=f"{meaning} null: {unset}."))


def _asked(name: str, key: Key) -> tuple[Any, Any]:
    bounds: dict[str, Any] = {"ge": key.low, "le": key.high}
    kind = int if key.whole else float
    meaning, unset = explain_key(name)
    if key.field in ("min_agents", "max_agents"):  # these have no default
        return (kind, Field(default_factory=lambda: None, description=meaning, **bounds))
    return (kind | None, Field(None, description=f"{meaning} null: {unset}.", **bounds))


_TOLD: dict[str, Any] = {name: _told(name, key) for name, key in KEYS.items()}
_ASKED: dict[str, Any] = {name: _asked(name, key) for name, key in KEYS.items()}

Scaling: Any = create_model(
    "Scaling",
    __doc__="How a deployment scales; null: none.",
    **_TOLD,
    paused=(bool, Field(description=f"{PAUSED.meaning}.")),
    dry_run=(bool, Field(description=f"{DRY_RUN.meaning}.")),
    schedule=(list[str], Field(description=_SCHEDULES)),
)

ScalingBody: Any = create_model(
    "ScalingBody",
    __config__=ConfigDict(extra="forbid", strict=True),
    __doc__="What is to be another; what is left out stays as it is.",
    **_ASKED,
    paused=(bool | None, Field(None, description=f"{PAUSED.meaning}; null: no.")),
    dry_run=(bool | None, Field(None, description=f"{DRY_RUN.meaning}; null: no.")),
    schedule=(
        list[str] | None,
        Field(
            None, max_length=MOST_SCHEDULES, description=f"{_SCHEDULES} All that there are to be; null: none."
        ),
    ),
)


class LastDecision(BaseModel):
    """The newest decision that is kept: what each rule asked, and what limited or raised the number."""

    at: dt.datetime
    before: int
    want: int | None = Field(description="What the load asked; null: nobody could tell.")
    after: int
    reason: str
    wants: dict[str, int | None] = Field(description="By rule; null: it could not tell.")
    clamps: list[str]
    actions: list[str] = Field(description="What was done at once, in words.")


class ScalingAnswer(BaseModel):
    """How a deployment scales, how many agents are wanted, and why."""

    name: str
    desired: int
    reason: str
    settings: Scaling
    decision: LastDecision | None


class ScalingChangedAnswer(ScalingAnswer):
    """The same after a change, and the gateways that do not serve it yet."""

    late_gateways: list[str]


@router.get("/deployments/{name}/scaling", response=answers({200: ScalingAnswer}, 404), auth=needs(VIEW))
def get_scaling(request: ApiRequest, name: str) -> ScalingAnswer:
    """How a deployment scales, and what was decided last."""
    return ScalingAnswer(**_describe(_find(name)))


@router.patch(
    "/deployments/{name}/scaling",
    response=answers({200: ScalingChangedAnswer}, 404, 409, 415),
    auth=needs(CHANGE),
)
def set_scaling(request: ApiRequest, name: str, body: ScalingBody) -> ScalingChangedAnswer:
    """Change how a deployment scales."""
    row = _find(name)
    given: dict[str, object] = body.model_dump(exclude_unset=True)
    done = change(row.name, {key: meant(key, value) for key, value in given.items()}, request.auth.actor)
    late = late_gateways(done.generation) if done.generation is not None else []
    return ScalingChangedAnswer(**_describe(done.deployment), late_gateways=late)


def meant(key: str, value: object) -> object:
    """Null is the default."""
    if value is not None:
        return value
    if key in (PAUSED.key, DRY_RUN.key):
        return False
    return [] if key == SCHEDULES else "default"


def _find(name: str) -> Deployment:
    try:
        return find_deployment(name)
    except VerbError as error:
        raise ApiError(404, str(error)) from None


def _describe(row: Deployment) -> dict[str, Any]:
    newest = Decision.objects.filter(deployment=row.name).first()
    return {
        "name": row.name,
        "desired": row.desired,
        "reason": row.reason,
        "settings": Scaling.model_validate(show_scaling(row)),
        "decision": None if newest is None else {
            "at": newest.at, "before": newest.before, "want": newest.want, "after": newest.after,
            "reason": newest.reason, "wants": wants_of(newest), "clamps": newest.clamps,
            "actions": newest.actions,
        },
    }  # fmt: skip

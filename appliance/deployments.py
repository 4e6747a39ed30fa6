"""Verbs on deployments: they write what is wanted; the loop makes it so."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.db import transaction

from appliance import audit
from appliance.errors import Conflict, VerbError, explain
from appliance.models import Deployment, InferenceModel, Revision
from appliance.policies.snapshot import Generation
from appliance.publish import touch_routes
from appliance.row_settings import read_fields, show_values
from appliance.scaling_settings import check_scaling
from appliance.serving_settings import SERVING, is_cacheable


@dataclass(frozen=True, slots=True)
class Deployed:
    """What `deploy` did: the deployment, the change's generation, and each value that changed."""

    deployment: Deployment
    generation: Generation
    created: bool
    changes: dict[str, tuple[object, object]]


def deploy(
    name: str, *, model: str, min_agents: int | None = None, max_agents: int | None = None, actor: str
) -> Deployed:
    """Create or update a deployment. What is None stays as it is (a new one has 1 and max(min, 1)).

    Raises VerbError where the name, the model or the bounds are not acceptable; nothing is changed then.
    """
    try:
        with transaction.atomic():
            entry = _ready_model(model)
            deployment, created = _wanted_deployment(name, entry)
            before: dict[str, object] = {"model": None if created else deployment.model.name}
            before |= {"min": deployment.min_agents, "max": deployment.max_agents}
            revision = str(deployment.revision) if deployment.revision else None
            _set_bounds(deployment, min_agents, max_agents, new=created)
            deployment.model = entry
            deployment.clean_fields(exclude=("revision", "model"))
            if min_agents is not None or max_agents is not None:
                check_scaling(deployment)
            deployment.save()
            _set_revision(deployment, entry)
            after = {"model": entry.name, "min": deployment.min_agents, "max": deployment.max_agents}
            changes: dict[str, tuple[object, object]] = {
                k: (before[k], after[k]) for k in after if created or before[k] != after[k]
            }
            if not created and str(deployment.revision) != revision:
                changes["revision"] = (revision, str(deployment.revision))
            audit.record(actor, "deploy", name, **{key: new for key, (_, new) in changes.items()})
            return Deployed(deployment, touch_routes(), created, changes)
    except ValidationError as error:
        raise explain(error) from None


@dataclass(frozen=True, slots=True)
class ServingChanged:
    """What `set_serving` did: each value that is another now (old, new), and the change's generation.

    There is no generation where nothing is another.
    """

    deployment: Deployment
    generation: Generation | None
    changes: dict[str, tuple[object, object]]


def set_serving(name: str, changes: Mapping[str, object], actor: str) -> ServingChanged:
    """Change how a deployment is served; `changes` holds values by the keys of `SERVING`.

    Raises VerbError where the name, a key or a value is not acceptable, Conflict where the deployment is
    being removed; nothing is changed then.
    """
    fields = read_fields(SERVING, changes)
    with transaction.atomic():
        deployment = find_deployment(name)
        if deployment.removing:
            raise Conflict(f"deployment {name!r} is being removed; deploy it again once it is gone")
        if fields.get("cache_bytes") and not is_cacheable(deployment.model.task):
            raise VerbError(
                f"cache_mb {changes['cache_mb']!r} is not accepted: an answer of the task "
                f"{deployment.model.task!r} is another each time, so 0 is, as cache_mb=0"
            )
        before = show_values(SERVING, deployment)
        for field, value in fields.items():
            setattr(deployment, field, value)
        after = show_values(SERVING, deployment)
        changed: dict[str, tuple[object, object]] = {
            key: (before[key], new) for key, new in after.items() if before[key] != new
        }
        if not changed:
            return ServingChanged(deployment, None, {})
        deployment.save(update_fields=list(fields))
        audit.record(actor, "set_serving", name, **{key: new for key, (_, new) in changed.items()})
        return ServingChanged(deployment, touch_routes(), changed)


def undeploy(name: str, *, actor: str) -> Generation:
    """Take a deployment out of service: no new requests, agents drained, then the row goes away.

    Safe to repeat while it drains. Raises VerbError where there is none of that name.
    """
    with transaction.atomic():
        deployment = find_deployment(name)
        if not deployment.removing:
            deployment.removing = True
            deployment.save(update_fields=["removing"])
            audit.record(actor, "undeploy", name)
        return touch_routes()


def find_deployment(name: str) -> Deployment:
    """The deployment of that name. Raises VerbError naming those that exist."""
    try:
        return Deployment.objects.select_related("model").get(name=name)
    except Deployment.DoesNotExist:
        known = ", ".join(Deployment.objects.values_list("name", flat=True)[:20])
        raise VerbError(f"no deployment is named {name!r}; there are: {known or '(none)'}") from None


def _ready_model(name: str) -> InferenceModel:
    entry = InferenceModel.objects.filter(name=name).first()
    if entry is None:
        known = ", ".join(InferenceModel.objects.values_list("name", flat=True)[:20])
        raise VerbError(
            f"no model is named {name!r}; there are: {known or '(none)'}: "
            "`manage.py import_model NAME --from SOURCE` adds one"
        )
    if entry.state != InferenceModel.State.READY:
        raise Conflict(f"model {name!r} is {entry.state}, not ready: {entry.error or 'wait for its import'}")
    return entry


def _wanted_deployment(name: str, entry: InferenceModel) -> tuple[Deployment, bool]:
    deployment = Deployment.objects.select_related("model").filter(name=name).first()
    if deployment is None:
        return Deployment(name=name, model=entry), True
    if deployment.removing:
        raise Conflict(f"deployment {name!r} is being removed; deploy it again once it is gone")
    return deployment, False


def _set_bounds(deployment: Deployment, min_agents: int | None, max_agents: int | None, *, new: bool) -> None:
    if min_agents is not None:
        deployment.min_agents = min_agents
        if max_agents is None and new:
            deployment.max_agents = max(1, min_agents)
    if max_agents is not None:
        deployment.max_agents = max_agents
        if min_agents is None and new:
            deployment.min_agents = min(deployment.min_agents, max_agents)
    if deployment.max_agents < deployment.min_agents:
        raise VerbError(
            f"max {deployment.max_agents} is below min {deployment.min_agents}: max must be at least min"
        )


def _set_revision(deployment: Deployment, entry: InferenceModel) -> None:
    """A new revision where the model's content is another; a re-import of the same content is none."""
    current = deployment.revision
    if current is not None and current.digest == entry.digest:
        return
    last = deployment.revisions.order_by("-number").first()
    deployment.revision = Revision.objects.create(
        deployment=deployment, number=(last.number if last else 0) + 1, model=entry, digest=entry.digest
    )
    deployment.save(update_fields=["revision"])

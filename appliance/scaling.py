"""The verb by which people say how a deployment scales; the loop makes it so."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db import transaction

from appliance import audit
from appliance.deployments import find_deployment
from appliance.errors import Conflict
from appliance.models import Deployment
from appliance.policies.snapshot import Generation
from appliance.publish import touch_routes
from appliance.scaling_settings import apply_changes, show_scaling

_FIELDS = ("min_agents", "max_agents", "target_in_flight", "paused", "scaling")
#: What routes tell gateways of.
_IN_ROUTES = frozenset({"min", "max", "paused", "hold", "dry_run", "target_queue_wait_ms"})


@dataclass(frozen=True, slots=True)
class ScalingChanged:
    """What `set_scaling` did: each value that is another now (old, new), and the generation of the routes.

    There is no generation where the routes are as they were.
    """

    deployment: Deployment
    generation: Generation | None
    changes: dict[str, tuple[object, object]]


def set_scaling(name: str, changes: Mapping[str, object], actor: str) -> ScalingChanged:
    """Change how a deployment scales; `changes` holds values by key, as `scaling_settings` reads them.

    Raises VerbError where the name, a key or a value is not acceptable, Conflict where the deployment is
    being removed; nothing is changed then.
    """
    with transaction.atomic():
        deployment = find_deployment(name)
        if deployment.removing:
            raise Conflict(f"deployment {name!r} is being removed; deploy it again once it is gone")
        before = show_scaling(deployment)
        apply_changes(deployment, changes)
        after = show_scaling(deployment)
        changed: dict[str, tuple[object, object]] = {
            key: (before[key], new) for key, new in after.items() if before[key] != new
        }
        if not changed:
            return ScalingChanged(deployment, None, {})
        deployment.save(update_fields=_FIELDS)
        audit.record(actor, "set_scaling", name, **{key: new for key, (_, new) in changed.items()})
        generation = touch_routes() if _IN_ROUTES & changed.keys() else None
        return ScalingChanged(deployment, generation, changed)

"""The verb by which people say where a deployment's agents go; the loop makes it so."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db import transaction

from appliance import audit
from appliance.deployments import find_deployment
from appliance.errors import Conflict
from appliance.models import Deployment, Node
from appliance.placement_settings import PLACEMENT, with_changes
from appliance.policies.placement_rules import PlacementRules, rules_from_json
from appliance.row_settings import Value, read_fields, show_values


@dataclass(frozen=True, slots=True)
class PlacementChanged:
    """What `set_placement` did: each value that is another now (old, new)."""

    deployment: Deployment
    changes: dict[str, tuple[object, object]]


def set_placement(name: str, changes: Mapping[str, object], actor: str) -> PlacementChanged:
    """Change where a deployment's agents go; `changes` holds values by the keys of `PLACEMENT`.

    Agents that break it move one at a time. Raises VerbError where the name, a key or a value is not
    acceptable, Conflict where the deployment is being removed; nothing is changed then.
    """
    fields = read_fields(PLACEMENT, changes)
    with transaction.atomic():
        deployment = find_deployment(name)
        if deployment.removing:
            raise Conflict(f"deployment {name!r} is being removed; deploy it again once it is gone")
        before = rules_of(deployment)
        after = with_changes(before, fields)
        old, new = show_values(PLACEMENT, before), show_values(PLACEMENT, after)
        changed: dict[str, tuple[object, object]] = {
            key: (old[key], value) for key, value in new.items() if old[key] != value
        }
        if changed:
            deployment.placement = after.to_json()
            deployment.save(update_fields=["placement"])
            audit.record(actor, "set_placement", name, **{key: value for key, (_, value) in changed.items()})
        return PlacementChanged(deployment, changed)


def rules_of(deployment: Deployment) -> PlacementRules:
    """What is set of it, the rest at its default."""
    return rules_from_json(deployment.placement)


def show_placement(deployment: Deployment) -> dict[str, Value]:
    """All settings by key, as people say them."""
    return show_values(PLACEMENT, rules_of(deployment))


def forbidden_nodes(deployment: Deployment) -> dict[str, str]:
    """By node why agents of it may not go there; without those where they may."""
    rules = rules_of(deployment)
    rows = Node.objects.filter(retired_at__isnull=True)
    found = {row.name: rules.why_not({str(k): str(v) for k, v in row.labels.items()}) for row in rows}
    return {name: why for name, why in found.items() if why}

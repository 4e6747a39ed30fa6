"""Verbs on nodes' power: they write what is wanted; the loop makes it so. None of them touches a box."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from appliance import audit
from appliance.errors import VerbError
from appliance.fleet import node_state
from appliance.models import Node, PowerRules
from appliance.models.power import power_rules
from appliance.nodes import operable_node
from appliance.policies.power_facts import DID_NOT_SLEEP, DID_NOT_WAKE
from appliance.power_settings import POWER
from appliance.row_settings import Value, read_fields, show_values
from provisioning.power import why_unusable

HOWS = ("suspend", "power_off")


@dataclass(frozen=True, slots=True)
class PowerChanged:
    """What `set_power` changed: old and new by key."""

    rules: PowerRules
    changes: dict[str, tuple[Value, Value]]


def suspend_node(name: str, *, how: str = "", no_wake: bool = False, actor: str) -> Node:
    """Put a node to sleep once its agents have left; it sleeps until people wake it, or agents need it.

    `how` is suspend or power_off, '' for what the fleet's setting says. A node without a way to be woken is
    refused, unless `no_wake` accepts that people switch it on. Safe to repeat. Raises VerbError.
    """
    if how not in ("", *HOWS):
        raise VerbError(f"how {how[:40]!r} is not accepted: {' or '.join(HOWS)} is")
    with transaction.atomic():
        node = operable_node(name, Node.Operation.NONE, "put to sleep")
        if not node.power and not no_wake:
            raise VerbError(
                f"node {name!r} has no power set, so nothing could wake it: set it (wol:MAC or exec:NAME), "
                "or accept with --no-wake that it is switched on by hand"
            )
        unusable = why_unusable(node.power, settings.ENVIRONMENT.power_dir) if node.power else ""
        if unusable and not no_wake:
            raise VerbError(f"node {name!r} could not be woken again: {unusable}")
        if node.power_wanted == Node.PowerOrder.ASLEEP:
            return node
        _order(node, Node.PowerOrder.ASLEEP, how)
        audit.record(actor, "suspend_node", name, **({"how": how} if how else {}))
        return node


def wake_node(name: str, *, actor: str) -> Node:
    """Wake a node that sleeps, or is not there. Nothing where it is awake. Safe to repeat. Raises VerbError.

    One without a way to be woken is only looked for again: people switch it on.
    """
    with transaction.atomic():
        node = operable_node(name, None, "woken")
        is_there = node_state(node, timezone.now().timestamp()) not in ("unreachable", "asleep", "waking")
        ordered = node.power_wanted == Node.PowerOrder.ASLEEP
        if (is_there and not node.power_stage and not ordered) or node.power_wanted == Node.PowerOrder.AWAKE:
            return node
        if not node.power and not node.power_stage and not ordered:
            raise VerbError(
                f"node {name!r} has no power set: switch it on by hand, or set wol:MAC or exec:NAME"
            )
        _order(node, Node.PowerOrder.AWAKE, node.power_how)
        audit.record(actor, "wake_node", name)
        return node


def set_power(given: Mapping[str, object], actor: str) -> PowerChanged:
    """Change when nodes sleep and wake; what did not sleep or wake before is tried again.

    Raises VerbError naming the key and what is accepted.
    """
    fields = read_fields(POWER, given)
    with transaction.atomic():
        rules = power_rules()
        before = show_values(POWER, rules)
        for field, value in fields.items():
            setattr(rules, field, value)
        after = show_values(POWER, rules)
        changes = {key: (before[key], after[key]) for key in after if before[key] != after[key]}
        if changes:
            rules.save()
            for node in Node.objects.exclude(problems=[]):
                _forget_failures(node)
                node.save(update_fields=["problems"])
            audit.record(actor, "set_power", "fleet", **{key: new for key, (_, new) in changes.items()})
        return PowerChanged(rules, changes)


def _order(node: Node, order: Node.PowerOrder, how: str) -> None:
    """What went wrong before is forgotten: it is tried again at once."""
    node.power_wanted, node.power_how = order, how
    _forget_failures(node)
    node.save(update_fields=["power_wanted", "power_how", "problems"])


def _forget_failures(node: Node) -> None:
    """Of the row in hand, which is not saved here."""
    node.problems = [one for one in node.problems if one.get("code") not in (DID_NOT_SLEEP, DID_NOT_WAKE)]

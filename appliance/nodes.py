"""Verbs on nodes: they write what is wanted; the loop makes it so. None of them touches a box."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from appliance import audit
from appliance.errors import VerbError
from appliance.models import Agent, Enrolment, Node
from appliance.models.json_columns import Damaged
from appliance.models.nodes import LOCAL_NODE
from appliance.node_attributes import check_attributes
from appliance.publish import touch_routes

UPGRADE_FAILED, REBOOT_FAILED = "upgrade_failed", "reboot_failed"
OPEN_ENROLMENTS = (Enrolment.State.WAITING, Enrolment.State.RUNNING)


def find_node(name: str) -> Node:
    """The node of that name, also a retired one. Raises VerbError naming those that there are."""
    node = Node.objects.filter(name=name).first()
    if node is None:
        known = ", ".join(Node.objects.filter(retired_at__isnull=True).values_list("name", flat=True)[:20])
        raise VerbError(f"no node is named {name!r}; there are: {known or '(none)'}")
    return node


def cordon_node(name: str, *, actor: str) -> Node:
    """No new agents there; those that are stay. A drained node stays drained.

    Raises VerbError where there is no such node, or it is retired.
    """
    with transaction.atomic():
        node = _present(name)
        if node.wanted != Node.Wanted.DRAINED:
            _want(node, Node.Wanted.CORDONED, "cordon_node", actor)
        return node


def uncordon_node(name: str, *, actor: str) -> Node:
    """Back to normal service after a cordon or a drain. Raises VerbError as `cordon_node` does."""
    with transaction.atomic():
        node = _present(name)
        _want(node, Node.Wanted.READY, "uncordon_node", actor)
        return node


def drain_node(name: str, *, actor: str) -> Node:
    """All agents leave, and none come. Raises VerbError as `cordon_node` does."""
    with transaction.atomic():
        node = _present(name)
        _want(node, Node.Wanted.DRAINED, "drain_node", actor)
        return node


def reboot_node(name: str, *, actor: str) -> Node:
    """Restart the machine once its agents have left service; they come back. Safe to repeat meanwhile.

    Raises VerbError where there is no such node, it is not enrolled, or another operation is under way.
    """
    with transaction.atomic():
        node = operable_node(name, Node.Operation.REBOOT, "rebooted")
        if node.operation != Node.Operation.REBOOT:
            node.problems = [one for one in node.problems if one.get("code") != REBOOT_FAILED]
            _order(node, Node.Operation.REBOOT)
            audit.record(actor, "reboot_node", name)
        return node


def calibrate_node(name: str, *, actor: str) -> Node:
    """Have the speed of its agents' models measured there, one agent at a time. Safe to repeat meanwhile.

    Raises VerbError where there is no such node, or no ready agent is on it.
    """
    with transaction.atomic():
        node = _present(name)
        if not node.agents.filter(wanted=Agent.Wanted.WARM, state=Agent.State.READY).exists():
            raise VerbError(f"node {name!r} has no ready agent to measure: deploy a model first")
        if node.calibration_at is None:
            node.calibration_at, node.calibration_error = timezone.now(), ""
            node.save(update_fields=["calibration_at", "calibration_error"])
            audit.record(actor, "calibrate_node", name)
        return node


def upgrade_nodes(names: Sequence[str] | None, *, actor: str) -> list[Node]:
    """Bring the present release and steward to these nodes, or to all (None); the loop goes one by one.

    A former failure is forgotten. Raises VerbError as `reboot_node` does, with nothing ordered then; of
    all nodes, those with another operation under way are left out.
    """
    with transaction.atomic():
        if names is None:
            there = Node.objects.filter(enrolled_at__isnull=False, retired_at__isnull=True)
            free = there.exclude(name=LOCAL_NODE).exclude(wanted=Node.Wanted.RETIRED)
            nodes = list(free.filter(operation__in=(Node.Operation.NONE, Node.Operation.UPGRADE)))
        else:
            one_by_one = dict.fromkeys(names)
            nodes = [operable_node(name, Node.Operation.UPGRADE, "upgraded") for name in one_by_one]
        for node in nodes:
            if node.operation != Node.Operation.UPGRADE:
                node.problems = [one for one in node.problems if one.get("code") != UPGRADE_FAILED]
                _order(node, Node.Operation.UPGRADE)
                audit.record(actor, "upgrade_node", node.name)
        return nodes


def retire_node(name: str, *, force: bool = False, actor: str) -> Node:
    """Take a node out for good: agents leave, then all that is ours is removed from the box.

    With `force` the box is not touched, for one that is lost: its agents go from the routes at once.
    Safe to repeat. Raises VerbError where there is no such node, or it is the appliance's own.
    """
    with transaction.atomic():
        node = find_node(name)
        _refuse_local(node, "retired")
        if node.retired_at is not None:
            return node
        before = (node.wanted, node.retired_at)
        if node.wanted != Node.Wanted.RETIRED:
            node.operation, node.operation_stage = Node.Operation.NONE, ""
            node.calibration_at = None
            node.wanted, node.wanted_at = Node.Wanted.RETIRED, timezone.now()
        if force:
            node.retired_at = timezone.now()
            if Agent.objects.filter(node=node).delete()[0]:
                touch_routes()
        node.save(
            update_fields=[
                "wanted", "wanted_at", "operation", "operation_stage", "calibration_at", "retired_at"
            ]
        )  # fmt: skip
        node.enrolments.filter(state__in=OPEN_ENROLMENTS).update(
            state=Enrolment.State.FAILED, code="retired", error="the node was retired meanwhile", hint="",
            sealed=None, lease_owner="", lease_expires_at=None, finished_at=timezone.now(),
        )  # fmt: skip
        if before != (node.wanted, node.retired_at):
            audit.record(actor, "retire_node", name, force=force)
        return node


def set_node(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    region: str | None = None,
    cost_per_hour: Decimal | str | float | None = None,
    preemptible: bool | None = None,
    power: str | None = None,
    actor: str,
) -> dict[str, tuple[object, object]]:
    """Change attributes; what is None stays as it is, '' clears a text or the cost.

    Returns each that changed as (old, new). Raises VerbError naming the value and what is accepted.
    """
    given = {
        "labels": labels, "region": region, "cost_per_hour": cost_per_hour,
        "preemptible": preemptible, "power": power,
    }  # fmt: skip
    attributes = check_attributes(given)
    with transaction.atomic():
        node = _present(name)
        changes = apply_attributes(node, attributes)
        node.save(update_fields=list(changes))
        if changes:
            audit.record(actor, "set_node", name, **{key: _plain(new) for key, (_, new) in changes.items()})
        return changes


def apply_attributes(node: Node, attributes: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """Set checked attributes on a row that is not saved here; each that changed as (old, new)."""
    changes: dict[str, tuple[object, object]] = {}
    for key, value in attributes.items():
        new = (Decimal(str(value)) if value else None) if key == "cost_per_hour" else value
        old = getattr(node, key)
        if old != new or isinstance(old, Damaged):
            changes[key] = (old, new)
            setattr(node, key, new)
    return changes


def refuse_problems(nodes: Iterable[Node], code: str) -> list[str]:
    """One line for each node that has a problem of this code: its name, what is wrong, and what to do."""
    return [
        f"{node.name}: {'; '.join(filter(None, (problem.get('message'), problem.get('remedy'))))}"
        for node in nodes
        for problem in node.problems
        if problem.get("code") == code
    ]


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Decimal) else value


def _present(name: str) -> Node:
    node = find_node(name)
    if node.retired_at is not None:
        raise VerbError(f"node {name!r} is retired; enroll it again to use it")
    if node.wanted == Node.Wanted.RETIRED:
        raise VerbError(f"node {name!r} is being retired; nothing else can be done with it")
    return node


def operable_node(name: str, operation: Node.Operation | None, what: str) -> Node:
    """An enrolled node with nothing but this operation under way (None: whatever is); `what` is done to it.

    Raises VerbError.
    """
    node = _present(name)
    _refuse_local(node, what)
    if node.enrolled_at is None:
        raise VerbError(f"node {name!r} is not enrolled yet: wait for it, or enroll it again")
    if operation is not None and node.operation not in (Node.Operation.NONE, operation):
        raise VerbError(f"node {name!r} is not done with its {node.operation} yet: wait until it is")
    return node


def _refuse_local(node: Node, what: str) -> None:
    if node.is_local:
        raise VerbError(f"node {LOCAL_NODE!r} is the appliance's own machine and is not {what} from here")


def _want(node: Node, wanted: Node.Wanted, verb: str, actor: str) -> None:
    if node.wanted != wanted:
        node.wanted, node.wanted_at = wanted, timezone.now()
        node.save(update_fields=["wanted", "wanted_at"])
        audit.record(actor, verb, node.name)


def _order(node: Node, operation: Node.Operation) -> None:
    node.operation, node.operation_stage, node.operation_boot_id = operation, "", node.boot_id
    node.operation_at = node.operation_stage_at = timezone.now()
    node.save(
        update_fields=[
            "operation", "operation_stage", "operation_at", "operation_stage_at", "operation_boot_id",
            "problems",
        ]
    )  # fmt: skip

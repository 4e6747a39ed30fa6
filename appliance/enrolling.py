"""Verbs on enrolments: they check what is asked and write a row; whoever holds its lease does the work."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from appliance import audit
from appliance.control.lease import owner_is_dead
from appliance.errors import VerbError
from appliance.models import Enrolment, Node
from appliance.models.nodes import LOCAL_NODE
from appliance.node_attributes import (
    check_address,
    check_attributes,
    check_name,
    check_port,
    check_user,
    default_name,
)
from appliance.nodes import OPEN_ENROLMENTS, apply_attributes
from appliance.sealing import SEALED_S, seal
from provisioning.errors import HostKeyChanged, NodeError, ProvisioningError
from provisioning.hostkeys import HostKey, check_pin, parse_pin
from provisioning.login import Password, SshAgent, Way

LEASE_S = 15.0
MAX_ERROR = 1000
#: Enrolments that are over are kept for the record, so many of them.
KEPT_OF_A_NAME, KEPT = 20, 5000


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """What people say of a box. `host_key` is its fingerprint; without `name` it is called after its address.

    `attributes` are those of `node_attributes.ATTRIBUTES` that were said.
    """

    address: str
    host_key: str
    host_key_kind: str = ""
    name: str = ""
    port: int = 22
    user: str = "root"
    attributes: Mapping[str, object] = field(default_factory=dict)


class EnrolmentRefused(VerbError):
    """A request that conflicts with what there is; `code` says how, in one word."""

    def __init__(self, message: str, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code


class Interrupted(Exception):
    """The row was taken over, ended or removed: nothing more is written."""


@dataclass(frozen=True, slots=True)
class Held:
    """A running enrolment under lease: writes come through here, and only while it is ours."""

    enrolment: int
    owner: str
    attempt: int

    def write(self, **changes: Any) -> None:
        """Change the row and renew the lease. Raises Interrupted."""
        until = Now() + dt.timedelta(seconds=LEASE_S)
        if not self._rows().update(**{"lease_expires_at": until, **changes}):
            raise Interrupted

    def hand_over(self) -> None:
        """Leave what is next to the worker. Raises Interrupted."""
        self.write(state=Enrolment.State.WAITING, stage="", lease_owner="", lease_expires_at=None)

    def put_off(self, error: ProvisioningError, delay_s: float) -> None:
        """Wait for the next try; the error stays visible meanwhile. Raises Interrupted."""
        again = Now() + dt.timedelta(seconds=delay_s)
        self.write(
            state=Enrolment.State.WAITING, lease_owner="", lease_expires_at=again, **describe_error(error)
        )

    def finish(self, **changes: Any) -> None:
        """End well. Raises Interrupted."""
        told = {"code": "", "error": "", "hint": "", **changes}
        self.write(**_ended(Enrolment.State.DONE), **told)

    def fail(self, code: str, error: str, hint: str = "") -> None:
        """End badly; nothing happens to a row that is not ours any more."""
        self._rows().update(
            **_ended(Enrolment.State.FAILED), code=code, error=error[:MAX_ERROR], hint=hint[:MAX_ERROR]
        )

    def _rows(self) -> Any:
        return Enrolment.objects.filter(
            pk=self.enrolment, state=Enrolment.State.RUNNING, lease_owner=self.owner, attempt=self.attempt
        )


def request_enrolment(request: EnrolmentRequest, way: Way | None, *, actor: str) -> Enrolment:
    """Have the worker enroll a box with a password or a private key's text, which is sealed into the row.

    Without a way the appliance's own key is used, which opens a box that first contact was made with. A box
    that the worker is at work on already is not asked for twice. Raises VerbError (EnrolmentRefused where
    it conflicts with what there is); nothing is written then.
    """
    wanted = _checked(request)
    sealed = None if way is None else seal(settings.ENVIRONMENT, way)
    with transaction.atomic():
        node = _meet(wanted)
        if way is None and (node is None or not node.account):
            raise VerbError(f"{wanted.address} was never reached: give a password or a private key")
        running = _join(wanted, node)
        if running is not None and way is None:
            return running
        wanted.way, wanted.actor = _way_of(way), actor[:150]
        wanted.node = node if way is None else None
        if sealed is not None:
            wanted.sealed = sealed
            wanted.sealed_until = timezone.now() + dt.timedelta(seconds=SEALED_S)
        _replace(wanted)
        wanted.save()
        if way is None and node is not None:
            _apply(node, wanted.attributes)
        _audit(wanted)
    return wanted


def begin_enrolment(
    request: EnrolmentRequest, way: Way, *, owner: str, actor: str
) -> tuple[Enrolment, Held | None]:
    """Write the row of an enrolment whose first contact this process makes, under a lease of `owner`.

    Where first contact was made and the worker is at the rest, its row is returned, with None.
    Raises VerbError as `request_enrolment` does.
    """
    wanted = _checked(request)
    with transaction.atomic():
        node = _meet(wanted)
        running = _join(wanted, node)
        if running is not None:
            return running, None
        _replace(wanted)
        wanted.way, wanted.actor, wanted.attempt = _way_of(way), actor[:150], 1
        wanted.state, wanted.lease_owner = Enrolment.State.RUNNING, owner
        wanted.lease_expires_at = timezone.now() + dt.timedelta(seconds=LEASE_S)
        wanted.stage = "first contact"
        wanted.save()
        _audit(wanted)
    return wanted, Held(wanted.pk, owner, wanted.attempt)


def known_host_key(address: str, port: int) -> HostKey | None:
    """What is pinned for a box that is a node already; None for any other. Raises VerbError."""
    node = _node_at(check_address(address), check_port(port))
    return HostKey(node.host_key, node.host_key_kind) if node is not None and node.host_key else None


def describe_error(error: ProvisioningError) -> dict[str, str]:
    """A row's fields for an error."""
    return {"code": error.code, "error": str(error)[:MAX_ERROR], "hint": error.remedy[:MAX_ERROR]}


def enrolment_is_live(row: Enrolment) -> bool:
    """Whether somebody is at work on a running row: its lease is fresh and its owner not known to be gone."""
    fresh = Enrolment.objects.filter(pk=row.pk, lease_expires_at__gt=Now()).exists()
    return fresh and not owner_is_dead(row.lease_owner)


def _checked(request: EnrolmentRequest) -> Enrolment:
    """The row that is asked for, not saved; its name may still be ''. Raises VerbError."""
    try:
        pin = parse_pin(request.host_key)
    except NodeError as error:
        raise VerbError(error.line) from None
    if request.name:
        check_name(request.name)
    if request.name == LOCAL_NODE:
        raise VerbError(f"name {LOCAL_NODE!r} is the appliance's own machine: take another --name")
    return Enrolment(
        name=request.name,
        address=check_address(request.address),
        port=check_port(request.port),
        user=check_user(request.user),
        host_key=pin.fingerprint,
        host_key_kind=request.host_key_kind,
        attributes=check_attributes(request.attributes),
    )


def _meet(wanted: Enrolment) -> Node | None:
    """The node that is at that address already; the row gets its name. Raises EnrolmentRefused."""
    node = _node_at(wanted.address, wanted.port)
    place = f"{wanted.address} port {wanted.port}"
    if node is None:
        wanted.name = wanted.name or default_name(wanted.address)
        _refuse_taken(wanted, place)
        return None
    if wanted.name and wanted.name != node.name:
        raise EnrolmentRefused(
            f"{place} is node {node.name!r} already: leave out the name {wanted.name!r}, or retire it first"
        )
    if node.wanted == Node.Wanted.RETIRED:
        raise EnrolmentRefused(
            f"node {node.name!r} is being retired: enroll it again once it is gone, "
            "or retire it with --force where the box is lost"
        )
    wanted.name = node.name
    if node.host_key:
        try:
            shown = HostKey(wanted.host_key, wanted.host_key_kind)
            check_pin(HostKey(node.host_key, node.host_key_kind), shown, place)
        except HostKeyChanged as changed:
            raise EnrolmentRefused(changed.line, changed.code) from None
        wanted.host_key_kind = wanted.host_key_kind or node.host_key_kind
    return node


def _refuse_taken(wanted: Enrolment, place: str) -> None:
    if wanted.name == LOCAL_NODE:
        raise EnrolmentRefused(f"{place} would be called {LOCAL_NODE!r}, which is taken: give --name")
    other = Node.objects.filter(name=wanted.name, retired_at__isnull=True).first()
    if other is not None:
        raise EnrolmentRefused(
            f"name {wanted.name!r} is taken by {other.address} port {other.port}: give {place} another --name"
        )
    for row in Enrolment.objects.filter(name=wanted.name, state__in=OPEN_ENROLMENTS):
        if (row.address, row.port) != (wanted.address, wanted.port):
            raise EnrolmentRefused(
                f"name {wanted.name!r} is being given to {row.address} port {row.port}: "
                f"give {place} another --name"
            )


def _join(wanted: Enrolment, node: Node | None) -> Enrolment | None:
    """An open row of that box past first contact. Raises EnrolmentRefused where another just makes that."""
    row: Enrolment
    for row in _open_rows(wanted):
        if node is not None and row.node_id == node.pk:
            _apply(node, wanted.attributes)
            waiting = Enrolment.objects.filter(pk=row.pk, state=Enrolment.State.WAITING)
            waiting.update(lease_expires_at=None)  # somebody is there: it is tried at once
            return row
        if row.state == Enrolment.State.RUNNING and enrolment_is_live(row):
            raise EnrolmentRefused(
                f"{row.name!r} at {row.address} is being enrolled already, by {row.actor or 'another'}: "
                "wait until that is over",
                "busy",
            )
    return None


def _replace(wanted: Enrolment) -> None:
    """What was asked for the same box before and is not at work gives way; old records are forgotten."""
    over = Enrolment.objects.exclude(state__in=OPEN_ENROLMENTS).order_by("-pk")
    for rows, kept in ((over.filter(name=wanted.name), KEPT_OF_A_NAME), (over, KEPT)):
        beyond = rows.values_list("pk", flat=True)[kept : kept + 1].first()
        if beyond is not None:
            rows.filter(pk__lte=beyond).delete()
    _open_rows(wanted).update(
        **_ended(Enrolment.State.FAILED), code="replaced", error="a newer request took its place", hint=""
    )


def _open_rows(wanted: Enrolment) -> Any:
    return Enrolment.objects.filter(
        Q(address=wanted.address, port=wanted.port) | Q(name=wanted.name), state__in=OPEN_ENROLMENTS
    )


def _node_at(address: str, port: int) -> Node | None:
    there = Node.objects.filter(address=address, retired_at__isnull=True)
    # The appliance's own machine has no sshd of ours: a test box may share its address.
    return there.filter(port=port).exclude(name=LOCAL_NODE).first()


def _apply(node: Node, attributes: Mapping[str, object]) -> None:
    changes = apply_attributes(node, attributes)
    if changes:
        node.save(update_fields=list(changes))


def _ended(state: str) -> dict[str, Any]:
    return {
        "state": state, "sealed": None, "lease_owner": "", "lease_expires_at": None,
        "finished_at": timezone.now(),
    }  # fmt: skip


def _audit(wanted: Enrolment) -> None:
    audit.record(
        wanted.actor or "unknown", "enroll_node", wanted.name,
        address=wanted.address, port=wanted.port, user=wanted.user, host_key=wanted.host_key, way=wanted.way,
    )  # fmt: skip


def _way_of(way: Way | None) -> str:
    match way:
        case Password():
            return str(Enrolment.Way.PASSWORD)
        case SshAgent():
            return str(Enrolment.Way.AGENT)
        case _:
            return str(Enrolment.Way.KEY)

"""First contact with a box by whoever holds the credential, and the log of what was done there."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache

from django.db import transaction

from appliance.enrolling import Held
from appliance.models import Enrolment, Node, RemoteStep
from appliance.nodes import apply_attributes
from provisioning import ssh
from provisioning.bundle import build_steward
from provisioning.enrolment import Connect, Enrolled, make_first_contact
from provisioning.errors import ProvisioningError, printable
from provisioning.facts.hardware import Hardware
from provisioning.hostkeys import HostKey
from provisioning.identity import Identity
from provisioning.login import Address, KeyText, Password, Way
from provisioning.planning import Wanted
from provisioning.runner import LogLine

#: Of each enrolment, so many of the newest steps are kept, and those of the try under way.
MAX_STEPS = 500
#: Steps that look, and change nothing on the box.
LOOKING = frozenset({"become root", "read facts", "check", "greet the steward", "collect the runtime"})


class StepLog:
    """Writes each step as a row, without the credential, should the box say it back."""

    def __init__(self, enrolment: Enrolment, way: Way | None = None, node: Node | None = None) -> None:
        self._enrolment = enrolment
        self._way = way
        self._node = node
        self._written = 0

    def __call__(self, line: LogLine) -> None:
        if self._written % MAX_STEPS == 0:
            self._prune()
        self._written += 1
        RemoteStep.objects.create(
            enrolment=self._enrolment,
            node=self._node,
            step=line.step[:100],
            outcome=line.outcome,
            seconds=round(line.seconds, 3),
            detail=hide_secret(line.detail, self._way)[:1000],
        )

    def _prune(self) -> None:
        steps = RemoteStep.objects.filter(enrolment=self._enrolment).order_by("-pk")
        beyond = steps.values_list("pk", flat=True)[MAX_STEPS : MAX_STEPS + 1].first()
        if beyond is not None:
            steps.filter(pk__lte=beyond).delete()


def contact_box(
    row: Enrolment,
    held: Held,
    way: Way,
    *,
    identity: Identity,
    connect: Connect = ssh.connect,
    tell: Callable[[str], None] = lambda _step: None,
) -> Node:
    """Make first contact as the row says, and write the node that came of it; the credential is erased.

    `tell` hears of each step. Nothing but steps is written where it fails. Raises the errors of
    `provisioning.errors`, and Interrupted where the row is not ours any more.
    """
    steps = StepLog(row, way)

    def log(line: LogLine) -> None:
        steps(line)
        tell(line.step)

    try:
        enrolled = make_first_contact(
            Address(row.address, row.port, row.user),
            HostKey(row.host_key, row.host_key_kind),
            way,
            wanted=Wanted(_steward(), identity.public),
            identity=identity,
            log=log,
            connect=connect,
        )
    except ProvisioningError as error:
        error.args = (hide_secret(str(error), way),)
        error.remedy = hide_secret(error.remedy, way)
        raise
    with transaction.atomic():
        node = _write_node(row, enrolled)
        held.write(node=node, sealed=None, sealed_until=None, code="", error="", hint="")
        row.steps.update(node=node)
    row.node = node
    return node


def changed_steps(enrolment: Enrolment) -> list[str]:
    """What had to be done on the box; nothing where all was there."""
    done = enrolment.steps.filter(outcome="done").exclude(step__in=LOOKING)
    return list(dict.fromkeys(done.values_list("step", flat=True)))


def hide_secret(text: str, way: Way | None) -> str:
    """The text without the credential: what a box says is untrusted."""
    match way:
        case Password(secret) | KeyText(secret):
            hidden = text.replace(secret.reveal(), "(redacted)")
            return hidden.replace(printable(secret.reveal()), "(redacted)")  # as errors have it
        case _:
            return text


def keep_hardware(
    hardware: Hardware, disk_bytes: object = None, disk_free_bytes: object = None
) -> dict[str, object]:
    """Hardware as a node's row keeps it."""
    return {**asdict(hardware), "disk_bytes": disk_bytes, "disk_free_bytes": disk_free_bytes}


def short_python(hardware: Mapping[str, object]) -> str:
    """`3.11` of `3.11.2`: what a release is built for."""
    return ".".join(str(hardware.get("python") or "").split(".")[:2])


def _write_node(row: Enrolment, enrolled: Enrolled) -> Node:
    """The row of the node; one that was retired under this name begins anew."""
    node = Node.objects.filter(name=row.name).first() or Node(name=row.name)
    if node.retired_at is not None:
        node = _renew(node)
    hardware = keep_hardware(
        enrolled.facts.hardware,
        node.hardware.get("disk_bytes"),
        enrolled.facts.disk_free_bytes,
    )
    if short_python(hardware) != short_python(node.hardware):
        node.release_sha256 = ""  # made for another Python: of no use there
    node.address, node.port = row.address, row.port
    node.account = enrolled.address.user
    node.host_key, node.host_key_kind = enrolled.host_key.fingerprint, enrolled.host_key.kind
    node.hardware = hardware
    node.steward_sha256 = Wanted(_steward(), "").steward_sha256
    apply_attributes(node, row.attributes)
    node.save()
    return node


def _renew(node: Node) -> Node:
    """A row as new under the number of a retired one, whose records stay."""
    return Node(pk=node.pk, name=node.name, created_at=node.created_at)


@cache
def _steward() -> bytes:
    """It is the same for as long as the process runs."""
    return build_steward()

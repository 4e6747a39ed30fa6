"""Enrolments in the worker: rows with a lease, each worked on by a thread of its own, retried, taken over.

`Crew.look` is called by the loop and returns at once. A box that hangs holds one place of the crew for as
long as its time limits say, and nobody else.
"""

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import DatabaseError, connections, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from appliance import audit
from appliance.control.lease import owner_is_dead, this_owner
from appliance.control.node_seen import parse_facts
from appliance.control.transfers import end_interrupted, shown_transfer
from appliance.enrolling import LEASE_S, Held, Interrupted
from appliance.enrolment_leases import LeaseKeeper
from appliance.environment import Environment
from appliance.first_contact import StepLog, contact_box, short_python
from appliance.models import Enrolment, Node
from appliance.nodes import OPEN_ENROLMENTS
from appliance.sealing import Spoilt, unseal
from appliance.ssh_identity import ensure_identity
from provisioning import ssh
from provisioning.bundle import Release, build_release
from provisioning.delivery import Progress, deliver_release
from provisioning.enrolment import Connect, open_steward
from provisioning.errors import NodeError, ProvisioningError
from provisioning.fanout import CONCURRENCY
from provisioning.hostkeys import HostKey
from provisioning.identity import Identity
from provisioning.login import Address, Way
from provisioning.runner import LogLine
from provisioning.steward_client import StewardClient

#: Trying again ends this long after the enrolment was asked for.
TRY_FOR_S = 600.0
LONGEST_DELAY_S = 30.0
_WRITE_EVERY_S = 0.5

log = logging.getLogger(__name__)
Build = Callable[[Path, str, str], Release]


def delay_before(attempt: int) -> float:
    """Seconds before the next try after `attempt` tries: 2, 4, 8 .. 30."""
    return float(min(LONGEST_DELAY_S, 2.0 ** min(attempt, 5)))


class CredentialSpoilt(NodeError):
    """The sealed credential is too old, or was sealed with another key."""

    code = "credential_expired"
    advice = "give the credential again"


class Crew:
    """All enrolments of a worker: at most `concurrency` at a time. Thread-safe."""

    def __init__(
        self,
        environment: Environment,
        *,
        connect: Connect = ssh.connect,
        build: Build = build_release,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._environment = environment
        self._connect = connect
        self._build = build
        self._concurrency = concurrency
        self._leases = LeaseKeeper(this_owner())
        self._lock = threading.Lock()
        self._turns: dict[tuple[str, str], threading.Lock] = {}
        self._closed = threading.Event()

    def look(self) -> None:
        """Erase what is too old, and begin what is due. Does not wait for any box."""
        mine = self._leases.mine()
        if self._closed.is_set() or not Enrolment.objects.filter(_OPEN | Q(sealed__isnull=False)).exists():
            return
        _erase_expired()
        _end_abandoned(mine)
        room = self._concurrency - len(mine)
        for row in _due(mine, room) if room > 0 else ():
            held = self._claim(row)
            if held is not None:
                self._begin(row.pk, held)

    def at_work(self) -> int:
        """How many boxes are worked on now."""
        return len(self._leases.mine())

    def close(self) -> None:
        """Begin nothing more; what runs is left to the next worker once this process is gone."""
        self._closed.set()

    def _claim(self, row: Enrolment) -> Held | None:
        """Take over from whoever had it; None where another was first."""
        before = Enrolment.objects.filter(
            pk=row.pk, state=row.state, lease_owner=row.lease_owner, attempt=row.attempt
        )
        taken = before.update(
            state=Enrolment.State.RUNNING,
            lease_owner=self._leases.owner,
            attempt=row.attempt + 1,
            lease_expires_at=Now() + dt.timedelta(seconds=LEASE_S),
        )
        return Held(row.pk, self._leases.owner, row.attempt + 1) if taken else None

    def _begin(self, enrolment: int, held: Held) -> None:
        self._leases.add(enrolment)
        threading.Thread(target=self._work, args=(held,), name=f"enrolment-{enrolment}", daemon=True).start()

    def _work(self, held: Held) -> None:
        try:
            row = Enrolment.objects.select_related("node").get(pk=held.enrolment)
            self._try(row, held)
        except (Interrupted, Enrolment.DoesNotExist):
            log.info("enrolment %d goes on elsewhere, or was ended", held.enrolment)
        except DatabaseError:  # its lease runs out, and it is due again
            log.warning("enrolment %d is left for later", held.enrolment, exc_info=True)
        finally:
            self._leases.drop(held.enrolment)
            connections.close_all()

    def _try(self, row: Enrolment, held: Held) -> None:
        """One try. Errors that may pass are waited out for a while; others end it."""
        try:
            _Enrolling(self, row, held).run()
        except ProvisioningError as error:
            until = row.created_at + dt.timedelta(seconds=TRY_FOR_S)
            if error.permanent or timezone.now() >= until:
                held.fail(error.code, str(error), error.remedy)
            else:
                held.put_off(error, delay_before(held.attempt))
            log.info("enrolling %s: %s", row.name, error.line)
        except (OSError, ValueError) as error:
            held.fail("appliance", f"the appliance could not go on: {error}", "see its disk and its log")
        except (Interrupted, DatabaseError):
            raise
        except Exception as error:
            log.exception("enrolling %s failed in a way that is not foreseen", row.name)
            held.fail("unforeseen", f"{type(error).__name__} in the appliance", "see logs/worker.log")

    def identity(self) -> Identity:
        """The appliance's key. Raises OSError, ValueError."""
        return ensure_identity(self._environment)

    def unseal(self, row: Enrolment) -> Way:
        """The credential in a row. Raises CredentialSpoilt, OSError."""
        try:
            return unseal(self._environment, bytes(row.sealed or b""))
        except Spoilt as spoilt:
            raise CredentialSpoilt(str(spoilt)) from None

    def release(self, python: str, arch: str) -> Release:
        """The release for a box; several that want the same one wait for the first. Raises BundleError."""
        with self._lock:
            turn = self._turns.setdefault((".".join(python.split(".")[:2]), arch), threading.Lock())
        with turn:
            return self._build(self._environment.home / "releases", python, arch)

    @property
    def connect(self) -> Connect:
        """How boxes are reached."""
        return self._connect


class _Enrolling:
    """One try with one box."""

    def __init__(self, crew: Crew, row: Enrolment, held: Held) -> None:
        self._crew = crew
        self._row = row
        self._held = held

    def run(self) -> None:
        """Go on from where the row stands to a ready node. Raises what the box raises, and Interrupted."""
        identity = self._crew.identity()
        node = self._row.node or self._contact(identity)
        steps = StepLog(self._row, node=node)
        self._held.write(stage="collecting the runtime", percent=0.0)
        with _told(steps, "collect the runtime"):
            hardware = node.hardware
            release = self._crew.release(str(hardware.get("python", "")), str(hardware.get("arch", "")))
        self._held.write(stage="connecting", percent=0.0)
        address = Address(node.address, node.port, node.account)
        pinned = HostKey(node.host_key, node.host_key_kind)
        with open_steward(address, pinned, identity, self._crew.connect) as client:
            hello = client.ask("hello")
            brought: dict[str, str] = {}
            if not self._keeps_release(client, node):
                self._deliver(client, node, release, steps)
                brought = {"release_sha256": release.sha256}
            self._held.write(stage="asking what it is", percent=100.0)
            with _told(steps, "read facts"):
                facts = client.ask("facts")
        self._finish(node, hello, facts, brought)

    def _contact(self, identity: Identity) -> Node:
        way = self._crew.unseal(self._row)
        self._held.write(stage="first contact", percent=0.0)
        return contact_box(
            self._row, self._held, way, identity=identity, connect=self._crew.connect,
            tell=_Pace(self._held).at_step,
        )  # fmt: skip

    def _keeps_release(self, client: StewardClient, node: Node) -> bool:
        """A node in service keeps what its agents run: an upgrade is another verb."""
        if node.enrolled_at is None or not node.release_sha256:
            return False
        return not client.missing(releases=[node.release_sha256])["releases"]

    def _deliver(self, client: StewardClient, node: Node, release: Release, steps: StepLog) -> None:
        """Send the release where it is missing, with a row for those who watch."""
        if node.enrolled_at is None:
            end_interrupted(node.name)
        self._held.write(stage="sending the runtime", percent=0.0)
        name = f"agents for Python {short_python(node.hardware)}"
        with (
            _told(steps, "deliver the runtime"),
            shown_transfer(node.name, "release", name, release.sha256) as transfer,
        ):
            pace = _Pace(self._held)

            def tell(progress: Progress) -> None:
                transfer.tell(progress)
                pace.delivered(progress)

            deliver_release(client, release, tell)

    def _finish(
        self, node: Node, hello: dict[str, object], facts: dict[str, object], brought: dict[str, str]
    ) -> None:
        """Write the node as it is now, and the end of the enrolment, in one transaction.

        Its release only where one was `brought`: an upgrade may have changed it meanwhile.
        """
        now = timezone.now()
        first = node.enrolled_at is None
        with transaction.atomic():
            self._held.finish(stage="ready", percent=100.0)
            Node.objects.filter(pk=node.pk).update(
                **brought,
                steward_sha256=str(hello.get("steward", ""))[:64],
                boot_id=str(hello.get("boot_id", ""))[:64],
                hardware=parse_facts(facts),
                enrolled_at=node.enrolled_at or now,
                seen_at=now,
                power_stage="",  # it has just answered: it is awake, whatever it was told before
                power_wanted="",
                power_tries=0,
            )
            if first:
                audit.record(self._row.actor or "unknown", "node_enrolled", node.name, address=node.address)


class _Pace:
    """Writes how far it is into the enrolment's row, at most twice a second."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._written_at = time.monotonic()

    def at_step(self, step: str) -> None:
        """Take in a step of first contact. Raises Interrupted where the row is not ours any more."""
        self._tell(step[:64], 0.0)

    def delivered(self, progress: Progress) -> None:
        """Take in progress. Raises Interrupted, which ends the delivery."""
        if progress.have_bytes >= progress.total_bytes:
            self._written_at = float("-inf")
            self._tell("unpacking the runtime", 100.0)
        else:
            percent = 100.0 * progress.have_bytes / progress.total_bytes
            self._tell("sending the runtime", round(percent, 1))

    def _tell(self, stage: str, percent: float) -> None:
        now = time.monotonic()
        if now - self._written_at >= _WRITE_EVERY_S:
            self._written_at = now
            self._held.write(stage=stage, percent=percent)


_OPEN = Q(state__in=OPEN_ENROLMENTS)
_LAPSED = Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lte=Now())


def _erase_expired() -> None:
    """Sealed credentials that are too old, or that nobody needs any more."""
    over = Q(sealed_until__isnull=True) | Q(sealed_until__lte=Now()) | ~_OPEN
    for row in Enrolment.objects.filter(over, sealed__isnull=False):
        Enrolment.objects.filter(pk=row.pk).update(sealed=None)
    dry = Enrolment.objects.filter(state=Enrolment.State.WAITING, node__isnull=True, sealed__isnull=True)
    for row in dry:
        said = f": the last try said: {row.error}" if row.error else ""
        dry.filter(pk=row.pk).update(
            state=Enrolment.State.FAILED,
            code=CredentialSpoilt.code,
            error=f"the credential was erased after ten minutes{said}",
            hint=CredentialSpoilt.advice,
            lease_expires_at=None,
            finished_at=timezone.now(),
        )


def _end_abandoned(mine: Collection[int]) -> None:
    """First contacts whose command is gone: nobody else has the credential."""
    running = Enrolment.objects.filter(
        state=Enrolment.State.RUNNING, node__isnull=True, sealed__isnull=True
    ).exclude(pk__in=mine)
    lapsed = set(running.filter(_LAPSED).values_list("pk", flat=True))
    for row in running:
        if row.pk in lapsed or owner_is_dead(row.lease_owner):
            Held(row.pk, row.lease_owner, row.attempt).fail(
                "interrupted",
                "the command that enrolled it ended in the middle",
                "run the same command again",
            )


def _due(mine: Collection[int], room: int) -> list[Enrolment]:
    """At most `room` rows to begin now: those whose owner is gone, then those with the fewest tries."""
    able = Enrolment.objects.filter(_OPEN & (Q(node__isnull=False) | Q(sealed__isnull=False)))
    others = able.exclude(pk__in=mine).defer("sealed", "attributes")
    running = others.filter(state=Enrolment.State.RUNNING, lease_expires_at__gt=Now())
    orphans = [row for row in running if owner_is_dead(row.lease_owner)]
    lapsed = others.filter(_LAPSED).order_by("attempt", "created_at", "pk")[:room]
    return [*orphans, *lapsed][:room]


@contextmanager
def _told(steps: StepLog, step: str) -> Iterator[None]:
    """A step of the worker's own, told to the log when it ends, however it ends."""
    began = time.monotonic()
    try:
        yield
    except ProvisioningError as error:
        steps(LogLine(step, "failed", time.monotonic() - began, error.line))
        raise
    steps(LogLine(step, "done", time.monotonic() - began))

"""Enrolling boxes from a command: host keys, first contact in this process, then waiting for the worker."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from django.db import connections

from appliance.control.lease import this_owner
from appliance.enrolling import EnrolmentRefused, EnrolmentRequest, Held, Interrupted, begin_enrolment
from appliance.enrolment_leases import LeaseKeeper
from appliance.errors import VerbError
from appliance.first_contact import changed_steps, contact_box
from appliance.models import Enrolment, Node
from appliance.node_attributes import default_name
from appliance.node_waiting import NotDoneError, Tell, wait_until_enrolled
from provisioning import ssh
from provisioning.enrolment import Connect
from provisioning.errors import HostKeyChanged, ProvisioningError
from provisioning.fanout import Outcome, run_on_all
from provisioning.hostkeys import HostKey, check_pin
from provisioning.identity import Identity
from provisioning.login import Address, Way

#: First contact has limits of its own for each step, which end it well before this.
FIRST_CONTACT_S = 180.0
ReadHostKey = Callable[[Address], HostKey]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one box; `done` are the steps that had to be done there."""

    name: str
    address: str
    state: str
    code: str = ""
    error: str = ""
    hint: str = ""
    seconds: float = 0.0
    again: bool = False
    done: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it is a node that takes agents."""
        return self.state == "ready"

    @property
    def line(self) -> str:
        """Cause and remedy, '' where it is ready."""
        return "; ".join(filter(None, (self.error, self.hint)))

    def document(self) -> dict[str, object]:
        """As `--json` has it."""
        whole = asdict(self)
        return {key: whole[key] for key in ("name", "address", "state", "code", "error", "hint", "seconds")}


class NotEnrolled(Exception):
    """Ends the work on one box; the rest is told."""

    def __init__(self, name: str, code: str, error: str, hint: str = "") -> None:
        super().__init__(error)
        self.name, self.code, self.hint = name, code, hint


class Enrolling:
    """Enrolls boxes at once, each with an outcome of its own. One run a process."""

    def __init__(
        self,
        way: Way,
        identity: Identity,
        *,
        actor: str,
        timeout_s: float,
        tell: Tell,
        poke: Callable[[], object],
        connect: Connect = ssh.connect,
    ) -> None:
        self._way = way
        self._identity = identity
        self._actor = actor
        self._timeout_s = timeout_s
        self._tell = tell
        self._poke = poke
        self._connect = connect
        self._leases = LeaseKeeper(this_owner())
        self._held: dict[str, Held] = {}

    def run(self, targets: Iterable[EnrolmentRequest]) -> Iterator[Result]:
        """Results as they come. Where the caller is interrupted, what is under way is written down so."""
        by_place = {place(target): target for target in targets}
        limit_s = self._timeout_s + FIRST_CONTACT_S
        try:
            for outcome in run_on_all(by_place, lambda one: self._enroll(by_place[one]), limit_s=limit_s):
                yield self._result(by_place[outcome.name], outcome)
        except (KeyboardInterrupt, GeneratorExit):
            self._leave("interrupted", "interrupted", "the same command goes on")
            raise

    def _enroll(self, target: EnrolmentRequest) -> Result:
        began = time.monotonic()
        try:
            row, held = begin_enrolment(target, self._way, owner=self._leases.owner, actor=self._actor)
            known = Node.objects.filter(name=row.name, enrolled_at__isnull=False, retired_at__isnull=True)
            again = known.exists()
            if held is not None:
                self._contact(row, held)
            self._poke()
            left_s = max(1.0, self._timeout_s - (time.monotonic() - began))
            try:
                row = wait_until_enrolled(row.pk, timeout_s=left_s, tell=self._tell)
            except NotDoneError as error:
                raise NotEnrolled(row.name, error.code, str(error), error.hint) from None
            return Result(row.name, place(target), "ready", again=again, done=tuple(changed_steps(row)))
        finally:
            connections.close_all()

    def _contact(self, row: Enrolment, held: Held) -> None:
        """First contact, and the row handed over to the worker; or ended, with why."""
        self._held[f"{row.address} {row.port}"] = held
        self._leases.add(row.pk)
        try:
            contact_box(
                row, held, self._way, identity=self._identity, connect=self._connect,
                tell=lambda step: self._tell(row.name, step, None, ""),
            )  # fmt: skip
            held.hand_over()
        except ProvisioningError as error:
            held.fail(error.code, str(error), error.remedy)
            raise NotEnrolled(row.name, error.code, str(error), error.remedy) from None
        except Interrupted:
            raise NotEnrolled(row.name, "interrupted", "it was ended or taken over meanwhile") from None
        except BaseException:
            held.fail("unforeseen", "the command failed", "run it again")
            raise
        finally:
            self._leases.drop(row.pk)
            self._held.pop(f"{row.address} {row.port}", None)

    def _result(self, target: EnrolmentRequest, outcome: Outcome[Result]) -> Result:
        seconds = round(outcome.seconds, 2)
        if outcome.value is not None:
            return replace(outcome.value, seconds=seconds)
        held = self._held.get(f"{target.address} {target.port}")
        result = failed_result(target, outcome.error, seconds)
        if held is not None:  # given up: its thread may live on for a while, and writes nothing more
            held.fail(result.code, result.error, result.hint)
        return result

    def _leave(self, code: str, error: str, hint: str) -> None:
        for held in list(self._held.values()):
            held.fail(code, error, hint)


def place(target: EnrolmentRequest) -> str:
    """Where it is, for people: with the port where that is not 22."""
    if target.port == 22:
        return target.address
    return f"[{target.address}]:{target.port}" if ":" in target.address else f"{target.address}:{target.port}"


def failed_result(target: EnrolmentRequest, error: Exception | None, seconds: float = 0.0) -> Result:
    """The outcome of a box that some error ended."""
    name = target.name or default_name(target.address)
    named = Result(name, place(target), "failed", seconds=seconds)
    match error:
        case NotEnrolled():
            return replace(named, name=error.name, code=error.code, error=str(error), hint=error.hint)
        case ProvisioningError():
            return replace(named, code=error.code, error=str(error), hint=error.remedy)
        case EnrolmentRefused():
            return replace(named, code=error.code, error=str(error))
        case VerbError():
            return replace(named, code="refused", error=str(error))
        case _:
            return replace(named, code="unforeseen", error=f"{type(error).__name__}: {error}")


def read_host_keys(
    targets: Iterable[EnrolmentRequest], pinned: Mapping[str, HostKey], read: ReadHostKey
) -> dict[str, HostKey | Exception]:
    """What each box shows, by place; an error where it cannot be read or is another than it should be.

    A pin of another type than the shown key stays as it is: the log-in checks it.
    """
    by_place = {place(target): target for target in targets}

    def look(name: str) -> HostKey:
        target = by_place[name]
        shown = read(Address(target.address, target.port, target.user))
        known = pinned.get(name)
        if known is not None and (not known.kind or known.kind == shown.kind):
            try:
                check_pin(known, shown, f"{target.address} port {target.port}")
            except HostKeyChanged:
                if known.kind:
                    raise
                return known  # the box may have that key, too
        return known if known is not None and known.kind and known.kind != shown.kind else shown

    found = run_on_all(by_place, look, limit_s=60.0)
    return {one.name: one.value or one.error or RuntimeError("no key") for one in found}

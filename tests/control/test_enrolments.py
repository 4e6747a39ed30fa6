"""Enrolments in the worker: sealed credentials, leases, retries, and many boxes at once."""

import datetime as dt
import socket
import threading
import time

import psutil
import pytest
from django.utils import timezone
from played_boxes import BOOT, HOST_KEY, OTHER_KEY, PASSWORD, box_texts, settle
from provisioning_builders import wait_until

from appliance.control import enrolments
from appliance.control.enrolments import delay_before
from appliance.enrolling import EnrolmentRefused, EnrolmentRequest, Interrupted, request_enrolment
from appliance.errors import VerbError
from appliance.first_contact import StepLog
from appliance.models import AuditEvent, Enrolment, Node, RemoteStep, Transfer
from appliance.nodes import retire_node
from provisioning.errors import ConnectionLost, KeyRefused, WrongPassword
from provisioning.login import Password
from provisioning.runner import LogLine
from provisioning.transport import Secret

pytestmark = pytest.mark.django_db(transaction=True)
State = Enrolment.State


def test_box_becomes_a_node(boxes):
    """First contact, the runtime, and the steward's own words end in a row that agents can be placed by."""
    box = boxes.add()
    row = boxes.ask(name="box-1", attributes={"labels": {"rack": "a1"}, "cost_per_hour": "0.25"})
    settle(boxes, row, State.DONE)
    node = Node.objects.get(name="box-1")
    assert (node.address, node.port, node.account, node.host_key) == ("10.0.0.2", 22, "millwright", HOST_KEY)
    assert (node.boot_id, node.labels, str(node.cost_per_hour)) == (BOOT, {"rack": "a1"}, "0.2500")
    assert node.release_sha256 in box.releases
    assert node.hardware["python"] == "3.11.2"
    assert node.hardware["disk_bytes"] == 10**11
    assert node.enrolled_at is not None
    assert (row.node, row.sealed, row.stage, row.percent, row.lease_owner) == (node, None, "ready", 100.0, "")
    assert {step.node for step in row.steps.all()} == {node}
    assert [step.step for step in row.steps.all()][-3:] == [
        "collect the runtime", "deliver the runtime", "read facts",
    ]  # fmt: skip
    transfer = Transfer.objects.get(node=node)
    assert (transfer.state, transfer.have_bytes) == ("done", transfer.total_bytes)
    assert {event.verb for event in AuditEvent.objects.all()} == {"enroll_node", "node_enrolled"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WrongPassword("'root' does not take this password"), "wrong_password"),
        (KeyRefused("no"), "key_refused"),
    ],
)
def test_lasting_error_ends_it_and_the_same_request_succeeds_afterwards(boxes, error, code):
    """No node is left, the credential is gone, and asking again enrolls the box."""
    boxes.add(fails_at={0: error})
    row = settle(boxes, boxes.ask(), State.FAILED)
    assert (row.code, row.error, row.hint) == (code, str(error), error.advice)
    assert row.sealed is None
    assert not Node.objects.exists()
    settle(boxes, boxes.ask(), State.DONE)
    assert Node.objects.get().name == "node-10-0-0-2"


@pytest.mark.parametrize(
    ("texts", "code", "words"),
    [
        ({"python": "3.9.2\nglibc 2.31\n"}, "python_too_old", "3.10"),
        ({"python": "\n"}, "python_missing", "apt-get install python3"),
        ({"init": "tini\n"}, "no_systemd", "systemd"),
        ({"arch": "riscv64\n"}, "unsupported", "x86_64"),
    ],
)
def test_unfit_box_is_named_and_nothing_is_done_there(boxes, texts, code, words):
    """What the box lacks is told in a line with a remedy; no node, no account."""
    box = boxes.add(texts=box_texts(**texts))
    row = settle(boxes, boxes.ask(), State.FAILED)
    assert row.code == code
    assert words in row.hint
    assert not Node.objects.exists()
    assert not box.accounts
    box.texts = box_texts()
    settle(boxes, boxes.ask(), State.DONE)


def test_error_that_may_pass_is_tried_again(boxes):
    """The row waits with the last error in sight, then goes on; until first contact it has the credential."""
    boxes.add(fails_at={4: ConnectionLost("the line broke")})
    row = boxes.ask()
    boxes.crew.look()
    wait_until(lambda: not boxes.crew.at_work())
    row.refresh_from_db()
    assert (row.state, row.code, row.error, row.attempt) == (
        State.WAITING,
        "connection_lost",
        "the line broke",
        1,
    )
    assert row.sealed is not None
    boxes.crew.look()
    assert boxes.crew.at_work() == 0  # not before its time
    Enrolment.objects.update(lease_expires_at=timezone.now())
    settle(boxes, row, State.DONE)
    assert (row.attempt, row.error, row.code) == (2, "", "")


def test_tries_end(boxes, monkeypatch):
    """After ten minutes an error that may pass counts as lasting."""
    monkeypatch.setattr(enrolments, "TRY_FOR_S", 0.0)
    row = settle(boxes, boxes.ask(), State.FAILED)
    assert row.code == "unreachable"
    assert row.sealed is None


def test_delays_grow():
    """2, 4, 8, 16, then 30 seconds."""
    assert [delay_before(attempt) for attempt in range(1, 8)] == [2, 4, 8, 16, 30, 30, 30]


def test_work_of_a_dead_worker_is_taken_over(boxes):
    """Where a worker dies in a delivery the next one goes on; the dead one writes nothing more."""
    gate = threading.Event()
    box = boxes.add(gate=gate)
    row = boxes.ask()
    boxes.crew.look()
    assert box.receiving.wait(10)
    Enrolment.objects.update(lease_owner="nobody:1:1", lease_expires_at=timezone.now())
    second = boxes.new_crew()
    second.look()
    wait_until(lambda: not second.at_work())
    row.refresh_from_db()
    assert (row.state, row.attempt) == (State.DONE, 2)
    done = (row.finished_at, Node.objects.get().enrolled_at)
    gate.set()
    wait_until(lambda: not boxes.crew.at_work())
    row.refresh_from_db()
    assert (row.state, row.finished_at, Node.objects.get().enrolled_at) == (State.DONE, *done)
    assert Transfer.objects.filter(state="done").exists()


@pytest.mark.parametrize(
    ("owner", "left_s"), [("nobody:1:1", -1), (f"{socket.gethostname()[:40]}:4194999:1", 14)]
)
def test_first_contact_of_a_command_that_died_is_ended(boxes, owner, left_s):
    """Nobody else has its credential: the row says to run it again."""
    row = Enrolment.objects.create(
        name="box-1", address="10.0.0.2", way="agent", host_key=HOST_KEY, state=State.RUNNING,
        lease_owner=owner, lease_expires_at=timezone.now() + dt.timedelta(seconds=left_s), attempt=1,
    )  # fmt: skip
    boxes.crew.look()
    row.refresh_from_db()
    assert (row.state, row.code, row.hint) == (State.FAILED, "interrupted", "run the same command again")


def test_living_lease_is_left_alone(boxes):
    """A row that another works on is neither begun nor ended."""
    row = boxes.ask()
    Enrolment.objects.update(
        state=State.RUNNING,
        lease_owner="other:1:1",
        lease_expires_at=timezone.now() + dt.timedelta(seconds=9),
    )
    boxes.crew.look()
    row.refresh_from_db()
    assert (row.state, row.lease_owner, boxes.crew.at_work()) == (State.RUNNING, "other:1:1", 0)


def test_retiring_ends_an_enrolment(boxes):
    """The thread at work writes nothing more once the node was retired."""
    gate = threading.Event()
    box = boxes.add(gate=gate)
    row = boxes.ask(name="box-1")
    boxes.crew.look()
    assert box.receiving.wait(10)
    retire_node("box-1", force=True, actor="test")
    gate.set()
    wait_until(lambda: not boxes.crew.at_work())
    row.refresh_from_db()
    assert (row.state, row.code) == (State.FAILED, "retired")
    assert Node.objects.get().enrolled_at is None


def test_retired_name_can_be_taken_again(boxes):
    """The row of a retired node begins anew: another key is pinned, nothing of the old is left."""
    boxes.add()
    settle(boxes, boxes.ask(name="box-1"), State.DONE)
    retire_node("box-1", force=True, actor="test")
    boxes.add()
    request = EnrolmentRequest(address="10.0.0.2", host_key=OTHER_KEY, name="box-1")
    row = request_enrolment(request, Password(Secret(PASSWORD)), actor="test")
    settle(boxes, row, State.DONE)
    node = Node.objects.get()
    assert (node.host_key, node.retired_at, node.wanted) == (OTHER_KEY, None, "ready")


def test_enrolled_node_is_left_as_it_is(boxes):
    """Enrolling again does nothing on a box where all is there, keeps its release, and sets attributes."""
    box = boxes.add()
    settle(boxes, boxes.ask(), State.DONE)
    before = Node.objects.get()
    commands = len(box.commands)
    box.releases.add("c" * 64)
    Node.objects.update(release_sha256="c" * 64)
    settle(boxes, boxes.ask(attributes={"region": "eu"}), State.DONE)
    after = Node.objects.get()
    assert len(box.commands) == commands + 2  # who, and the facts
    assert (after.release_sha256, after.region) == ("c" * 64, "eu")
    assert after.enrolled_at == before.enrolled_at


def test_node_whose_runtime_is_missing_gets_it_without_a_credential(boxes):
    """A box that was reached once is asked for again with the appliance's own key."""
    box = boxes.add()
    settle(boxes, boxes.ask(), State.DONE)
    box.releases.clear()
    request = EnrolmentRequest(address="10.0.0.2", host_key=HOST_KEY)
    settle(boxes, request_enrolment(request, None, actor="test"), State.DONE)
    assert Node.objects.get().release_sha256 in box.releases
    with pytest.raises(VerbError, match="never reached"):
        request_enrolment(EnrolmentRequest(address="10.0.0.9", host_key=HOST_KEY), None, actor="test")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"address": "10.0.0.3", "name": "box-1"}, "name 'box-1' is taken by 10.0.0.2 port 22"),
        ({"address": "10.0.0.2", "name": "box-2"}, "10.0.0.2 port 22 is node 'box-1' already"),
        ({"address": "10.0.0.3", "name": "local"}, "the appliance's own machine"),
        ({"address": "local.example"}, "would be called 'local'"),
        ({"address": "no such host"}, "a host name or an IP address is"),
        ({"address": "10.0.0.999"}, "a host name or an IP address is"),
        ({"address": "fe80::1%\x1b[2J"}, "a host name or an IP address is"),
        ({"address": "fe80::1%" + "e" * 17}, "a host name or an IP address is"),
        ({"address": "10.0.0.3", "name": "No"}, "is no name"),
        ({"address": "10.0.0.3", "port": 0}, "a number from 1 to 65535"),
        ({"address": "10.0.0.3", "user": "a b"}, "user 'a b' is not accepted"),
        ({"address": "10.0.0.3", "host_key": "MD5:00"}, "SHA256: and 43 characters"),
        ({"address": "10.0.0.3", "attributes": {"cost_per_hour": "-1"}}, "a number from 0"),
        ({"address": "10.0.0.3", "attributes": {"power": "wol:1"}}, "wol:MAC is"),
        ({"address": "10.0.0.3", "attributes": {"colour": "red"}}, "unknown attribute 'colour'"),
        ({"address": "10.0.0.3", "attributes": {"labels": {"A": "b"}}}, "label key 'A'"),
    ],
)
def test_request_that_cannot_be_is_refused_in_one_line(given, words):
    """What is wrong and what is accepted is said; nothing is written."""
    Node.objects.create(name="box-1", address="10.0.0.2")
    request = EnrolmentRequest(**{"host_key": HOST_KEY, **given})
    with pytest.raises(VerbError) as refused:
        request_enrolment(request, Password(Secret(PASSWORD)), actor="test")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Enrolment.objects.exists()


def test_changed_host_key_is_refused_before_anything_is_touched(boxes):
    """Another key than the pinned one is a loud error, and the box hears nothing."""
    boxes.add()
    settle(boxes, boxes.ask(), State.DONE)
    connections = len(boxes.carriers)
    request = EnrolmentRequest(address="10.0.0.2", host_key=OTHER_KEY)
    with pytest.raises(EnrolmentRefused, match=r"HOST KEY CHANGED.*retire and enroll") as refused:
        request_enrolment(request, Password(Secret(PASSWORD)), actor="test")
    assert refused.value.code == "host_key_changed"
    assert len(boxes.carriers) == connections


def test_newer_request_takes_the_place_of_one_that_waits(boxes):
    """One box has one enrolment: the older one ends, with its credential."""
    older = boxes.ask()
    newer = boxes.ask()
    older.refresh_from_db()
    assert (older.state, older.code, older.sealed) == (State.FAILED, "replaced", None)
    assert newer.state == State.WAITING


def test_records_are_bounded(boxes, monkeypatch):
    """Of enrolments that are over the newest are kept."""
    monkeypatch.setattr("appliance.enrolling.KEPT_OF_A_NAME", 3)
    newest = [boxes.ask().pk for _ in range(8)][-5:]
    assert sorted(Enrolment.objects.values_list("pk", flat=True)) == newest


def test_steps_are_bounded(boxes, monkeypatch):
    """Of an enrolment's steps the newest are kept."""
    monkeypatch.setattr("appliance.first_contact.MAX_STEPS", 5)
    row = boxes.ask()
    for number in range(12):
        StepLog(row)(LogLine(f"step {number}", "done", 0.1, "x" * 2000))
    assert [step.step for step in row.steps.all()] == [f"step {number}" for number in range(6, 12)]
    assert len(row.steps.last().detail) == 1000


def test_lease_lost_in_first_contact_leaves_no_node(boxes):
    """A row that was taken over while the box was reached is not written by the loser."""
    row = boxes.ask()
    held = enrolments.Held(row.pk, "somebody", 7)
    with pytest.raises(Interrupted):
        held.write(stage="x")
    held.fail("x", "y")
    row.refresh_from_db()
    assert (row.state, row.stage) == (State.WAITING, "")


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_many_boxes_at_once(boxes, count):
    """At most sixteen are worked on at a time, in bounded memory, and one that hangs delays no other."""
    names = [f"10.1.{number // 100}.{number % 100 + 1}" for number in range(count)]
    for number, name in enumerate(names):
        boxes.add(name, hangs=number == 3)
    for name in names:
        boxes.ask(name)
    most, threads = 0, threading.active_count()
    rss_bytes = psutil.Process().memory_info().rss
    peak_bytes = rss_bytes
    deadline = time.monotonic() + 90
    done = Enrolment.objects.filter(state=State.DONE)
    while done.count() < count - 1 and time.monotonic() < deadline:
        boxes.crew.look()
        most = max(most, threading.active_count() - threads)
        peak_bytes = max(peak_bytes, psutil.Process().memory_info().rss)
        time.sleep(0.05)
    assert Node.objects.count() == done.count() == count - 1
    assert most <= 16 + 1  # and the keeper of leases
    assert peak_bytes - rss_bytes < 64 * 1024 * 1024
    print(f"{count} boxes: {most} threads, {(peak_bytes - rss_bytes) / 1e6:.1f} MB more at most")
    assert not Node.objects.filter(address=names[3]).exists()
    steps = RemoteStep.objects.filter(outcome="done", enrolment__state=State.DONE)
    assert steps.count() == (count - 1) * 12

"""The enrolment pages: which box, its key, the credential, and how it goes."""

import logging
import re

import pytest
from django.conf import settings
from django.utils import timezone

from appliance.errors import VerbError
from appliance.models import AuditEvent, Enrolment, Node, RemoteStep
from dashboard.views import enroll
from provisioning import ssh
from provisioning.errors import Unreachable
from provisioning.hostkeys import HostKey

pytestmark = pytest.mark.django_db(transaction=True)
SECRET = "correct-horse-battery"
KEY_TEXT = f"-----BEGIN OPENSSH PRIVATE KEY-----\r\n{SECRET}\r\n-----END OPENSSH PRIVATE KEY-----"
PIN = HostKey("SHA256:" + "k" * 43, "ssh-ed25519")
BOX = {"address": "192.0.2.7", "port": "22", "name": "box-1", "user": "root", "way": "password"}
CONFIRMED = {
    **BOX, "step": "confirm", "host_key": PIN.fingerprint, "host_key_kind": PIN.kind, "compared": "on",
    "password": SECRET,
}  # fmt: skip
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def box(monkeypatch):
    """A box that shows a key to whoever asks."""
    asked = []

    def read_host_key(address, *, connect_s):
        asked.append((str(address), connect_s))
        return PIN

    monkeypatch.setattr(ssh, "read_host_key", read_host_key)
    return asked


def enrolment(**fields):
    return Enrolment.objects.create(
        **{"name": "box-1", "address": "192.0.2.7", "way": "password", "host_key": PIN.fingerprint} | fields
    )


@pytest.mark.parametrize("path", ["/enroll/", "/enrolments/1/", "/enrolments/1/again/"])
def test_outsiders_are_refused(client, log_in, path):
    """Strangers are sent to log in, accounts without a role get 403."""
    assert client.get(path)["Location"] == f"/?next={path}"
    assert log_in("charlie").get(path).status_code == 403


def test_a_viewer_watches_and_does_not_enroll(viewer, box):
    """The pages that act are closed, no box is looked at; how it goes may be seen."""
    row = enrolment(state="failed", error="no route")
    for path in ("/enroll/", f"/enrolments/{row.pk}/again/"):
        assert viewer.get(path).status_code == 403
        assert viewer.post(path, CONFIRMED).status_code == 403
    assert box == []
    page = viewer.get(f"/enrolments/{row.pk}/").content.decode()
    assert "no route" in page
    assert "/again/" not in page
    assert Enrolment.objects.count() == 1


def test_the_box_is_looked_at_before_anything_is_asked(log_in, box):
    """The second page shows the key, how to compare it, and carries on what was said; nothing is written."""
    client = log_in("oscar")
    assert 'name="address"' in client.get("/enroll/").content.decode()
    answer = client.post("/enroll/", {**BOX, "step": "look", "labels": "zone=a", "preemptible": "on"})
    page = answer.content.decode()
    assert box == [("192.0.2.7 port 22", 5.0)]
    assert PIN.fingerprint in page
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in page
    for name, value in (
        ("address", "192.0.2.7"),
        ("labels", "zone=a"),
        ("preemptible", "on"),
        ("way", "password"),
    ):
        assert re.search(rf'<input type="hidden" name="{name}" value="{value}"', page), name
    assert 'type="password"' in page
    assert 'autocomplete="off"' in page
    assert "private_key" not in page
    assert "no-store" in answer["Cache-Control"]
    assert not Enrolment.objects.exists()


def test_a_private_key_is_asked_where_it_is_the_way(log_in):
    """A text area in the place of the password."""
    page = log_in("oscar").post("/enroll/", {**BOX, "way": "key", "step": "look"}).content.decode()
    assert 'name="private_key"' in page
    assert 'type="password"' not in page


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"address": "a b"}, "a host name or an IP address is", id="address"),
        pytest.param({"port": "0"}, "greater than or equal to 1", id="port"),
        pytest.param({"name": "Box 1"}, "is no name", id="name"),
        pytest.param({"user": "a;b"}, "is not accepted", id="user"),
        pytest.param({"labels": "zone"}, "KEY=VALUE is", id="labels"),
        pytest.param({"way": "agent"}, "not one of the available choices", id="way"),
    ],
)
def test_bad_input_in_words(log_in, box, fields, words):
    """It stands at its field, and no box is looked at."""
    page = log_in("oscar").post("/enroll/", {**BOX, **fields, "step": "look"}).content.decode()
    assert words in page
    assert box == []


def test_a_box_that_does_not_answer(log_in, monkeypatch):
    """The error and its remedy are one line on the first page, escaped."""

    def fail(address, *, connect_s):
        raise Unreachable(f"{address} did not answer {HOSTILE}")

    monkeypatch.setattr(ssh, "read_host_key", fail)
    page = log_in("oscar").post("/enroll/", {**BOX, "step": "look"}).content.decode()
    assert "192.0.2.7 port 22 did not answer &lt;script&gt;" in page
    assert "check the address" in page
    assert 'value="192.0.2.7"' in page


def test_a_changed_key_is_loud(log_in):
    """A node that shows another key than the pinned one is not gone on with."""
    Node.objects.create(name="box-1", address="192.0.2.7", host_key="SHA256:" + "o" * 43)
    page = log_in("oscar").post("/enroll/", {**BOX, "step": "look"}).content.decode()
    assert "HOST KEY CHANGED" in page
    assert 'type="password"' not in page


def test_looks_are_bounded(log_in, box):
    """With as many under way as may be, one more is refused in words."""
    for _ in range(enroll.MAX_LOOKS):
        assert enroll._looks.acquire(blocking=False)
    try:
        page = log_in("oscar").post("/enroll/", {**BOX, "step": "look"}).content.decode()
    finally:
        enroll._looks.release(enroll.MAX_LOOKS)
    assert "try again in a moment" in page
    assert box == []


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="password"),
        pytest.param({"way": "key", "private_key": KEY_TEXT}, id="key"),
    ],
)
def test_enrolling(log_in, given, caplog):
    """The verb is called; the secret is in no answer, log, audit event or row, except sealed."""
    client = log_in("oscar")
    caplog.set_level(logging.DEBUG)
    answer = client.post("/enroll/", {**CONFIRMED, **given, "labels": "zone=a", "cost_per_hour": "0.5"})
    row = Enrolment.objects.get()
    assert answer["Location"] == f"/enrolments/{row.pk}/"
    assert (row.name, row.host_key, row.host_key_kind, row.actor) == (
        "box-1",
        PIN.fingerprint,
        PIN.kind,
        "oscar",
    )
    assert row.attributes == {"labels": {"zone": "a"}, "cost_per_hour": "0.5"}
    way = enrolling_way(row)
    assert SECRET in way
    assert "\r" not in way
    texts = [client.get(answer["Location"]).content.decode(), str(dict(client.session.items())), caplog.text]
    texts += [str(list(AuditEvent.objects.values())), str(list(Enrolment.objects.values()))]
    assert not [text for text in texts if SECRET in text]


def enrolling_way(row):
    from appliance.sealing import unseal  # noqa: PLC0415 - only this test opens it

    way = unseal(settings.ENVIRONMENT, row.sealed)
    return way.password.reveal() if hasattr(way, "password") else way.private.reveal()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"compared": ""}, "Compare the fingerprints", id="not-compared"),
        pytest.param({"password": ""}, "This field is required", id="no-password"),
        pytest.param(
            {"way": "key", "private_key": f"ssh-ed25519 AAAA {SECRET}"}, "is no private key", id="public"
        ),
        pytest.param({"host_key": "x"}, "is no fingerprint", id="pin"),
        pytest.param({"address": "a b"}, "a host name or an IP address is", id="address"),
    ],
)
def test_a_refused_confirmation_forgets_the_secret(log_in, fields, words):
    """What is wrong is said; the page comes back without what was typed, and nothing is written."""
    page = log_in("oscar").post("/enroll/", {**CONFIRMED, **fields}).content.decode()
    assert words in page
    assert SECRET not in page
    assert not Enrolment.objects.exists()


def test_what_the_verb_refuses_is_told(log_in, monkeypatch):
    """Its one line is on the page, the secret is not."""

    def refuse(*_, **__):
        raise VerbError("it is being enrolled already")

    monkeypatch.setattr(enroll, "request_enrolment", refuse)
    page = log_in("oscar").post("/enroll/", CONFIRMED).content.decode()
    assert "it is being enrolled already" in page
    assert SECRET not in page


@pytest.mark.parametrize("path", ["/enroll/", "/enrolments/{pk}/again/"])
def test_a_fault_does_not_tell_the_secret(log_in, monkeypatch, caplog, path):
    """Neither the page nor the log of a 500 holds what was typed."""

    def fail(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(enroll, "request_enrolment", fail)
    row = enrolment(state="failed")
    client = log_in("oscar")
    client.raise_request_exception = False
    answer = client.post(path.format(pk=row.pk), CONFIRMED)
    assert answer.status_code == 500
    assert "broken" in caplog.text
    assert SECRET not in answer.content.decode() + caplog.text


def test_going_back_keeps_what_was_said(log_in, box):
    """The first page again, filled, without the credential."""
    page = log_in("oscar").post("/enroll/", {**CONFIRMED, "step": "back"}).content.decode()
    assert 'value="192.0.2.7"' in page
    assert SECRET not in page
    assert box == []


def test_progress_is_live_until_the_end(viewer):
    """Stage, percent and each step as it went; the last answer no longer asks for more."""
    row = enrolment(state="running", stage="installing the release", percent=41.2)
    RemoteStep.objects.create(enrolment=row, step="become root", outcome="done", seconds=0.25)
    page = viewer.get(f"/enrolments/{row.pk}/").content.decode()
    for text in ("installing the release", 'value="41"', "become root", "0.2 s", 'hx-trigger="every 1s"'):
        assert text in page, text
    part = viewer.get(f"/enrolments/{row.pk}/", headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in part
    Enrolment.objects.update(
        state="done", percent=100, node=Node.objects.create(name="box-1", address="192.0.2.7")
    )
    ended = viewer.get(f"/enrolments/{row.pk}/", headers={"HX-Request": "true"}).content.decode()
    assert "hx-get" not in ended
    assert "/nodes/box-1/" in ended


def test_what_the_box_says_is_escaped(viewer):
    """Markup in a step, its detail, the stage, the error and the hint is text."""
    row = enrolment(state="running", stage=HOSTILE, error=HOSTILE, hint=HOSTILE)
    RemoteStep.objects.create(enrolment=row, step=HOSTILE, outcome="failed", detail=HOSTILE + "x" * 900)
    page = viewer.get(f"/enrolments/{row.pk}/").content.decode()
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert(1)") >= 4


def test_steps_shown_are_bounded(viewer):
    """The newest hundred, oldest first."""
    row = enrolment(state="running")
    RemoteStep.objects.bulk_create(
        RemoteStep(enrolment=row, step=f"step-{number:03}", outcome="done") for number in range(150)
    )
    page = viewer.get(f"/enrolments/{row.pk}/").content.decode()
    assert "step-049" not in page
    assert page.index("step-050") < page.index("step-149")


def test_trying_again_asks_the_credential_again(log_in):
    """A failed one has a way back in; what was said before is said again, with the same pin."""
    row = enrolment(state="failed", error="wrong password", attributes={"region": "eu"})
    client = log_in("oscar")
    path = f"/enrolments/{row.pk}/again/"
    assert path in client.get(f"/enrolments/{row.pk}/").content.decode()
    assert 'type="password"' in client.get(path).content.decode()
    answer = client.post(path, {"password": SECRET})
    new = Enrolment.objects.get(state="waiting")
    assert answer["Location"] == f"/enrolments/{new.pk}/"
    assert (new.host_key, new.attributes, new.actor) == (PIN.fingerprint, {"region": "eu"}, "oscar")


def test_past_first_contact_no_credential_is_needed(log_in):
    """The appliance's own key opens the box by then."""
    node = Node.objects.create(
        name="box-1", address="192.0.2.7", account="millwright", host_key=PIN.fingerprint
    )
    row = enrolment(state="failed", node=node)
    client = log_in("oscar")
    path = f"/enrolments/{row.pk}/again/"
    assert 'type="password"' not in client.get(path).content.decode()
    assert client.post(path).status_code == 302
    assert not Enrolment.objects.get(state="waiting").sealed


@pytest.mark.parametrize("state", ["waiting", "running", "done"])
def test_there_is_no_second_try_beside_a_first(log_in, state):
    """While one is under way, or when it is done, the page leads back to it."""
    row = enrolment(state=state, finished_at=timezone.now() if state == "done" else None)
    answer = log_in("oscar").post(f"/enrolments/{row.pk}/again/", {"password": SECRET})
    assert answer["Location"] == f"/enrolments/{row.pk}/"
    assert Enrolment.objects.count() == 1

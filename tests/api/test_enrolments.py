"""Enrolling over the API: what is asked for is written down, and no credential comes back."""

import logging

import pytest

from appliance.api import enrolments
from appliance.models import AuditEvent, Enrolment
from provisioning.errors import Unreachable
from provisioning.hostkeys import HostKey

pytestmark = pytest.mark.django_db

HOST_KEY = "SHA256:" + "B" * 43
SECRET = "correct-horse-battery"


def body(**changes):
    given = {"address": "192.0.2.9", "name": "box-2", "password": SECRET, "host_key": HOST_KEY, **changes}
    return {key: value for key, value in given.items() if value is not None}


def everything_kept():
    rows = [*Enrolment.objects.values(), *AuditEvent.objects.values()]
    return "".join(
        str(bytes(value) if isinstance(value, memoryview) else value)
        for row in rows
        for value in row.values()
    )


def test_an_enrolment_is_accepted(ask):
    """202, where to look, and the credential sealed."""
    status, document, response = ask(
        "POST", "/api/nodes", body(labels={"rack": "b2"}, region="lab", cost_per_hour=0.1, preemptible=True)
    )
    assert status == 202
    row = Enrolment.objects.get(pk=document["id"])
    assert response["Location"] == f"/api/enrolments/{row.pk}"
    assert (document["state"], document["name"], document["way"]) == ("waiting", "box-2", "password")
    assert (row.actor, row.attributes["labels"]) == ("key:robot", {"rack": "b2"})
    assert row.sealed
    seen = ask("GET", response["Location"])[1]
    assert (seen["host_key"], seen["stage"], seen["percent"], seen["steps"]) == (HOST_KEY, "", 0.0, [])


@pytest.mark.parametrize("field", ["password", "private_key"])
def test_no_credential_comes_back(ask, caplog, field):
    """Not in an answer, the log, the audit log or a row, as text."""
    caplog.set_level(logging.DEBUG)
    status, document, response = ask("POST", "/api/nodes", body(**{"password": None, field: SECRET}))
    assert status == 202
    told = response.content.decode() + ask("GET", f"/api/enrolments/{document['id']}")[2].content.decode()
    told += ask("GET", "/api/enrolments")[2].content.decode()
    assert SECRET not in told + caplog.text + everything_kept()
    assert "sealed" not in told


@pytest.mark.parametrize(
    "changes",
    [
        {"password": [SECRET]},
        {"password": {"text": SECRET}},
        {"password": None, "private_key": [SECRET]},
        {"pasword": SECRET},
        {"private_key": SECRET},
        {"password": SECRET * 200},
        {"port": "x"},
        {"address": "not a host"},
        {"labels": {"UPPER": "x"}},
    ],
    ids=["list", "object", "key list", "misspelt", "both", "too long", "port", "address", "labels"],
)
def test_a_refusal_does_not_repeat_the_credential(ask, caplog, changes):
    """However wrong the request is, the credential in it is not shown."""
    caplog.set_level(logging.DEBUG)
    status, document, response = ask("POST", "/api/nodes", body(**changes))
    assert (status, document["error"]["code"]) == (400, "invalid")
    assert SECRET not in response.content.decode() + caplog.text
    assert not Enrolment.objects.exists()


@pytest.mark.parametrize("raw", [f'"{SECRET}"', f'["{SECRET}"]', f'{{"password": "{SECRET}"'])
def test_a_body_of_another_kind_is_not_repeated(ask, manage_key, client, raw):
    """Also where the credential is the whole body, or the body is broken."""
    headers = {"Authorization": f"Bearer {manage_key}"}
    response = client.generic("POST", "/api/nodes", raw, content_type="application/json", headers=headers)
    assert response.status_code == 400
    assert SECRET not in response.content.decode()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host_key": None}, "host_key: field required"),
        ({"host_key": "SHA256:short"}, "host key 'SHA256:short' is no fingerprint"),
        ({"address": None}, "address: field required"),
        ({"address": "a b"}, "address 'a b' is not accepted"),
        ({"port": 70000}, "port '70000' is not accepted"),
        ({"port": "22"}, "port: '22' is not accepted"),
        ({"name": "UPPER"}, "'UPPER' is no name"),
        ({"user": "a b"}, "user 'a b' is not accepted"),
        ({"password": None}, "give a password or a private key"),
        ({"password": ""}, "the password is not accepted"),
    ],
)
def test_bad_input_is_named(ask, changes, words):
    """The field, the value and what is accepted."""
    status, document, _ = ask("POST", "/api/nodes", body(**changes))
    assert (status, document["error"]["code"]) == (400, "invalid")
    assert words in document["error"]["message"]


def test_what_conflicts_is_told_apart(ask, rows):
    """A name that is taken is a conflict; a changed host key has a code of its own."""
    status, document, _ = ask("POST", "/api/nodes", body(name="box-1"))
    assert (status, document["error"]["code"]) == (409, "conflict")
    status, document, _ = ask("POST", "/api/nodes", body(name=None, address="192.0.2.7"))
    assert (status, document["error"]["code"]) == (409, "host_key_changed")


def test_enrolments_are_listed_with_their_steps(ask, rows):
    """Newest first; one of them with what was done."""
    status, document, _ = ask("GET", "/api/enrolments", by="vera")
    assert (status, document["total"], document["items"][0]["node"]) == (200, 1, "box-1")
    one = ask("GET", f"/api/enrolments/{rows['enrolment'].pk}", by="vera")[1]
    assert [(step["step"], step["outcome"]) for step in one["steps"]] == [("make account", "changed")]


@pytest.mark.parametrize("number", ["0", "999", "9" * 30])
def test_an_enrolment_that_is_none_is_404(ask, number):
    """Also with a number that no database can hold."""
    assert ask("GET", f"/api/enrolments/{number}")[0] == 404


def test_the_host_key_is_read(ask, rows, monkeypatch):
    """What the box shows, and what is pinned for it, for a script to compare."""
    asked = []
    monkeypatch.setattr(
        enrolments.ssh,
        "read_host_key",
        lambda address, **_: asked.append(address) or HostKey(HOST_KEY, "ssh-ed25519"),
    )
    status, document, _ = ask("GET", "/api/host-key?address=Box.Example&port=2222")
    shown = {"port": 2222, "host_key": HOST_KEY, "host_key_kind": "ssh-ed25519", "pinned_host_key": None}
    assert (status, document) == (200, {"address": "box.example", **shown})
    assert (asked[0].host, asked[0].port) == ("box.example", 2222)
    known = ask("GET", "/api/host-key?address=192.0.2.7")[1]
    assert known["pinned_host_key"] == rows["box"].host_key != known["host_key"]


def test_a_box_that_does_not_answer_is_told(ask, monkeypatch):
    """With the code, the cause and what to do."""

    def refuse(*_, **__):
        raise Unreachable("box.example port 22 does not answer")

    monkeypatch.setattr(enrolments.ssh, "read_host_key", refuse)
    status, document, _ = ask("GET", "/api/host-key?address=box.example")
    assert (status, document["error"]["code"]) == (502, "unreachable")
    assert "check the address" in document["error"]["hint"]


@pytest.mark.parametrize("query", ["", "address=a%20b", "address=box&port=0", "address=box&port=x"])
def test_a_host_key_needs_a_place(ask, query):
    """No connection is tried with a wrong address."""
    assert ask("GET", f"/api/host-key?{query}")[0] == 400


def test_few_host_keys_are_read_at_once(ask, monkeypatch):
    """Beyond four the answer is to come back."""
    monkeypatch.setattr(enrolments._turns, "acquire", lambda **_: False)
    status, document, _ = ask("GET", "/api/host-key?address=box.example")
    assert (status, document["error"]["code"]) == (503, "unavailable")

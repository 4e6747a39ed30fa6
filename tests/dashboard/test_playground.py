"""The playground."""

from dataclasses import replace

import pytest
from dashboard_builders import ScriptedApi
from django.conf import settings
from django.test import Client

from appliance.keys import create_key, revoke_key
from appliance.models import ApiKey
from dashboard.embedding import cosine

pytestmark = pytest.mark.django_db(transaction=True)
TEXTS = {"deployment": "minilm", "first": "abc", "second": "cab"}


@pytest.fixture
def api(monkeypatch):
    scripted = ScriptedApi(settings.ENVIRONMENT.routes_file)
    monkeypatch.setattr(settings, "ENVIRONMENT", replace(settings.ENVIRONMENT, gateway_port=scripted.port))
    yield scripted
    scripted.close()


def ask(client, **fields):
    return client.post("/playground/", TEXTS | fields, headers={"HX-Request": "true"}).content.decode()


def test_two_texts_are_compared(log_in, deployment, api):
    """One request through the gateway gives similarity, tokens and who served it."""
    answer = ask(log_in("vera"))
    assert '<span id="mw-similarity">1.000</span>' in answer
    assert "local/minilm-aaaaaa" in answer
    ((path, _, body),) = api.requests
    assert (path, body["model"], body["input"]) == ("/v1/embeddings", "minilm", ["abc", "cab"])
    assert "<html" not in answer


def test_the_key_stays_inside(log_in, deployment, api):
    """No page holds the key, and only its digest is kept."""
    client = log_in("vera")
    pages = ask(client) + client.get("/playground/").content.decode()
    secret = api.requests[0][1]["Authorization"].removeprefix("Bearer ")
    assert secret.startswith("mw-")
    assert secret not in pages + str(list(ApiKey.objects.values()))


def test_one_key_serves_the_process(log_in, deployment, api):
    """It is made once; an earlier process's is replaced, and a revoked one is made anew."""
    create_key("playground", team="dashboard", actor="test")
    client = log_in("vera")
    ask(client)
    ask(client)
    assert ApiKey.objects.filter(name="playground").count() == 2
    assert ApiKey.objects.filter(name="playground", revoked_at__isnull=True).count() == 1
    revoke_key("playground", actor="test")
    assert "1.000" in ask(client)


def test_somebody_elses_key_is_left_alone(log_in, deployment, api):
    """A key that people gave that name is not revoked behind their back."""
    create_key("playground", team="search", actor="test")
    assert "revoke it under API keys" in ask(log_in("vera"))
    assert ApiKey.objects.filter(revoked_at__isnull=True).count() == 1


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        pytest.param((503, "model_loading", "loading"), "still loading", id="loading"),
        pytest.param((503, "no_capacity", "none"), "none that is ready", id="no-capacity"),
        pytest.param((404, "model_not_found", "no"), "does not serve that deployment", id="not-found"),
        pytest.param((401, "invalid_api_key", "no"), "does not follow the control plane", id="key"),
        pytest.param((500, "<b>", "<i>"), "&lt;i&gt;", id="escaped"),
    ],
)
def test_refusals_in_words(log_in, deployment, api, refusal, words):
    """Each refusal of the gateway is told so that people know what to do."""
    api.refusal = refusal
    assert words in ask(log_in("vera"))


def test_no_gateway_in_words(log_in, deployment, api):
    """Where nobody listens the page names the port and the command."""
    api.close()
    answer = ask(log_in("vera"))
    assert f"does not answer on port {settings.ENVIRONMENT.gateway_port}" in answer
    assert "manage.py up" in answer


def test_no_deployment_in_words(log_in):
    """Without a deployment the page tells the next step."""
    assert "manage.py deploy NAME" in log_in("vera").get("/playground/").content.decode()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"first": ""}, "First text: This field is required", id="empty"),
        pytest.param({"second": "x" * 4001}, "at most 4000 characters", id="long"),
        pytest.param({"deployment": "other"}, "not one of the available choices", id="unknown"),
    ],
)
def test_bad_input_in_words(log_in, deployment, api, fields, words):
    """What is missing or too long is said, and nothing is sent."""
    assert words in ask(log_in("vera"), **fields)
    assert api.requests == []


def test_outsiders_are_refused(client, log_in, deployment, api):
    """Strangers are sent to log in, also from a page left open; accounts without a role get 403."""
    assert client.post("/playground/", TEXTS)["Location"] == "/?next=/playground/"
    stale = client.post("/playground/", TEXTS, headers={"HX-Request": "true"})
    assert stale["HX-Redirect"] == "/?next=%2Fplayground%2F"
    assert log_in("charlie").post("/playground/", TEXTS).status_code == 403
    assert api.requests == []


def test_forged_requests_are_refused(people, deployment, api):
    """A POST without the page's token is refused."""
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(people["vera"])
    assert careful.post("/playground/", TEXTS).status_code == 403
    assert api.requests == []


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        pytest.param([1.0, 0.0], [2.0, 0.0], 1.0, id="same"),
        pytest.param([1.0, 0.0], [0.0, 3.0], 0.0, id="right-angle"),
        pytest.param([1.0, 1.0], [-1.0, -1.0], -1.0, id="opposite"),
    ],
)
def test_cosine(one, two, expected):
    """The cosine does not depend on length."""
    assert cosine(one, two) == pytest.approx(expected)


def test_cosine_needs_length():
    """Nothing is nowhere."""
    with pytest.raises(ValueError, match="without length"):
        cosine([0.0], [1.0])

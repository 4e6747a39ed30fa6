"""The OpenAPI document, the documentation page, and the shape of every error."""

import json
import re

import pytest
from django.contrib.staticfiles import finders
from django.db import OperationalError
from django.test import Client

from appliance.api.middleware import MAX_BODY_BYTES

pytestmark = pytest.mark.django_db

RESOURCES = {
    "/api/power": {"get", "patch"},
    "/api/fleet": {"get"},
    "/api/nodes": {"get", "post"},
    "/api/nodes/{name}": {"get", "patch", "delete"},
    **{
        f"/api/nodes/{{name}}/{verb}": {"post"}
        for verb in ("cordon", "uncordon", "drain", "reboot", "calibrate", "upgrade", "suspend", "wake")
    },
    "/api/nodes/{name}/transfers": {"get"},
    "/api/upgrade": {"post"},
    "/api/host-key": {"get"},
    "/api/enrolments": {"get"},
    "/api/enrolments/{enrolment}": {"get"},
    "/api/agents": {"get"},
    "/api/agents/{agent}": {"get"},
    "/api/agents/{agent}/log": {"get"},
    "/api/deployments": {"get"},
    "/api/deployments/{name}": {"get", "put", "delete"},
    "/api/deployments/{name}/serving": {"patch"},
    "/api/deployments/{name}/scaling": {"get", "patch"},
    "/api/deployments/{name}/placement": {"get", "patch"},
    "/api/models": {"get", "post"},
    "/api/models/{name}": {"get", "delete"},
    "/api/keys": {"get", "post"},
    "/api/keys/{name}": {"delete"},
    "/api/decisions": {"get"},
    "/api/decisions.csv": {"get"},
    "/api/deployments/{name}/record": {"get"},
    "/api/deployments/{name}/scaling/preview": {"post"},
    "/api/audit": {"get"},
}


@pytest.fixture
def document(client):
    return client.get("/api/openapi.json").json()


def test_openapi_lists_every_resource(document):
    """The document has all paths and methods, and no others."""
    assert document["openapi"].startswith("3.")
    assert {path: set(methods) for path, methods in document["paths"].items()} == RESOURCES


def test_openapi_describes_every_answer(document):
    """Each operation has a name of its own, a description, a credential and typed refusals."""
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for one in operations:
        assert one["description"]
        assert one["security"] == [{"ApiKeyHeader": []}, {"Session": []}]
        for status in ("400", "401", "403"):
            schema = one["responses"][status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert names <= set(document["components"]["schemas"])


def test_secrets_are_write_only(document):
    """Credentials are marked, and no answer has a field for one."""
    schemas = document["components"]["schemas"]
    for field in ("password", "private_key"):
        assert {"writeOnly": True, "format": "password", "type": "string"}.items() <= (
            schemas["EnrolBody"]["properties"][field]["anyOf"][0].items()
        )
        assert [name for name, one in schemas.items() if field in one.get("properties", {})] == ["EnrolBody"]


def test_the_documentation_needs_no_other_site(client):
    """The page takes all script and style from this appliance, which has them."""
    page = client.get("/api/docs")
    text = page.content.decode()
    assert page.status_code == 200
    assert "://" not in text
    assert '"validatorUrl": "none"' in text
    files = re.findall(r'(?:src|href)="/static/([^"]+)"', text)
    assert len(files) >= 4
    assert [name for name in files if finders.find(name) is None] == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/", 404, "not_found"),
        ("GET", "/api/nothing", 404, "not_found"),
        ("GET", "/api/enrolments/many", 404, "not_found"),
        ("GET", "/api/nodes/a/b", 404, "not_found"),
        ("PUT", "/api/nodes", 405, "method_not_allowed"),
        ("POST", "/api/audit", 405, "method_not_allowed"),
    ],
)
def test_no_error_is_html(ask, method, path, status, code):
    """Also what no operation answers is told in the one shape, whoever asks."""
    for by in ("stranger", "key"):
        got, document, response = ask(method, path, by=by)
        assert (got, document["error"]["code"]) == (status, code)
        assert (status == 405) == response.has_header("Allow")


def test_a_wrong_host_is_told_in_json(client, settings):
    """Django's own refusals too."""
    settings.ALLOWED_HOSTS = ["appliance.example"]
    response = client.get("/api/nodes", headers={"Host": "elsewhere.example"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid")


@pytest.mark.parametrize("failure", [RuntimeError("secret inside"), OperationalError("secret inside")])
def test_a_failure_tells_nothing_of_the_inside(ask, monkeypatch, failure):
    """An error of ours is 5xx without traceback or its text."""

    def fail(*_):
        raise failure

    monkeypatch.setattr("appliance.api.fleet.read_fleet", fail)
    status, document, response = ask("GET", "/api/fleet")
    assert status == (503 if isinstance(failure, OperationalError) else 500)
    assert document["error"]["message"]
    assert b"secret inside" not in response.content
    assert b"Traceback" not in response.content


def post(manage_key, **request):
    headers = {"Authorization": f"Bearer {manage_key}", **request.pop("headers", {})}
    return Client(raise_request_exception=False).generic("POST", "/api/keys", headers=headers, **request)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_bodies_are_json(manage_key, content_type):
    """Another content type is refused by name."""
    response = post(manage_key, data=b'{"name": "a"}', content_type=content_type)
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert "application/json" in response.json()["error"]["message"]


def test_bodies_are_bounded(manage_key):
    """One that is too long is refused by its announced length, one without a length at once."""
    large = post(manage_key, data=b" " * (MAX_BODY_BYTES + 1), content_type="application/json")
    assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")
    endless = post(manage_key, headers={"Transfer-Encoding": "chunked"}, CONTENT_LENGTH="")
    assert endless.status_code == 411


@pytest.mark.parametrize(
    "body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"name": NaN}', b"null", b'"text"', b"[]", b"9" * 5000, b""]
)
def test_what_is_no_object_is_refused(manage_key, body):
    """Broken, deep, huge or of another kind: 400."""
    response = post(manage_key, data=body, content_type="application/json")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid")


def test_answers_are_kept_by_nobody(ask):
    """No cache keeps what may be an operator's view, or a key."""
    assert ask("GET", "/api/nodes")[2]["Cache-Control"] == "no-store"
    assert ask("GET", "/api/nodes", by="stranger")[2]["Cache-Control"] == "no-store"

"""Who is let in, and as whom."""

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from appliance.api.app import api
from appliance.keys import create_key, revoke_key
from appliance.models import AuditEvent, Node

OPERATIONS = [
    (method, operation.path, operation)
    for bound in api._get_bound_routers()
    for view in bound.path_operations.values()
    for operation in view.operations
    for method in operation.methods
]


def concrete(path):
    return "/api" + (
        path.replace("{name}", "box-1").replace("{agent}", "minilm-000001").replace("{int:enrolment}", "1")
    )


def test_strangers_are_refused_everywhere(ask):
    """Without a credential each operation answers 401 in the one shape, and says how to get in."""
    for method, path, _ in OPERATIONS:
        status, document, response = ask(method, concrete(path), by="stranger")
        assert (status, document["error"]["code"]) == (401, "unauthorized"), (method, path)
        assert set(document["error"]) == {"message", "code", "hint"}
        assert response["WWW-Authenticate"] == "Bearer"


def test_an_account_without_a_role_may_do_nothing(ask):
    """Being logged in is not enough."""
    for method, path, _ in OPERATIONS:
        assert ask(method, concrete(path), by="charlie")[0] == 403, (method, path)


def test_a_viewer_changes_nothing(ask):
    """Viewers are refused whatever is not a GET."""
    for method, path, _ in OPERATIONS:
        if path != "/fleet":  # it asks the gateways; see test_fleet_and_records.py
            status = ask(method, concrete(path), by="vera")[0]
            assert (status == 403) == (method != "GET" or path in ("/audit", "/host-key")), (method, path)


def test_a_key_has_exactly_an_operators_rights(people):
    """For each operation the key's right and the role's are the same."""
    rights = {
        f"{one.content_type.app_label}.{one.codename}"
        for one in Group.objects.get(name="operator").permissions.select_related("content_type")
    }
    for _, path, operation in OPERATIONS:
        permission = operation.auth_callbacks[0].permission
        assert (permission in rights) == (not permission.startswith("auth.")), path
        assert {auth.permission for auth in operation.auth_callbacks} == {permission}


@pytest.mark.parametrize("by", ["vera", "oscar", "key"])
def test_the_audit_log_is_for_those_who_administer(ask, by):
    """Others, keys among them, are refused."""
    assert ask("GET", "/api/audit", by=by)[0] == 403
    status, document, _ = ask("GET", "/api/audit", by="alice")
    assert status == 200
    assert document["items"][0]["verb"] == "create_key"


@pytest.mark.parametrize(
    "header", ["Bearer mw-unknown", "Bearer ", "Bearer", "Bearer \xfc", "Basic YTpi", "mw-unknown"]
)
def test_a_wrong_credential_is_refused(ask, header):
    """What is no live key opens nothing."""
    status, document, response = ask("GET", "/api/nodes", by="stranger", Authorization=header)
    assert (status, response["WWW-Authenticate"]) == (401, "Bearer")
    assert "mw-unknown" not in str(document)


def test_a_wrong_key_beside_a_session_is_refused(people):
    """Whoever shows a key is judged by that key."""
    client = Client()
    client.force_login(people["alice"])
    assert client.get("/api/nodes", headers={"Authorization": "Bearer mw-no"}).status_code == 401


@pytest.mark.parametrize("scope", ["inference", "metrics"])
def test_a_key_needs_the_scope(ask, scope):
    """A key made for clients or for metrics does not manage."""
    secret = create_key("client", scopes=(scope,), actor="test").secret
    status, document, _ = ask("GET", "/api/nodes", by="stranger", Authorization=f"Bearer {secret}")
    assert (status, document["error"]["code"]) == (403, "insufficient_scope")
    assert secret not in str(document)


def test_a_revoked_key_is_refused_at_once(ask):
    """From the moment of revoking."""
    secret = create_key("second", scopes=("manage",), actor="test").secret
    headers = {"Authorization": f"Bearer {secret}"}
    assert ask("GET", "/api/nodes", by="stranger", **headers)[0] == 200
    revoke_key("second", actor="test")
    status, document, _ = ask("GET", "/api/nodes", by="stranger", **headers)
    assert (status, document["error"]["code"]) == (401, "invalid_api_key")


def test_a_session_needs_the_csrf_token_to_change_something(people, rows):
    """Another site cannot order anything with a person's cookie."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(people["oscar"])
    assert client.get("/api/nodes/box-1").status_code == 200
    refused = client.generic("POST", "/api/nodes/box-1/cordon")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "csrf")
    assert Node.objects.get(name="box-1").wanted == "ready"
    page = client.get("/api/docs").content.decode()
    token = page.split('data-csrf-token="')[1].split('"')[0]
    assert (
        client.generic("POST", "/api/nodes/box-1/cordon", headers={"X-CSRFToken": token}).status_code == 202
    )


@pytest.mark.parametrize(("by", "actor"), [("key", "key:robot"), ("oscar", "oscar")])
def test_the_audit_log_names_who_asked(ask, rows, by, actor):
    """A key by its name, a person by theirs."""
    assert ask("POST", "/api/nodes/box-1/cordon", by=by)[0] == 202
    assert AuditEvent.objects.get(verb="cordon_node").actor == actor

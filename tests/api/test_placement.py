"""Where agents of deployments go, over the API."""

import pytest

from appliance.models import AuditEvent, Deployment, Node

pytestmark = pytest.mark.django_db

PATH = "/api/deployments/minilm/placement"


def test_all_is_told_and_changed(ask, rows):
    """What is named is another, the rest stays, and forbidden nodes are told with the reason."""
    status, told, _ = ask("GET", PATH, by="vera")
    assert (status, told["settings"]["base"], told["forbidden"]) == (200, "owned", {})
    Node.objects.update_or_create(name="box-9", defaults={"address": "192.0.2.9", "labels": {"disk": "hdd"}})
    change = {"avoid": "disk=hdd", "spread": "region"}
    status, changed, _ = ask("PATCH", PATH, change, by="oscar")
    assert (status, changed["settings"]) == (200, told["settings"] | change)
    assert changed["forbidden"] == {"box-9": "has the label disk=hdd, which is avoided"}
    assert ask("PATCH", PATH, {})[1] == changed
    assert AuditEvent.objects.get(verb="set_placement").actor == "oscar"
    assert ask("PATCH", PATH, {"avoid": None})[1]["settings"] == told["settings"] | {"spread": "region"}
    assert ask("PATCH", PATH, dict.fromkeys(told["settings"]))[1]["settings"] == told["settings"]
    assert Deployment.objects.get().placement == {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"spread": "rack"}, "spread 'rack' is not accepted: one of none, node, region"),
        ({"require": "disk"}, "require 'disk' is not accepted"),
        ({"require": ["disk"]}, "require: input should be a valid string"),
        ({"max": 3}, "max: extra inputs"),
    ],
)
def test_a_wrong_setting_changes_nothing(ask, rows, body, words):
    """The field, the value and what is accepted are named; what stood beside it is not done."""
    status, document, _ = ask("PATCH", PATH, {"prefer": "cost"} | body)
    assert (status, document["error"]["code"]) == (400, "invalid")
    assert words in document["error"]["message"]
    assert Deployment.objects.get().placement == {}


def test_of_what_is_not_there(ask, rows):
    """404 where there is no such deployment, 409 where it is being removed, 403 for who may only look."""
    assert ask("PATCH", "/api/deployments/nothing/placement", {})[0] == 404
    assert ask("GET", "/api/deployments/nothing/placement")[0] == 404
    assert ask("PATCH", PATH, {"prefer": "cost"}, by="vera")[0] == 403
    ask("DELETE", "/api/deployments/minilm")
    assert ask("PATCH", PATH, {"prefer": "cost"})[0] == 409

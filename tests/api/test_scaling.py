"""How deployments scale, over the API."""

import pytest
from django.utils import timezone

from appliance.models import AuditEvent, Decision, Deployment
from appliance.policies.scaling_keys import KEYS

pytestmark = pytest.mark.django_db

PATH = "/api/deployments/minilm/scaling"
WORK = "mon-fri 08:00-18:00 Europe/Berlin min=2"


def test_all_is_told(ask, rows):
    """Every key with its value, how many are wanted, and the last decision with what each rule asked."""
    Decision.objects.all().delete()
    assert ask("GET", PATH, by="vera")[1]["decision"] is None
    Decision.objects.create(
        at=timezone.now(), deployment="minilm", trigger="tick", before=1, want=3, after=2,
        inputs={"ready": 1, "want_wait": 3, "want_cpu": None}, clamps=["max 2"], reason="3 asked",
        actions=["create an agent on local"],
    )  # fmt: skip
    status, told, _ = ask("GET", PATH, by="vera")
    assert (status, told["name"]) == (200, "minilm")
    assert set(told["settings"]) == {*KEYS, "paused", "dry_run", "schedule"}
    assert (told["settings"]["max"], told["settings"]["idle_s"], told["settings"]["hold"]) == (4, 75, None)
    assert told["decision"]["wants"] == {"wait": 3, "cpu": None}
    assert told["decision"]["clamps"] == ["max 2"]
    assert told["decision"]["actions"] == ["create an agent on local"]
    assert ask("GET", "/api/deployments/nothing/scaling")[0] == 404


def test_what_is_named_is_changed(ask, rows):
    """The rest stays; null is the default again; who did it is in the audit log."""
    change = {"min": 0, "idle_s": 12.5, "hold": 2, "schedule": [WORK], "paused": True}
    status, changed, _ = ask("PATCH", PATH, change, by="oscar")
    assert (status, changed["late_gateways"]) == (200, [])
    assert change.items() <= changed["settings"].items()
    assert (changed["settings"]["max"], AuditEvent.objects.get(verb="set_scaling").actor) == (4, "oscar")
    back = ask("PATCH", PATH, {"idle_s": None, "hold": None, "schedule": None, "paused": None})[1]["settings"]
    assert (back["idle_s"], back["hold"], back["schedule"], back["paused"]) == (75, None, [], False)
    assert ask("PATCH", PATH, {})[0] == 200
    assert ask("PATCH", PATH, {"min": 0}, by="vera")[0] == 403


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"min": 5}, "max=4 is below min=5"),
        ({"max": None}, "max: input should be a valid integer"),
        ({"tolerance": 2}, "tolerance: 2 is not accepted"),
        ({"max": 1.5}, "max: 1.5 is not accepted"),
        ({"hold": "2"}, "hold: '2' is not accepted"),
        ({"schedule": ["mon"]}, "schedule 'mon' is not accepted"),
        ({"schedule": WORK}, "schedule: "),
        ({"idle": 3}, "idle: extra inputs"),
    ],
)
def test_a_wrong_value_changes_nothing(ask, rows, body, words):
    """The key, the value and what is accepted are named."""
    status, document, _ = ask("PATCH", PATH, {"stabilization_s": 3} | body)
    assert (status, document["error"]["code"]) == (400, "invalid")
    assert words in document["error"]["message"]
    assert Deployment.objects.get().scaling == {}


def test_null_is_the_default_in_a_preview_too(ask, rows):
    """As in a change; nothing is changed."""
    status, told, _ = ask(
        "POST", f"{PATH}/preview", {"changes": {"idle_s": None, "schedule": None, "max": 2}}
    )
    assert (status, told["old"]) == (200, None)
    assert ask("POST", f"{PATH}/preview", {"changes": {"max": None}})[0] == 400
    assert Deployment.objects.get().max_agents == 4


def test_one_that_goes_is_left_alone(ask, rows):
    """409."""
    Deployment.objects.update(removing=True)
    assert ask("PATCH", PATH, {"idle_s": 3})[0] == 409

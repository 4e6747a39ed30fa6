"""Nodes that sleep, on the pages: what is told, what can be ordered, and the form of the fleet."""

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from appliance.models import AuditEvent, Node
from appliance.models.power import power_rules

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])
WOL = "wol:52:54:00:12:34:56"


@pytest.fixture
def operator(log_in):
    """Logged in as one who may change nodes."""
    return log_in("oscar")


@pytest.fixture
def box(deployment):
    """A node that can be woken."""
    now = timezone.now()
    return Node.objects.create(name="box-9", address="192.0.2.9", enrolled_at=now, seen_at=now, power=WOL)


def change(**columns):
    Node.objects.filter(name="box-9").update(**columns)


def shown(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


ASLEEP = {"power_stage": "asleep", "seen_at": None}


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, ("ready", "", {"suspend"})),
        ({"power": ""}, ("ready", "", set())),
        ({"power_stage": "leaving"}, ("draining", "goes to sleep by load: its agents leave", {"wake"})),
        (ASLEEP, ("asleep", "asleep by load", {"wake"})),
        (ASLEEP | {"power_wanted": "asleep"}, ("asleep", "asleep by order", {"wake"})),
        (ASLEEP | {"power_wanted": "awake"}, ("asleep", "asleep by order", set())),
        ({"power_stage": "waking", "power_tries": 2}, ("waking", "waking by load, try 2", {"wake"})),
        ({"seen_at": None}, ("unreachable", "never seen", {"suspend", "wake"})),
    ],
)
def test_each_stage_is_told_with_what_can_be_ordered(operator, box, columns, told):
    """State, words and buttons fit; a node that sleeps is no alarm."""
    state, words, orders = told
    change(**columns)
    for path in ("/nodes/", "/nodes/box-9/"):
        page = shown(operator, path)
        assert f'data-state="{state}"' in page
        assert words in page or path == "/nodes/box-9/"
    assert {key for key in ("suspend", "wake") if f'id="mw-{key}"' in page} == orders
    assert "mw-banner" not in page


def test_orders(operator, log_in, box):
    """A confirmed order calls the verb as the person who gave it; a viewer may not."""
    assert "Then the machine sleeps" in shown(operator, "/nodes/box-9/order/suspend/")
    page = operator.post("/nodes/box-9/order/suspend/", follow=True).content.decode()
    assert "box-9 goes to sleep." in page
    change(power_stage="asleep", seen_at=timezone.now() - timedelta(days=1))
    operator.post("/nodes/box-9/order/wake/")
    assert Node.objects.get(name="box-9").power_wanted == "awake"
    verbs = AuditEvent.objects.filter(target="box-9").order_by("id").values_list("actor", "verb")
    assert list(verbs) == [("oscar", "suspend_node"), ("oscar", "wake_node")]
    assert log_in("vera").post("/nodes/box-9/order/wake/").status_code == 403


def test_a_box_that_did_not_wake(viewer, box):
    """The problem stands on the page with what to do."""
    problem = {"code": "did_not_wake", "message": "it did not answer", "remedy": "look", "since": time.time()}
    change(seen_at=None, problems=[problem])
    page = shown(viewer, "/nodes/box-9/")
    assert "it did not answer" in page
    assert "mw-banner" in page


def test_the_fleets_settings(operator, log_in, box):
    """The form shows and changes them; what is not accepted is said at its field; viewers find no way."""
    assert 'id="mw-power"' in shown(operator, "/nodes/")
    page = shown(operator, "/power/")
    assert 'name="sleep_after_s" value="600"' in page
    kept = {"sleep_how": "suspend", "headroom_nodes": 1, "headroom_agents": 0, "stay_awake_s": 300,
            "wake_timeout_s": 180, "changes_per_10min": 4, "changes_per_tick": 2}  # fmt: skip
    given = kept | {f"initial-{key}": value for key, value in kept.items()} | {"initial-sleep_after_s": 600}
    page = operator.post("/power/", given | {"sleep_after_s": 60}, follow=True).content.decode()
    assert "changed: sleep_after_s." in page
    assert power_rules().sleep_after_s == 60
    page = operator.post("/power/", given | {"sleep_after_s": 60, "wake_timeout_s": 1}).content.decode()
    assert "greater than or equal to 5" in page
    assert AuditEvent.objects.get(verb="set_power").actor == "oscar"
    viewer = log_in("vera")
    assert 'id="mw-power"' not in shown(viewer, "/nodes/")
    assert viewer.get("/power/").status_code == 403

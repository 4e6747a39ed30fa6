"""Nodes' power over the API."""

import pytest

from appliance.models import AuditEvent, Node

pytestmark = pytest.mark.django_db
WOL = "wol:52:54:00:12:34:56"


def test_a_node_is_put_to_sleep_and_woken(ask, rows):
    """The orders are written down, with how; what stands against one is a conflict."""
    status, document, _ = ask("POST", "/api/nodes/box-1/suspend")
    assert (status, document["error"]["code"]) == (409, "conflict")
    ask("PATCH", "/api/nodes/box-1", {"power": WOL})
    status, document, _ = ask("POST", "/api/nodes/box-1/suspend", {"how": "power_off"}, by="oscar")
    assert (status, document["power_wanted"], document["power_stage"]) == (202, "asleep", "")
    assert Node.objects.get(name="box-1").power_how == "power_off"
    status, document, _ = ask("POST", "/api/nodes/box-1/wake", by="oscar")
    assert (status, document["power_wanted"]) == (202, "awake")
    assert ask("POST", "/api/nodes/local/wake")[0] == 409
    for wrong in ({"how": "nap"}, {"no_wake": 1}, {"force": True}):
        assert ask("POST", "/api/nodes/box-1/suspend", wrong)[0] == 400
    assert ask("POST", "/api/nodes/box-1/suspend?how=power_off")[0] == 400
    told = AuditEvent.objects.filter(actor="oscar").order_by("id").values_list("verb", flat=True)
    assert list(told) == ["suspend_node", "wake_node"]


def test_when_nodes_sleep_is_told_and_changed(ask, rows):
    """All settings, what is named becomes another, and a wrong value changes nothing."""
    before = ask("GET", "/api/power", by="vera")[1]
    assert (before["sleep_after_s"], before["headroom_nodes"]) == (600, 1)
    change = {"sleep_after_s": 60, "sleep_how": "power_off"}
    assert ask("PATCH", "/api/power", change, by="oscar")[:2] == (200, before | change)
    status, document, _ = ask("PATCH", "/api/power", {"headroom_nodes": 2, "changes_per_tick": 0})
    assert status == 400
    assert "changes_per_tick: 0 is not accepted" in document["error"]["message"]
    assert ask("GET", "/api/power")[1] == before | change
    assert ask("PATCH", "/api/power", change, by="vera")[0] == 403
    assert ask("PATCH", "/api/power", {"sleep_after_s": None})[1] == before | {"sleep_how": "power_off"}
    assert ask("PATCH", "/api/power", dict.fromkeys(before))[1] == before

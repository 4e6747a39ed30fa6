"""Who measures itself now: only where others carry the load, or people ordered it."""

from dataclasses import replace

import pytest

from appliance.policies.calibration import (
    AGAIN_S,
    QUIET_PERCENT,
    SETTLED_S,
    Candidate,
    choose_measurement,
    waits_for,
)

NOW = 1_000_000.0
FREE = Candidate(
    agent="mini-1", node="local", ready_for_s=60.0, other_slots=16, active=2, queued=0, busy_percent=5.0,
    measured=False, ordered=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        pytest.param({}, True, id="others carry the load"),
        pytest.param({"measured": True}, False, id="known already"),
        pytest.param({"ready_for_s": SETTLED_S - 1}, False, id="just started"),
        pytest.param({"other_slots": 0, "active": 0}, False, id="alone, also without load"),
        pytest.param({"active": 9}, False, id="too much load"),
        pytest.param({"queued": 1}, False, id="requests wait"),
        pytest.param({"busy_percent": QUIET_PERCENT + 1}, False, id="the box is busy"),
        pytest.param({"busy_percent": None}, False, id="nobody says how busy"),
        pytest.param({"failed_at": NOW - AGAIN_S / 2}, False, id="just failed"),
        pytest.param({"failed_at": NOW - AGAIN_S}, True, id="failed long ago"),
    ],
)
def test_unasked(changes, measured):
    """Nobody ordered it: only where it harms nobody and tells something."""
    chosen = choose_measurement([replace(FREE, **changes)], NOW)
    assert (chosen is not None) == measured


@pytest.mark.parametrize(
    ("changes", "waits"),
    [
        pytest.param({}, "", id="others have room"),
        pytest.param({"measured": True, "busy_percent": 100.0, "ready_for_s": 0.0}, "", id="again, at once"),
        pytest.param({"other_slots": 0, "active": 0}, "", id="alone without load"),
        pytest.param({"other_slots": 0, "active": 1}, "no other agent", id="alone with load"),
        pytest.param({"active": 17}, "no room", id="others are full"),
        pytest.param({"queued": 1}, "no room", id="requests wait"),
    ],
)
def test_ordered(changes, waits):
    """People ordered it: it waits for nothing but others that carry the load."""
    candidate = replace(FREE, ordered=True, **changes)
    assert waits in waits_for(candidate)
    assert bool(waits_for(candidate)) == bool(waits)
    assert (choose_measurement([candidate], NOW) is None) == bool(waits)


def test_orders_come_first():
    """An order on one node goes before what would be measured anyway."""
    ordered = replace(FREE, agent="mini-2", node="box-1", ordered=True)
    assert choose_measurement([FREE, ordered], NOW) == ordered
    assert choose_measurement([], NOW) is None

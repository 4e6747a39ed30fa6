"""What agents say of their speed, on its way through a gateway."""

from dataclasses import replace

import msgspec
import pytest

from agents.protocol import AgentState, LoadReport
from appliance.gateway.metrics import report_speed
from appliance.policies.report import SpeedReport


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param({}, True, id="speed"),
        pytest.param({"threads": 0}, False, id="an older agent"),
        pytest.param({"capacity_rps": float("nan")}, False, id="no number"),
        pytest.param({"fixed_s": "fast"}, False, id="text"),
        pytest.param({"workers": -1}, False, id="below zero"),
        pytest.param({"engine": "x" * 65}, False, id="a name too long"),
    ],
)
def test_only_a_speed_is_passed_on(said, told):
    """What an agent says of its speed never makes the gateway's report unreadable."""
    load = LoadReport(
        1, "a", "d", "r", AgentState.READY, 2, 8, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0, 1.0,
        threads=1, engine="fake", engine_version="1", batches_total=9, fixed_s=0.1, capacity_rps=5.0,
    )  # fmt: skip
    speed = report_speed(replace(load, **said))
    assert (speed is not None) == told
    if speed is not None:
        assert msgspec.json.decode(msgspec.json.encode(speed), type=SpeedReport) == speed

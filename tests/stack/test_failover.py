"""Agents that die or stand still under load: real processes, and not one request fails."""

import pytest

from tests.bench.failover import AGENTS, KILL_60, KILL_80, OURS, STOP_60, Timing, measure_fault
from tests.bench.inputs import write_bodies
from tests.bench.plant import AgentKind, Plant

pytestmark = pytest.mark.slow


@pytest.fixture
def bodies(tmp_path):
    path = tmp_path / "bodies.jsonl"
    write_bodies(path)
    return path


@pytest.mark.parametrize("scenario", [KILL_60, KILL_80, STOP_60], ids=lambda scenario: scenario.name)
def test_no_request_fails(bodies, tmp_path, scenario):
    """What the agent had is answered elsewhere, it comes back, and all that was accepted ended once."""
    # At half the benchmark's rate the gateway leaves the machine room for whatever else it does.
    with Plant(tmp_path / "plant", [AgentKind(20)] * AGENTS) as plant:
        fault = measure_fault(plant, bodies, scenario, 0, Timing(before_s=2.0, after_s=5.0))
    assert (fault.server, fault.failures, fault.unbalanced) == (OURS, {}, "")
    assert fault.requests > 300
    assert fault.ready_s is not None

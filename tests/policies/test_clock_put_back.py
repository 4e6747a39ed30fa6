"""The clock was put back by an hour: what waits for a time that is far off does not wait for it."""

from dataclasses import replace

import pytest
from fleet_builders import NOW, agent, agent_report, deployment, gateway_report, snapshot

from appliance.policies.actions import Start, Stop
from appliance.policies.moving import MOST_MOVES, moves_left
from appliance.policies.power_facts import PowerNode, PowerSettings
from appliance.policies.power_steps import next_step
from appliance.policies.reconcile import plan

LATER = NOW + 3600.0


def test_a_failed_agent_is_started_again():
    """Its next start was planned for an hour from now: nothing is planned so far ahead, so it comes now."""
    failed = agent(state="failed", attempt=4, retry_at=LATER, started_at=LATER, ready_at=None, pid=None)
    assert plan(snapshot(agents=[failed], running={})).actions == (Start("mini-1", "local"),)


@pytest.mark.parametrize(
    "times",
    [
        pytest.param({"unready_at": LATER, "started_at": LATER}, id="since an hour from now"),
        pytest.param({"unready_at": NOW - 20}, id="for twenty seconds"),
    ],
)
def test_one_that_hangs_is_ended(times):
    """One that is not ready since a time to come has its time from now on; it is not left for an hour."""
    waiting = agent(**{"state": "starting", "ready_at": None, **times})
    reports = [gateway_report(agent_report(state="connecting"), at=LATER)]
    fleet = snapshot(agents=[waiting], reports=reports, heard_since=NOW - 100)
    decided = plan(fleet)
    if waiting.unready_at > NOW:
        (waiting,) = decided.agents
        assert (waiting.unready_at, decided.actions) == (NOW, ())
        decided = plan(replace(fleet, now=NOW + 11, agents=(waiting,)))
    assert decided.actions == (Stop("mini-1", "local", kill=True),)


def test_moves_of_the_future_are_no_moves():
    """They would use up what may be moved until the clock is there again."""
    moved = deployment(moves=(LATER,) * MOST_MOVES)
    assert moves_left(snapshot(deployments=(moved,))) == MOST_MOVES


def test_a_node_that_is_back_is_back():
    """It was sent for an hour from now, and answers: it serves."""
    node = PowerNode("n", stage="waking", stage_at=LATER, tries=1, awake=True, seen_at=NOW - 1)
    step = next_step(node, PowerSettings(), NOW)
    assert step is not None
    assert (step.changes["power_stage"], step.words) == ("", "awake")

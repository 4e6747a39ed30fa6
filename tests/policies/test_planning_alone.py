"""What must not spread: a deployment that cannot be planned or read, a gateway that says nothing."""

from dataclasses import replace

from fleet_builders import (
    NOW,
    agent,
    agent_report,
    deployment,
    deployment_report,
    gateway_report,
    snapshot,
)
from placement_builders import calm

from appliance.policies.actions import Start, Stop
from appliance.policies.reconcile import plan


def fleet(odd):
    """Agent `mini-1` is gone; deployment `odd` has one that runs."""
    agents = [agent(), agent("odd-1", deployment="odd", pid=12)]
    one = deployment(scaling_state=calm())
    return snapshot(agents=agents, deployments=[one, *odd], running={"odd-1": 12})


def test_one_that_cannot_be_planned_stops_no_other():
    """A memory that contradicts itself: nothing is done with it, and it is thrown away; others are mended."""
    broken = replace(calm(), steps=((None, 1),))
    decided = plan(fleet([deployment("odd", desired=3, scaling_state=broken)]))
    assert decided.actions == (Start("mini-1", "local"),)
    odd = decided.deployments[1]
    assert (odd.desired, odd.kind, odd.scaling_state, odd.did) == (3, "fault", None, ())
    assert "could not be planned: TypeError" in odd.problem
    healed = plan(fleet([deployment("odd", desired=3, scaling_state=odd.scaling_state)]))
    assert (healed.deployments[1].kind, healed.deployments[1].scaling_state.at) == ("panic", NOW)


def test_a_silent_gateway_may_be_served_where_others_see_nothing():
    """One that the others do not reach is ended only when what the silent one may have given it is over."""
    waiting = agent(state="starting", ready_at=None, unready_at=NOW - 30)
    reports = [gateway_report(agent_report(state="connecting"), deployments=[deployment_report()])]
    fleet = snapshot(agents=[waiting], reports=reports)
    assert plan(fleet).actions == (Stop("mini-1", "local", kill=True),)
    unheard = replace(fleet, silent=("gateway-2",))
    assert plan(unheard).actions == ()
    late = replace(waiting, unready_at=NOW - 80)
    assert plan(replace(unheard, agents=(late,))).actions == (Stop("mini-1", "local", kill=True),)


def test_agents_of_one_that_cannot_be_read_stay_in_the_plan():
    """Without its deployment an agent is neither ended nor forgotten: its node is not empty."""
    decided = plan(fleet([]))
    assert decided.actions == (Start("mini-1", "local"),)
    assert {one.id: one.wanted for one in decided.agents} == {"mini-1": "warm", "odd-1": "warm"}

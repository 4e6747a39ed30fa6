"""How many agents it takes on boxes that are not alike."""

from dataclasses import replace

import pytest
from fleet_builders import NOW, agent_report, deployment_report, gateway_report
from placement_builders import World, busy, fleet, link_state, node, on, wanted

from appliance.policies.actions import Create
from appliance.policies.reconcile import plan

FAST, USUAL, SLOW = 200.0, 100.0, 50.0


def asked(units, agents, nodes, speeds, *, least=1, most=20):
    """The plan where the load asks for so many average agents, each of 100 requests/s."""
    one = wanted(len(agents), least=least, most=most, unit_rps=USUAL, capacities=speeds)
    one = replace(one, desired_rps=len(agents) * USUAL)
    seen = [agent_report(each.id, link_state(each)) for each in agents]
    report = gateway_report(*seen, deployments=[busy(units)], at=NOW)
    return plan(fleet(nodes, agents, [one], reports=[report]))


@pytest.mark.parametrize(
    ("units", "speed", "agents"),
    [
        pytest.param(3, FAST, 2, id="two fast ones do three"),
        pytest.param(4, FAST, 2, id="two fast ones do four"),
        pytest.param(3, SLOW, 6, id="it takes six slow ones"),
        pytest.param(3, USUAL, 3, id="as many as asked"),
        pytest.param(3, 97.0, 3, id="a little less is no reason for one more"),
    ],
)
def test_agents_count_by_what_they_do(units, speed, agents):
    """The sum of what they do covers what is asked; the decision says so where the number is another."""
    names = [f"n{number}" for number in range(8)]
    nodes = [node(name) for name in names]
    decided = asked(units, [], nodes, dict.fromkeys(names, speed))
    each = decided.deployments[0]
    assert (each.desired, len(decided.actions)) == (agents, agents)
    assert len({action.node for action in decided.actions}) == agents
    assert each.inputs["asked_agents"] == units
    if agents != units:
        assert f"asked {units} average agents; {agents} on these boxes do" in " ".join(each.clamps)
        assert each.clamps[-1] in each.reason


def test_unknown_speeds_count_as_one():
    """Where no speed is known the number is what was asked."""
    decided = asked(3, [], [node("a"), node("b")], {})
    assert decided.deployments[0].desired == 3
    assert "asked_agents" not in decided.deployments[0].inputs


def test_a_box_of_unknown_speed_counts_by_its_cores():
    """As fast a core as those that are known: eight of them do four times what two do."""
    decided = asked(4, [], [node("a", cores=2), node("b", cores=8)], {"a": USUAL})
    assert decided.actions == (Create("mini", 1, "b"),)


def test_bounds_are_of_agents():
    """Minimum and maximum count agents, whatever they do."""
    names = [f"n{number}" for number in range(8)]
    nodes = [node(name) for name in names]
    many = asked(6, [], nodes, dict.fromkeys(names, SLOW), most=5)
    assert many.deployments[0].desired == 5
    assert "max 5" in " ".join(many.deployments[0].clamps)
    fast = asked(8, [], nodes, dict.fromkeys(names, FAST), most=4)
    assert fast.deployments[0].desired == 4
    few = asked(0, on(names[:2]), nodes, dict.fromkeys(names, SLOW), least=2)
    assert (few.deployments[0].desired, few.actions) == (2, ())


def test_agents_that_share_a_box_share_what_it_does():
    """Two on one box do no more than one: beyond what was asked none is added there."""
    decided = asked(2, on(["a"]), [node("a")], {"a": USUAL})
    assert decided.deployments[0].desired == 2
    after = asked(2, on(["a", "a"]), [node("a")], {"a": USUAL})
    assert (after.deployments[0].desired, after.actions) == (2, ())
    assert "share" in " ".join(after.deployments[0].clamps)
    wider = asked(2, on(["a", "a"]), [node("a"), node("b")], {"a": USUAL, "b": USUAL})
    assert wider.actions == (Create("mini", 1, "b"),)


def test_others_on_the_box_take_their_part():
    """An agent beside another deployment's on its box counts as a half."""
    mine = wanted(1, least=1, unit_rps=USUAL, capacities={"a": USUAL, "b": USUAL}, desired_rps=USUAL)
    other = wanted(1, "big")
    agents = on(["a"]) + on(["a"], owner="big")
    counts = [busy(1), deployment_report("big")]
    seen = [agent_report(one.id) for one in agents]
    report = gateway_report(*seen, deployments=counts, at=NOW)
    decided = plan(fleet([node("a"), node("b")], agents, [mine, other], reports=[report]))
    assert decided.actions == (Create("mini", 1, "b"),)


def test_a_ready_one_waits_for_the_one_that_makes_it_superfluous():
    """A fast agent that only starts does not yet let the slow ones go."""
    agents = on(["slow-1", "slow-2"]) + on(["fast"], owner="mini")
    agents[2] = replace(agents[2], id="mini-3", state="starting", ready_at=None)
    nodes = [node("slow-1"), node("slow-2"), node("fast")]
    speeds = {"slow-1": SLOW, "slow-2": SLOW, "fast": FAST}
    waiting = asked(2, agents, nodes, speeds)
    assert {one.wanted for one in waiting.agents} == {"warm"}
    ready = [*agents[:2], replace(agents[2], state="ready", ready_at=NOW)]
    after = asked(2, ready, nodes, speeds)
    assert {one.id for one in after.agents if one.wanted == "warm"} == {"mini-3"}


def test_missing_data_takes_nobody_away():
    """Where nobody reports the number of agents stays, whatever they are thought to do."""
    one = wanted(3, least=1, unit_rps=USUAL, capacities=dict.fromkeys("abc", FAST), desired_rps=3 * USUAL)
    decided = plan(fleet([node(name) for name in "abc"], on("abc"), [one], reports=[]))
    assert (decided.deployments[0].desired, decided.actions) == (3, ())


def test_a_speed_that_is_learned_anew_does_not_flap():
    """A figure that moves by a tenth adds and removes nobody."""
    nodes = [node(name) for name in "abcd"]
    for speed in (95.0, 105.0, 93.0, 100.0):
        decided = asked(3, on("abc"), nodes, dict.fromkeys("abcd", speed))
        assert (decided.deployments[0].desired, decided.actions) == (3, ())


def test_a_step_of_load_on_a_mixed_fleet():
    """Up to what the boxes do, down again, and at rest in between."""
    speeds = {"fast": 400.0, "usual": USUAL, "slow-1": SLOW, "slow-2": SLOW}
    world = World(
        [node("fast", cores=8), node("usual"), node("slow-1", cores=1), node("slow-2", cores=1)], [],
        [wanted(0, least=0, unit_rps=USUAL, capacities=speeds)],
    )  # fmt: skip
    world.load["mini"] = 4
    world.settle()
    assert world.where() == ["fast"]
    world.load["mini"] = 6
    world.settle()
    assert world.where() == ["fast", "slow-1", "slow-2", "usual"]
    world.load["mini"] = 1
    world.settle()
    assert len(world.where()) == 1


def test_lack_of_room_is_told():
    """Where slow boxes are full and do too little, one more is wanted, and people read why there is none."""
    names = ["a", "b"]
    nodes = [node(name, ram_gb=0.35) for name in names]
    decided = asked(2, on(names), nodes, dict.fromkeys(names, SLOW))
    each = decided.deployments[0]
    assert (each.desired, decided.actions) == (3, ())
    assert "no room for more" in each.reason
    assert "a has 46 MB of RAM left" in each.problem


def beyond_most(units, *, silent=(), recent=()):
    """Four fast agents are all that may be, and the load asks for so many average ones."""
    names = [f"n{number}" for number in range(6)]
    one = wanted(4, least=1, most=4, unit_rps=USUAL, capacities=dict.fromkeys(names, FAST))
    one = replace(one, desired_rps=4 * USUAL, scaling_state=replace(one.scaling_state, recent=recent))
    agents = on(names[:4])
    seen = [agent_report(each.id, link_state(each)) for each in agents]
    report = gateway_report(*seen, deployments=[busy(units)], at=NOW)
    nodes = [node(name) for name in names]
    return plan(fleet(nodes, agents, [one], reports=[report], silent=silent)).deployments[0]


def test_beyond_the_maximum_a_silent_gateway_lowers_nothing_either():
    """Three would do what is seen; a gateway that is silent may have more, so all four stay."""
    assert beyond_most(6).desired == 3
    stays = beyond_most(6, silent=("gateway-2",))
    assert (stays.desired, stays.did) == (4, ())
    assert "something is missing: never down" in stays.reason


def test_beyond_the_maximum_a_dip_lowers_nothing():
    """What was asked within the stabilisation window is kept, though it is more than the maximum."""
    dip = beyond_most(6, recent=((NOW - 10, 8),))
    assert (dip.desired, dip.did) == (4, ())
    assert beyond_most(6, recent=((NOW - 100, 8),)).desired == 3

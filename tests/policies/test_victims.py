"""Who leaves where there are too many."""

from dataclasses import replace

import pytest
from fleet_builders import NOW, agent_report, deployment_report, gateway_report
from placement_builders import fleet, link_state, node, on, wanted

from appliance.policies.placement_rules import PlacementRules
from appliance.policies.reconcile import plan

NODES = [node("a"), node("b"), node("c")]


def leaving(agents, *, keep, nodes=NODES, reports=None, others=(), rules=None):
    """The agents that are drained where so many are wanted."""
    wants = [wanted(keep, least=keep, most=keep, rules=rules)]
    wants[0] = replace(wants[0], desired=len(agents))
    everyone = [*agents, *others]
    names = sorted({one.deployment for one in others})
    wants += [wanted(sum(one.deployment == name for one in others), name) for name in names]
    said = reports or {}
    seen = [
        agent_report(one.id, said.get(one.id, {}).get("state", link_state(one)),
                     **{key: value for key, value in said.get(one.id, {}).items() if key != "state"})
        for one in everyone
    ]  # fmt: skip
    report = gateway_report(*seen, deployments=[deployment_report(one.name) for one in wants], at=NOW)
    decided = plan(fleet(nodes, everyone, wants, reports=[report]))
    return [one.id for one in decided.agents if one.wanted == "draining"]


def changed(agents, number, **given):
    """The same agents, the one of that number as given."""
    return [replace(one, **given) if one.id == f"mini-{number}" else one for one in agents]


THREE = on("abc")


@pytest.mark.parametrize(
    ("agents", "reports", "gone"),
    [
        pytest.param(changed(THREE, 2, state="starting", ready_at=None), {}, "mini-2", id="who is not ready"),
        pytest.param(THREE, {"mini-2": {"state": "ejected"}}, "mini-2", id="who is ejected"),
        pytest.param(changed(THREE, 2, attempt=2, ready_at=NOW - 2), {}, "mini-2", id="after a crash"),
        pytest.param(
            THREE, {"mini-1": {"in_flight": 2}, "mini-3": {"in_flight": 1}}, "mini-2", id="who is idle",
        ),
        pytest.param(
            THREE, {"mini-1": {"idle_s": 3.0}, "mini-2": {"idle_s": 60.0}, "mini-3": {"idle_s": 9.0}},
            "mini-2", id="who was needed longest ago",
        ),
        pytest.param(
            THREE, {"mini-1": {"idle_s": 3.0}, "mini-2": {}, "mini-3": {"idle_s": 9.0}}, "mini-2",
            id="who was never needed",
        ),
        pytest.param(changed(THREE, 2, created_at=NOW - 50), {}, "mini-2", id="the newest of those alike"),
        pytest.param(on("abb"), {"mini-1": {"idle_s": 60.0}, "mini-2": {"idle_s": 1.0},
                                 "mini-3": {"idle_s": 2.0}}, "mini-3", id="beside another of its own"),
    ],
)  # fmt: skip
def test_who_goes(agents, reports, gone):
    """Of three one is too many."""
    assert leaving(agents, keep=2, reports=reports) == [gone]


@pytest.mark.parametrize(
    ("facts", "rules", "gone"),
    [
        pytest.param(
            {"preemptible": True}, None, ["mini-2"], id="beyond the first agents on a preemptible node"
        ),
        pytest.param({"cost_per_hour": 0.5}, None, ["mini-2"], id="on the node that costs most"),
        pytest.param({"can_sleep": True}, None, ["mini-2"], id="on the node that could sleep"),
        pytest.param(
            {"preemptible": True}, PlacementRules(base="any"), ["mini-3"], id="no matter where not asked"
        ),
    ],
)
def test_the_node_that_is_worth_leaving(facts, rules, gone):
    """What its emptying saves counts before who was needed longest ago."""
    nodes = [node("a"), node("b", **facts), node("c")]
    reports = {"mini-1": {"idle_s": 1.0}, "mini-2": {"idle_s": 1.0}, "mini-3": {"idle_s": 90.0}}
    assert leaving(THREE, keep=2, nodes=nodes, reports=reports, rules=rules) == gone


def test_a_node_that_others_keep_on_saves_nothing():
    """Its cost is no reason while another deployment's agents are there."""
    nodes = [node("a"), node("b", cost_per_hour=9.0), node("c")]
    reports = {"mini-3": {"idle_s": 90.0}, "mini-1": {"idle_s": 1.0}, "mini-2": {"idle_s": 1.0}}
    assert leaving(THREE, keep=2, nodes=nodes, reports=reports, others=on("b", owner="big")) == ["mini-3"]


def test_what_is_left_is_spread():
    """Of six on three nodes, as many stay on each."""
    gone = leaving(on("aaabbc"), keep=3)
    left = {one.node for one in on("aaabbc") if one.id not in gone}
    assert left == {"a", "b", "c"}


def test_what_is_left_is_spread_over_regions():
    """The region with most gives one up first."""
    nodes = [node("a", region="east"), node("b", region="east"), node("c", region="west")]
    reports = {"mini-3": {"idle_s": 90.0}, "mini-1": {"idle_s": 1.0}, "mini-2": {"idle_s": 2.0}}
    rules = PlacementRules(spread="region")
    assert leaving(THREE, keep=2, nodes=nodes, rules=rules, reports=reports) == ["mini-2"]


def test_where_few_nodes_are_asked_the_emptiest_is_left():
    """All of the node with the fewest goes before any other."""
    rules = PlacementRules(prefer="fewest")
    assert leaving(on("aaabbc"), keep=3, rules=rules) == ["mini-4", "mini-5", "mini-6"]


def test_nobody_goes_whose_leaving_takes_too_much():
    """A fast agent stays where the slow ones could not do without it, though it is longest idle."""
    speeds = {"a": 400.0, "b": 100.0, "c": 100.0}
    one = wanted(3, least=1, most=5, unit_rps=100.0, capacities=speeds, desired_rps=600.0)
    counts = [deployment_report(in_flight=40, concurrency_s=40_000.0)]
    seen = [agent_report("mini-1", idle_s=500.0), agent_report("mini-2", idle_s=1.0), agent_report("mini-3")]
    decided = plan(fleet(NODES, THREE, [one], reports=[gateway_report(*seen, deployments=counts, at=NOW)]))
    assert {one.id for one in decided.agents if one.wanted == "warm"} == {"mini-1"}

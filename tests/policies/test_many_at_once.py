"""A thousand new agents at once: each tick makes some of them, and nobody waits for another's many."""

from collections import Counter
from dataclasses import replace

from fleet_builders import NOW
from placement_builders import fleet, node, on, wanted

from appliance.policies.actions import Create, Start
from appliance.policies.reconcile import plan
from appliance.policies.spaces import ALWAYS_STARTED, MOST_STARTED, MOST_STARTED_ON_NODE


def made(nodes, *deployments):
    """What one plan creates, by deployment and by node, and its problems."""
    decided = plan(fleet(nodes, [], list(deployments)))
    new = [one for one in decided.actions if isinstance(one, Create)]
    problems = [one.problem for one in decided.deployments]
    return Counter(one.deployment for one in new), Counter(one.node for one in new), problems


def test_a_tick_makes_so_many_and_another_deployment_its_first():
    """The rest comes with the next ticks: that is no problem, since there is room."""
    boxes = [node(f"box-{number:02}", cores=64, ram_gb=256) for number in range(20)]
    own, _, problems = made(boxes, wanted(1000, "big", most=1000), wanted(5, "small"))
    assert own == {"big": MOST_STARTED, "small": ALWAYS_STARTED}
    assert problems == ["", ""]


def test_a_node_is_given_so_many_at_a_time():
    """A node does its work in order, and the appliance's own within the tick."""
    box = node("local", cores=64, ram_gb=256)
    own, on, problems = made([box], wanted(20, "big", most=20), wanted(5, "small"))
    assert own == {"big": MOST_STARTED_ON_NODE, "small": ALWAYS_STARTED}
    assert on == {"local": MOST_STARTED_ON_NODE + ALWAYS_STARTED}
    assert problems == ["", ""]


def test_what_fell_down_together_is_started_again_the_same_way():
    """Those that this tick has no time for are as they were, and the next tick goes on with them."""
    names = [f"box-{number:02}" for number in range(50)]
    agents = [replace(one, id=f"mini-{place}", pid=None) for place, one in enumerate(on(names * 4))]
    world = fleet([node(name, cores=64, ram_gb=256) for name in names], agents, [wanted(200, most=200)])
    decided = plan(world)
    started = {one.agent for one in decided.actions if isinstance(one, Start)}
    assert len(started) == MOST_STARTED
    assert {one.started_at == NOW for one in decided.agents if one.id in started} == {True}
    later = plan(replace(world, agents=decided.agents, now=NOW + 1))
    again = {one.agent for one in later.actions if isinstance(one, Start)}
    assert len(again) == MOST_STARTED
    assert again.isdisjoint(started)

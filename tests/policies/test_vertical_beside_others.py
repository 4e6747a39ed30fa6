"""Agents that grow beside all else that happens: dips of load, new revisions, orders, other deployments."""

import time
from dataclasses import replace

import pytest
from fleet_builders import agent_report, deployment_report, gateway_report
from placement_builders import fleet, node, on, wanted
from test_vertical import FOUR, ONE, Story, said, small

from appliance.policies.actions import Reshape, Stop
from appliance.policies.reconcile import plan
from appliance.policies.shapes import Reach, Shape

LARGE = Shape(4, 1, 8)


class Remembering(Story):
    """A story whose policy remembers what was wanted lately, as the loop's does."""

    def tick(self, seconds=1.0, **given):
        decided = super().tick(seconds, **given)
        (mine,) = (one for one in decided.deployments if one.name == "mini")
        self.deployment = replace(self.deployment, scaling_state=mine.scaling_state)
        return decided


def test_a_dip_takes_nothing_back():
    """What was asked within the stabilisation window still counts: agents stay as large as that needs."""
    story = Remembering(small("ab"))
    policy = replace(
        story.deployment.policy, stabilization_s=60.0, stable_window_s=2.0, panic_window_s=1.0,
        by_concurrency=True, idle_s=600.0,
    )  # fmt: skip
    story.deployment = replace(story.deployment, policy=policy)
    story.run(5, ticks=10)
    large = story.shapes()
    assert LARGE in large
    story.run(2, ticks=20)
    assert story.shapes() == large
    story.run(2, ticks=60)
    assert set(story.shapes()) == {ONE}


def test_a_burst_grows_nothing_where_one_has_grown():
    """An agent is larger than at its start, and load peaks for a second: no other grows for what was."""
    story = Story(small("abc"), most=3)
    story.run(4)
    before = story.shapes()
    recent = replace(story.deployment.scaling_state, recent=((story.now - 1, 40),))
    story.deployment = replace(story.deployment, scaling_state=recent)
    story.run(3, ticks=1)
    assert story.shapes() == before


@pytest.mark.parametrize("old", [{"revision": 2}, {"outdated": True}])
def test_new_ones_do_not_grow_while_old_ones_serve(old):
    """A new revision comes one by one: the old agents still do their part, so nothing is missing."""
    agents = small("abc", **old)
    new = replace(small("d")[0], id="new-1")
    story = Story([*agents, new], most=4, cores=1, reach=Reach(ONE, 1, 1, 32))
    coming = replace(new, id="new-2", node="a", state="starting", ready_at=None, unready_at=story.now)
    story.agents.append(coming)
    story.really["new-2"] = ONE
    assert story.run(4, ticks=8) == []
    assert story.deployment.lacking_since is None


def test_held_by_order_shapes_stay():
    """People hold the number under load: nobody gets smaller by that."""
    story = Story(small("ab"))
    story.run(20)
    large = story.shapes()
    story.deployment = replace(story.deployment, policy=replace(story.deployment.policy, hold=2))
    story.run(20)
    assert story.shapes() == large


def test_one_that_grew_makes_room_for_agents_that_may_come():
    """The maximum is raised: new ones share its box, and it gives back what it took of it."""
    cores = 4
    story = Story(small("a"), most=1, cores=cores, unit_rps=10.0, capacities={"a": 10.0})
    policy = replace(story.deployment.policy, capacity_rps=10.0)
    story.deployment = replace(story.deployment, policy=policy)
    story.run(4, ticks=6)
    assert story.shapes() == [LARGE]
    story.deployment = replace(story.deployment, policy=replace(policy, max_agents=4), desired=4)
    more = [replace(story.agents[0], id=f"more-{n}", shape=ONE, threads=1, stretched=False) for n in range(3)]
    story.agents += more
    story.really |= {one.id: ONE for one in more}
    story.run(4, ticks=8)
    assert set(story.shapes()) == {ONE}


def test_one_that_says_no_shape_is_not_renewed_in_place():
    """Of an older release nothing could be seen of that: routes would claim what it has not got."""
    agents = on("ab", threads=4, shape=LARGE, outdated=True)
    story = Story(agents, reach=Reach(Shape(1, 4, 16), 4, 4, 16), threads=None)
    story.nodes = [replace(one, ram_bytes=400_000_000) for one in story.nodes]
    story.really, story.load = {}, 2
    story.tick()
    assert story.shapes() == [LARGE, LARGE]


def test_another_grows_in_the_place_of_one_that_says_no_shape():
    """What one of an older release cannot do is asked of the next."""
    story = Story(small("ab"))
    story.really = {"mini-2": ONE}
    story.run(4)
    assert story.shapes() == [ONE, Shape(3, 1, 8)]


def test_two_deployments_do_not_take_the_same_cores():
    """Both grow in one tick on one box of four cores: together they have no more than these."""
    agents = [*small("a"), *small("a", owner="other")]
    seen = [agent_report(one.id, "ready", speed=said(ONE)) for one in agents]
    now = Story(agents).now
    made = []
    for name in ("mini", "other"):
        one = wanted(1, name, least=1, most=1, reach={"a": FOUR}, lacking_since=now - 10)
        made.append(replace(one, policy=replace(one.policy, threads=1)))
    counts = [
        deployment_report(one.name, in_flight=90, concurrency_s=90.0 * 1000) for one in made
    ]  # fmt: skip
    reports = [gateway_report(*seen, deployments=counts, at=now)]
    decided = plan(fleet([node("a", cores=4)], agents, made, reports=reports, now=now))
    assert sum(one.threads for one in decided.agents) <= 4
    assert [one for one in decided.actions if isinstance(one, Reshape)]


def test_many_agents_change_in_bounded_steps():
    """Of two thousand agents a tick changes some, so that it stays quick, and the next tick goes on."""
    names = [f"n{number}" for number in range(200)]
    agents = [one for owner in range(10) for one in small(names, owner=f"m{owner}")]
    agents = [replace(one, deployment="mini") for one in agents]
    story = Story(agents, most=2000, cores=10)
    story.load = 9000
    story.tick(4.0)
    began = time.process_time()
    story.tick()
    took_s = time.process_time() - began
    changed = sum(one.shape != ONE for one in story.agents)
    assert 0 < changed <= 64
    assert took_s < 5.0
    story.tick()
    assert sum(one.shape != ONE for one in story.agents) > changed


def test_one_that_ends_its_work_before_it_changes_is_not_ended():
    """The worker that told it was killed: the next one sees it load, with requests that it was given."""
    story = Story(small("ab"))
    story.agents[0] = replace(story.agents[0], state="starting", ready_at=None, unready_at=story.now - 60)
    story.in_flight = 3
    story.load = 2
    decided = story.tick()
    assert not [one for one in decided.actions if isinstance(one, Stop)]
    story.in_flight = 0
    stopped = [one for _ in range(30) for one in story.tick().actions if isinstance(one, Stop)]
    assert stopped[0].agent == "mini-1"

"""Agents that grow where none can be added, and go back."""

from dataclasses import replace

import pytest
from fleet_builders import NOW, agent_report, deployment_report, gateway_report
from hypothesis import given, settings
from hypothesis import strategies as st
from placement_builders import calm, fleet, node, on, wanted

from appliance.policies.actions import Create, Reshape
from appliance.policies.reconcile import plan
from appliance.policies.report import SpeedReport
from appliance.policies.shapes import Reach, Shape
from appliance.policies.vertical import AFTER_S

ONE = Shape(1, 1, 8)
FOUR = Reach(Shape(4, 1, 8), 1, 4, 32)


def said(shape) -> SpeedReport:
    return SpeedReport("fake", "1", shape.workers, shape.threads, shape.batch_size, 0, 0.0, 0.0, 0.0, 0.0)


def small(names, *, shape=ONE, limit=1, **given):
    """Agents of that shape, one on each node, started under a limit of one engine thread."""
    return on(names, threads=shape.engine_threads, shape=shape, limit=limit, **given)


class Story:
    """A deployment on boxes of four cores, tick by tick; agents are at once what they are told to be."""

    def __init__(self, agents, *, most=2, cores=4, reach=FOUR, threads=1, **given):
        self.names = sorted({one.node for one in agents})
        self.nodes = [node(name, cores=cores) for name in self.names]
        self.agents, self.now, self.load = list(agents), NOW, 0
        made = wanted(len(agents), least=1, most=most, reach=dict.fromkeys(self.names, reach), **given)
        policy = replace(made.policy, threads=threads, max_up_per_min=None)
        self.deployment = replace(made, policy=policy)
        self.really = {one.id: one.shape for one in agents}
        self.obeys, self.unshapable, self.others, self.in_flight = True, {}, [], 0

    def look(self, **given):
        seen = [
            agent_report(
                one.id, "ready" if one.state == "ready" else "loading", in_flight=self.in_flight,
                speed=said(self.really[one.id]) if self.really.get(one.id) else None,
            )
            for one in [*self.agents, *self.others]
        ]  # fmt: skip
        there = self.load * 10
        counts = [deployment_report("mini", in_flight=there, concurrency_s=there * (self.now - NOW + 1000))]
        return fleet(
            self.nodes, [*self.agents, *self.others], [self.deployment, wanted(len(self.others), "other")],
            reports=[gateway_report(*seen, deployments=counts, at=self.now)],
            now=self.now, heard_since=NOW - 100, unshapable=self.unshapable, **given,
        )  # fmt: skip

    def tick(self, seconds=1.0, **given):
        decided = plan(self.look(**given))
        others = {one.id for one in self.others}
        self.agents = [one for one in decided.agents if one.id not in others]
        for action in decided.actions:
            if isinstance(action, Reshape) and self.obeys:
                self.really[action.agent] = action.shape
        (mine,) = (one for one in decided.deployments if one.name == "mini")
        self.now += seconds
        self.deployment = replace(
            self.deployment, desired=mine.desired, lacking_since=mine.lacking_since,
            scaling_state=calm(self.now),
        )  # fmt: skip
        return decided

    def run(self, load, ticks=12, **given):
        """So many ticks under a load of so many agents; what was done, in words."""
        self.load = load
        return [line for _ in range(ticks) for each in self.tick(**given).deployments for line in each.did]

    def shapes(self):
        return [one.shape for one in self.agents]


def test_it_grows_where_the_maximum_is_reached():
    """Two of one thread and five asked: one gets all four cores of its box, and both do five."""
    story = Story(small("ab"))
    did = story.run(5)
    assert sorted(one.workers for one in story.shapes()) == [1, 4]
    assert [one.stretched for one in story.agents].count(True) == 1
    (words,) = did
    assert words.startswith("change mini-1 from 1 x 1 threads, batch 8 to 4 x 1 threads, batch 8: ")
    assert words.endswith("load asks for 5, and no agent can be added")
    assert story.really == {one.id: one.shape for one in story.agents}


def test_a_short_burst_changes_nothing():
    """Load must ask for more for three seconds, and a while in which it does not counts against that."""
    story = Story(small("ab"))
    for _ in range(5):
        assert story.run(5, ticks=int(AFTER_S)) == []
        assert story.run(2, ticks=int(AFTER_S)) == []
    assert story.deployment.lacking_since is None


def test_what_is_asked_goes_up_and_down():
    """With each answer a queue asks for less for a moment: where it mostly asks for more, they grow."""
    story = Story(small("ab"))
    for _ in range(5):
        story.run(5, ticks=3)
        story.run(2, ticks=1)
    assert sum(one.engine_threads for one in story.shapes()) == 5


def test_it_is_soon_over_however_long_it_was():
    """After minutes of more than could be had a few seconds are enough to go back."""
    story = Story(small("ab"))
    story.run(5, ticks=300)
    story.run(2, ticks=10)
    assert story.shapes() == [ONE, ONE]


def test_it_grows_only_as_far_as_it_must():
    """Three asked of two: one more thread is enough."""
    story = Story(small("ab"))
    story.run(3)
    assert sorted(one.engine_threads for one in story.shapes()) == [1, 2]


def test_where_agents_can_be_added_none_grows():
    """A maximum that is not reached, with room: more agents come, and no agent changes."""
    story = Story(small("ab"), most=8)
    decided = [story.tick() for _ in range(6) if setattr(story, "load", 5) is None]
    assert any(isinstance(action, Create) for each in decided for action in each.actions)
    assert story.shapes() == [ONE, ONE]


def test_without_room_they_grow_below_the_maximum():
    """RAM is used up: the maximum is far, and still no agent can be added."""
    story = Story(small("ab"), most=8)
    story.nodes = [replace(one, ram_bytes=400_000_000) for one in story.nodes]
    story.run(5)
    assert sum(one.engine_threads for one in story.shapes()) == 5


def test_one_at_a_time():
    """The next one changes once the one before serves in its new shape."""
    story = Story(small("abc"), most=3)
    story.obeys = False
    story.run(9)
    assert [one.stretched for one in story.agents] == [True, False, False]
    story.obeys = True
    story.run(9, ticks=2)
    assert [one.stretched for one in story.agents] == [True, True, False]


def test_batches_come_after_threads_and_all_at_once():
    """Where all cores are used and more is asked, every agent takes the larger batch."""
    story = Story(small("ab"))
    story.run(20)
    assert story.shapes() == [Shape(4, 1, 32), Shape(4, 1, 32)]


def test_cores_that_others_use_are_not_taken():
    """Of four cores another deployment has three: there is none to grow into, so the batch grows."""
    story = Story(small("a"), most=1)
    story.others = on("a", owner="other", threads=3)
    story.run(4)
    assert story.shapes() == [Shape(1, 1, 32)]


def test_it_goes_back():
    """Once no more is asked than at the start does: batches at once, threads one agent after the other."""
    story = Story(small("ab"))
    story.run(20)
    assert story.run(2, ticks=2 * int(AFTER_S) - 1) == []
    did = story.run(2, ticks=1)
    assert story.shapes() == [ONE, Shape(4, 1, 8)]
    did += story.run(2, ticks=4)
    assert story.shapes() == [ONE, ONE]
    assert len(did) == 3
    assert all("that is not asked any more" in line for line in did)
    assert not any(one.stretched for one in story.agents)


def test_the_only_agent_goes_back_when_nobody_waits_for_it():
    """To load again is a pause: with work in hand it stays large."""
    story = Story(small("a"), most=1)
    story.run(4)
    story.in_flight = 1
    assert story.run(1) == []
    assert story.shapes() == [Shape(4, 1, 8)]
    story.in_flight = 0
    story.run(1, ticks=2)
    assert story.shapes() == [ONE]


def test_while_something_is_missing_nothing_gets_smaller():
    """A silent gateway may be under load: nobody goes back, whatever the others say."""
    story = Story(small("ab"))
    story.run(5)
    large = story.shapes()
    story.run(1, silent=("gateway-2",))
    assert story.shapes() == large


@pytest.mark.parametrize("stopped", [{"paused": True}, {"dry_run": True}, {"removing": True}])
def test_what_people_stopped_does_not_grow(stopped):
    """Paused, rehearsing or being removed: shapes stay."""
    story = Story(small("ab"), **stopped)
    story.run(5, ticks=6)
    assert set(story.shapes()) == {ONE}


def test_one_that_cannot_stays_as_it_was():
    """What it refused is told as a problem and not wanted of it; another grows in its place."""
    story = Story(small("ab"))
    story.obeys = False
    story.run(3, ticks=5)
    assert [one.stretched for one in story.agents] == [True, False]
    story.unshapable = {"mini-1": "the model was not loaded"}
    story.obeys = True
    story.load = 3
    decided = [story.tick() for _ in range(4)]
    assert [one.shape for one in story.agents] == [ONE, Shape(2, 1, 8)]
    assert "agent mini-1 stays as it is: the model was not loaded" in decided[0].deployments[0].problem


def test_one_that_cannot_go_back_is_not_asked_each_second():
    """It refuses to get smaller: it stays, and nothing is done about it while that is known."""
    story = Story(small("ab"))
    story.run(5)
    story.unshapable = {one.id: "the model was not loaded" for one in story.agents}
    large = story.shapes()
    assert story.run(2) == []
    assert story.shapes() == large


def test_a_restarted_agent_is_told_again():
    """Its process begins with its configuration: the loop says what it is to be, until it says so itself."""
    story = Story(small("ab"))
    story.run(5)
    story.really["mini-1"] = ONE
    story.load = 5
    assert Reshape("mini-1", "a", Shape(4, 1, 8)) in story.tick().actions
    story.really["mini-1"] = ONE
    assert not [one for one in story.tick(in_hand=frozenset({"mini-1"})).actions if isinstance(one, Reshape)]


def test_an_agent_that_does_not_say_its_shape_is_left_alone():
    """One of an older release: nothing is wanted of it that could not be seen."""
    story = Story(small("ab"))
    story.really = {}
    story.run(5)
    assert story.shapes() == [ONE, ONE]


def test_another_limit_changes_running_agents():
    """People take the limit away, or set one: agents change one after the other, while others serve."""
    story = Story(small("ab"), reach=Reach(Shape(4, 1, 8), 4, 4, 8), threads=None)
    did = story.run(1, ticks=4)
    assert any(line.endswith(": agents start with threads=none now") for line in did)
    assert {one.shape for one in story.agents if one.wanted == "warm"} == {Shape(4, 1, 8)}
    assert {one.limit for one in story.agents if one.wanted == "warm"} == {None}
    assert not any(one.stretched for one in story.agents)


def test_what_was_measured_is_taken_in_place_where_no_other_fits():
    """The default profile, a better one known, and no RAM for a successor: it changes itself."""
    agents = on("ab", threads=4, shape=Shape(4, 1, 8), outdated=True)
    story = Story(agents, reach=Reach(Shape(1, 4, 16), 4, 4, 16), threads=None)
    story.nodes = [replace(one, ram_bytes=400_000_000) for one in story.nodes]
    story.load = 2
    decided = story.tick()
    assert [one.shape for one in story.agents] == [Shape(1, 4, 16), Shape(4, 1, 8)]
    assert "better was measured, and another finds no room beside it" in decided.deployments[0].did[0]


def test_routes_change_with_a_shape():
    """Gateways must learn how much an agent takes."""
    story = Story(small("ab"))
    story.load = 5
    assert [story.tick().routes_changed for _ in range(6)].count(True) == 1


@given(
    loads=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), min_size=1, max_size=8),
    cores=st.integers(1, 6),
    most_threads=st.integers(1, 6),
    count=st.integers(1, 3),
    obeys=st.booleans(),
)
@settings(max_examples=15)
def test_whatever_comes(loads, cores, most_threads, count, obeys):
    """Never smaller than at the start, never over its cores or its batch, one change of threads at a time."""
    reach = Reach(Shape(cores, 1, 8), 1, min(most_threads, cores), 16)
    story = Story(small("abc"[:count]), most=count, cores=cores, reach=reach)
    story.deployment = replace(story.deployment, policy=replace(story.deployment.policy, min_agents=count))
    story.obeys = obeys
    for load, ticks in loads:
        for _ in range(ticks):
            before = {one.id: one.shape.engine_threads for one in story.agents}
            story.load = load
            story.tick()
            assert sum(before[one.id] != one.shape.engine_threads for one in story.agents) <= 1
            for one in story.agents:
                assert 1 <= one.shape.engine_threads <= reach.most_threads
                assert one.shape.batch_size in (8, 16)
                assert one.threads == one.shape.engine_threads
                assert one.stretched == (one.shape != reach.start)
    if obeys:
        story.run(0, ticks=3 * count + 8)
        assert {one.shape for one in story.agents} == {ONE}

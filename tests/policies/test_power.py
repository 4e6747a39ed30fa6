"""Nodes that sleep and wake: stages, what load asks, and what is never done."""

from dataclasses import replace

import pytest
from fleet_builders import NOW
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.policies.node_care import LOST_AFTER_S
from appliance.policies.power import REST_S, plan_power
from appliance.policies.power_facts import DID_NOT_SLEEP, DID_NOT_WAKE, PowerNode, PowerSettings
from appliance.policies.power_steps import SEND_AGAIN_S, SLEEP_S, TRIES

RULES = PowerSettings(sleep_after_s=100, stay_awake_s=50, wake_timeout_s=30)


def node(name="one", **given) -> PowerNode:
    """A node that answers, holds nothing, and has just begun to be idle."""
    return PowerNode(name, **{"seen_at": NOW, "idle_since": NOW, **given})


def asleep(name="one", **given) -> PowerNode:
    away = {"stage": "asleep", "awake": False, "accepts": False, "seen_at": NOW - 500, "idle_since": None}
    return node(name, **{**away, **given})


def waking(**given) -> PowerNode:
    return asleep(**{"stage": "waking", "stage_at": NOW - 31, "tries": 1, **given})


def plan(*nodes, rules=RULES, now=NOW, short=0):
    """Steps by node, without what only keeps the time."""
    steps = {step.node: step for step in plan_power(nodes, rules, now, short=short)}
    return {name: step for name, step in steps.items() if step.words or step.do or step.problem}


def moves(*nodes, **how):
    """The stage that each node goes to."""
    return {name: step.changes.get("power_stage") for name, step in plan(*nodes, **how).items()}


IDLE = {"idle_since": NOW - 100}


class TestSleep:
    """What is put to sleep, and what is not."""

    @pytest.mark.parametrize(
        "given",
        [
            {"idle_since": NOW - 99},
            {"agents": 1, "idle_since": None},
            {"busy": "a transfer"},
            {"awake": False},
            {"accepts": False},
            {"wanted": "cordoned"},
            {"wakeable": False},
            {"local": True},
            {"awake_since": NOW - 49},
            {"ordered": "awake"},
            {"changes": (NOW - 500, NOW - 300, NOW - 200, NOW - 100)},
            {"failed": DID_NOT_SLEEP, "failed_at": NOW - REST_S + 1},
        ],
        ids="-".join,
    )
    def test_stays_awake(self, given):
        """One that is not idle for long enough, is needed, was just changed or just failed stays awake."""
        assert "leaving" not in moves(node(**{**IDLE, **given}), node("two")).values()

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"awake_since": NOW - 50},
            {"changes": (NOW - 601, NOW - 300, NOW - 200, NOW - 100)},
            {"failed": DID_NOT_SLEEP, "failed_at": NOW - REST_S},
        ],
        ids=["idle", "awake-for-long", "changed-long-ago", "failed-long-ago"],
    )
    def test_sleeps(self, given):
        """One that holds nothing for long enough is put to sleep, while another is kept."""
        assert moves(node(**IDLE, **given), node("two")) == {"one": "leaving"}

    def test_never_where_the_time_is_zero(self):
        """Without a time after which to sleep nothing sleeps by itself."""
        rules = replace(RULES, sleep_after_s=0)
        assert moves(node(idle_since=NOW - 1e6), node("two"), rules=rules) == {}

    @pytest.mark.parametrize(
        ("marks", "sleeping"),
        [({"headroom_nodes": 0}, 2), ({}, 2), ({"headroom_nodes": 2}, 1), ({"headroom_nodes": 3}, 0),
         ({"headroom_nodes": 0, "headroom_agents": 5}, 1), ({"headroom_nodes": 0, "headroom_agents": 9}, 0)],
    )  # fmt: skip
    def test_headroom_stays(self, marks, sleeping):
        """So many empty nodes, and room for so many agents, stay awake; and so many change in a tick."""
        three = [node(name, room=3, **IDLE) for name in "abc"]
        assert len(moves(*three, rules=replace(RULES, **marks))) == sleeping

    def test_the_dearest_sleeps_first(self):
        """What costs most sleeps first, then what is idle longest."""
        rules = replace(RULES, changes_per_tick=1)
        nodes = [node("a", **IDLE), node("b", cost=0.5, **IDLE), node("c", idle_since=NOW - 200)]
        assert moves(*nodes, rules=rules) == {"b": "leaving"}
        assert moves(nodes[0], nodes[2], rules=rules) == {"c": "leaving"}

    def test_none_sleeps_while_agents_find_no_room(self):
        """While an agent found no room nothing is put to sleep."""
        assert moves(node(**IDLE), node("two", **IDLE), short=1) == {}


class TestStages:
    """From awake to asleep, step by step, and back."""

    def test_agents_leave_before_it_is_told(self):
        """With an agent there it is not told to sleep; without it is, and only where that can be told."""
        leaving = node(stage="leaving", ordered="asleep")
        assert plan(replace(leaving, agents=1)) == {}
        assert plan(replace(leaving, awake=False)) == {}
        assert plan(leaving)["one"].do == "sleep"

    def test_one_that_went_on_its_way_to_sleep_is_sent_for(self):
        """Ordered awake while it is not there the order holds until it is; one that is there just stays."""
        leaving = node(stage="leaving", ordered="awake")
        assert plan(leaving)["one"].changes["power_wanted"] == ""
        gone = replace(leaving, awake=False, seen_at=None)
        changes = plan(gone)["one"].changes
        assert (changes["power_stage"], "power_wanted" in changes) == ("", False)
        assert plan(replace(gone, stage=""))["one"].do == "wake"

    def test_load_takes_it_back(self):
        """One that nobody ordered to sleep stays awake once it holds something again."""
        assert moves(node(stage="leaving", agents=1)) == {"one": ""}
        assert moves(node(stage="leaving", ordered="awake")) == {"one": ""}

    def test_asleep_once_it_answers_no_more(self):
        """Told, it sleeps when it has not answered for ten seconds."""
        told = node(stage="sleeping", stage_at=NOW - 5, tries=1)
        assert plan(told, now=NOW + 5) == {}
        assert moves(told, now=NOW + LOST_AFTER_S) == {"one": "asleep"}

    def test_told_again_then_given_up(self):
        """One that goes on answering is told once more, then it is a problem, and its order is over."""
        told = node(stage="sleeping", stage_at=NOW - SLEEP_S / 2 - 1, tries=1)
        assert plan(told)["one"].do == "sleep"
        step = plan(replace(told, stage_at=NOW - SLEEP_S - 1, tries=2))["one"]
        assert (step.problem, step.changes["power_stage"], step.changes["power_wanted"]) == (
            DID_NOT_SLEEP, "", "",
        )  # fmt: skip

    def test_a_box_that_cannot_says_so_at_once(self):
        """What the box answered is the problem's text."""
        step = plan(node(stage="sleeping", stage_at=NOW, told="the node cannot suspend"))["one"]
        assert (step.problem, step.detail) == (DID_NOT_SLEEP, "the node cannot suspend")

    @pytest.mark.parametrize(
        ("given", "wakes"),
        [
            ({}, False),
            ({"ordered": "awake"}, True),
            ({"wanted": "retired"}, True),
            ({"busy": "upgrade"}, True),
        ],
    )
    def test_an_order_wakes_it(self, given, wakes):
        """People, an operation and retiring wake it; else it sleeps on."""
        found = plan(asleep(**given), node("two"))
        assert (found.get("one") is not None and found["one"].do == "wake") is wakes

    def test_awake_once_it_answers(self):
        """An answer that is newer than the message means it is awake, and its order is done."""
        step = plan(waking(awake=True, seen_at=NOW, ordered="awake"))["one"]
        assert (step.changes["power_stage"], step.changes["power_wanted"]) == ("", "")
        assert step.changes["awake_since"] == NOW
        assert plan(waking(awake=True, seen_at=NOW - 40, stage_at=NOW - 20)) == {}

    def test_sent_for_three_times_then_left_alone(self):
        """Three tries, then a problem; an hour later it is sent for again, once it is needed."""
        for tries in range(1, TRIES):
            step = plan(waking(tries=tries), node("two"))["one"]
            assert (step.do, step.changes["power_tries"]) == ("wake", tries + 1)
        step = plan(waking(tries=TRIES), node("two"))["one"]
        assert (step.do, step.problem, step.changes["power_stage"]) == ("", DID_NOT_WAKE, "")
        lost = asleep(stage="", failed=DID_NOT_WAKE, failed_at=NOW)
        assert plan(lost, short=1) == {}
        assert plan(lost, now=NOW + REST_S - 1, short=1) == {}
        assert plan(lost, now=NOW + REST_S, short=1)["one"].do == "wake"

    def test_back_by_itself(self):
        """One that did not wake and answers after all loses its problem."""
        assert plan(node(failed=DID_NOT_WAKE, failed_at=NOW))["one"].clears

    def test_a_message_that_cannot_be_sent_is_tried_soon(self):
        """Where sending failed the next try does not wait for the box, and the reason is told in the end."""
        broken = waking(stage_at=NOW - SEND_AGAIN_S - 1, told="no program ipmi")
        assert plan(broken)["one"].do == "wake"
        assert plan(replace(broken, tries=TRIES))["one"].detail == "no program ipmi"

    def test_people_may_wake_what_is_lost(self):
        """An order to wake is sent to any node that is not there; for one that is awake it is done."""
        assert plan(asleep(stage="", ordered="awake"))["one"].do == "wake"
        (step,) = plan_power([node(ordered="awake")], RULES, NOW)
        assert step.changes == {"power_wanted": ""}


class TestWake:
    """What load wakes."""

    def test_for_agents_without_room(self):
        """As many as are needed for the agents that found no room, the cheapest first, a few in a tick."""
        boxes = [asleep(name, room=2, cost=cost) for name, cost in (("a", 0.3), ("b", 0.1), ("c", 0.2))]
        full = node("full", agents=3)
        none = replace(RULES, headroom_nodes=0)
        assert moves(full, *boxes, rules=none, short=2) == {"b": "waking"}
        assert moves(full, *boxes, rules=none, short=3) == {"b": "waking", "c": "waking"}
        assert len(moves(full, *boxes, rules=none, short=99)) == none.changes_per_tick

    def test_what_is_coming_counts(self):
        """One that is on its way is not asked for twice; after its first try another is."""
        coming = waking(name="a", stage_at=NOW, room=2)
        assert plan(coming, asleep("b"), short=2) == {}
        there = replace(coming, awake=True, seen_at=NOW, stage_at=NOW - 5)
        assert moves(there, asleep("b"), short=2) == {"a": ""}
        again = replace(coming, tries=2)
        assert moves(again, asleep("b"), short=2) == {"b": "waking"}

    def test_for_headroom(self):
        """When the last empty node takes an agent, another wakes."""
        assert moves(node("a", agents=1), asleep("b")) == {"b": "waking"}
        assert moves(node("a"), asleep("b")) == {}

    def test_what_people_put_to_sleep_wakes_for_agents_alone(self):
        """An order to sleep holds against headroom, and gives way to agents without room."""
        boxed = asleep("b", ordered="asleep")
        assert moves(node("a", agents=1), boxed) == {}
        step = plan(node("a", agents=1), boxed, short=1)["b"]
        assert (step.do, step.changes["power_wanted"]) == ("wake", "")

    def test_reasons_are_told(self):
        """Each step of the loop's own says why in words."""
        assert plan(node("a", agents=1), asleep("b"), short=1)["b"].words == "woken: an agent found no room"
        assert plan(node("a", agents=1), asleep("b"))["b"].words == "woken: headroom is below 1 empty node"


class Box:
    """A machine that really sleeps and wakes, a while after it is told, or is broken."""

    def __init__(self, name, broken):
        self.row = node(name)
        self.broken, self.up, self.due, self.flips = broken, True, None, []

    def tick(self, step, now):
        if self.due is not None and now >= self.due[0]:
            self.up, self.due = self.due[1], None
        if step is not None:
            self._take(step, now)
        agents = self.row.agents if self.up else 0
        self.row = replace(
            self.row, awake=self.up, seen_at=now if self.up else self.row.seen_at, agents=agents,
            accepts=self.up and not self.row.stage,
        )  # fmt: skip

    def _take(self, step, now):
        names = {"power_stage": "stage", "power_stage_at": "stage_at", "power_tries": "tries",
                 "power_wanted": "ordered", "power_changes": "changes"}  # fmt: skip
        given = {names.get(key, key): value for key, value in step.changes.items() if key != "power_how"}
        self.row = replace(self.row, **given)
        if step.clears:
            self.row = replace(self.row, failed="")
        if step.problem:
            self.row = replace(self.row, failed=step.problem, failed_at=now)
        if step.by_load:
            self.flips.append(now)
        if step.do and not self.broken:
            self.due = (now + 7, step.do == "wake")
            assert step.do == "wake" or not self.row.agents


class TestStory:
    """Many ticks with an explicit clock."""

    @settings(max_examples=10, deadline=None)
    @given(
        st.lists(st.integers(0, 6), min_size=1, max_size=12),
        st.sets(st.integers(0, 3)),
        st.integers(0, 2),
    )
    def test_whatever_load_does(self, loads, broken, headroom):
        """None sleeps with an agent on it, none changes more often than it may, and headroom comes back."""
        rules = replace(RULES, headroom_nodes=headroom, changes_per_10min=3)
        boxes = [Box(f"box-{number}", number in broken) for number in range(4)]
        now = NOW
        for load in loads:
            for _ in range(45):
                now += 5
                short = self._place(boxes, load)
                steps = {
                    step.node: step
                    for step in plan_power([box.row for box in boxes], rules, now, short=short)
                }
                for box in boxes:
                    step = steps.get(box.row.name)
                    assert not (step and step.changes.get("power_stage") == "sleeping" and box.row.agents)
                    box.tick(step, now)
                for box in boxes:
                    assert all(sum(at <= one < at + 600 for one in box.flips) <= 3 for at in box.flips)
        empty = [box for box in boxes if box.up and not box.row.agents and box.row.accepts]
        limited = any(now - at < 600 for box in boxes for at in box.flips) or broken
        assert len(empty) >= headroom or limited or sum(box.row.agents for box in boxes) + headroom > 4

    def _place(self, boxes, load):
        """One agent a box, as many as load asks; for how many there was no room."""
        for box in boxes:
            if load <= 0 and not box.row.stage:
                box.row = replace(box.row, agents=0)
            elif box.row.agents:
                load -= 1
        for box in boxes:
            if load > 0 and box.up and box.row.accepts and not box.row.stage and not box.row.agents:
                box.row, load = replace(box.row, agents=1, room=1), load - 1
        return max(0, load)

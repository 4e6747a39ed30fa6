"""Orders on nodes, stage by stage."""

from dataclasses import replace

import pytest
from fleet_builders import NOW, agent

from appliance.policies.node_care import (
    ASK_AGAIN_S,
    AWAY_S,
    LOST_AFTER_S,
    PROVE_S,
    REBOOT_S,
    NodeOrders,
    NodeStep,
    accepts,
    is_lost,
    plan_care,
    stay_of,
)

OLD, NEW = "a" * 64, "b" * 64


def node(name="one", **given) -> NodeOrders:
    """A node that is well: seen just now, on boot `b1`, with the old release and nothing running."""
    values = {"boot_id": "b1", "release": OLD, "seen_at": NOW, "runs": frozenset(), **given}
    return NodeOrders(name=name, **values)


def rebooting(stage="", **given) -> NodeOrders:
    return node(operation="reboot", ordered_boot_id="b1", stage=stage, **given)


def upgrading(name="one", stage="", **given) -> NodeOrders:
    values = {"newest": NEW, "delivered": True, "ordered_at": NOW - 10, **given}
    return node(name, operation="upgrade", stage=stage, **values)


def resting(**given):
    return agent("mini-1", node="one", wanted="resting", state="stopped", **given)


def only(steps) -> NodeStep:
    (step,) = steps
    return step


class TestNode:
    """What a node is good for."""

    @pytest.mark.parametrize(
        ("given", "stay", "takes"),
        [
            ({}, "stay", True),
            ({"wanted": "cordoned"}, "stay", False),
            ({"wanted": "drained"}, "leave", False),
            ({"wanted": "retired"}, "leave", False),
            ({"enrolled": False}, "stay", False),
            ({"release": ""}, "stay", False),
            ({"operation": "reboot"}, "stay", False),
            ({"operation": "reboot", "stage": "rebooting"}, "rest", False),
            ({"operation": "upgrade"}, "stay", True),
            ({"operation": "upgrade", "stage": "resting"}, "rest", False),
            ({"operation": "upgrade", "stage": "proving"}, "stay", False),
            ({"operation": "upgrade", "stage": "reverting"}, "rest", False),
            ({"problems": frozenset({"disk_full"})}, "stay", False),
            ({"problems": frozenset({"steward_outdated"})}, "stay", True),
            ({"local": True, "release": ""}, "stay", True),
        ],
    )
    def test_orders_say_what_becomes_of_agents(self, given, stay, takes):
        """Each order, stage and problem has one effect on agents that are there and that would come."""
        assert (stay_of(node(**given)), accepts(node(**given))) == (stay, takes)

    def test_lost_after_ten_seconds(self):
        """A node that was not seen for ten seconds counts as lost; the appliance's own never does."""
        assert not is_lost(node(), NOW + LOST_AFTER_S - 0.1)
        assert is_lost(node(), NOW + LOST_AFTER_S)
        assert is_lost(node(seen_at=None), NOW)
        assert not is_lost(node(local=True, seen_at=None), NOW)


class TestReboot:
    """Agents rest, the machine restarts, agents come back."""

    def test_agents_rest_first(self):
        """An ordered reboot begins with agents leaving service."""
        step = only(plan_care([rebooting()], [], NOW))
        assert (step.do, step.changes["operation_stage"]) == ("", "resting")

    @pytest.mark.parametrize(
        ("runs", "agents"),
        [
            (frozenset({"mini-1"}), [replace(resting(), state="draining")]),
            (frozenset(), [agent("mini-1", node="one")]),
            (None, [resting()]),
        ],
        ids=["one-runs", "one-is-wanted", "cannot-tell"],
    )
    def test_waits_until_all_rest(self, runs, agents):
        """Nothing is rebooted while an agent runs there, is wanted there, or it cannot be told."""
        assert plan_care([rebooting("resting", runs=runs)], agents, NOW) == []

    def test_reboots_once_all_rest(self):
        """With no agent running the machine is told to restart."""
        step = only(plan_care([rebooting("resting")], [resting()], NOW))
        assert (step.do, step.changes["operation_stage"]) == ("reboot", "rebooting")

    def test_is_done_with_another_boot(self):
        """Seen with another boot it is done, also where it restarted by itself."""
        for stage in ("resting", "rebooting"):
            step = only(plan_care([rebooting(stage, boot_id="b2")], [resting()], NOW))
            assert (step.do, step.changes["operation"], step.changes["operation_stage"]) == ("", "", "")

    def test_is_asked_again(self):
        """A machine that goes on as if nothing had been said is told again after a minute."""
        waiting = rebooting("rebooting", stage_at=NOW - ASK_AGAIN_S, ordered_at=NOW - 100)
        assert plan_care([waiting], [], NOW) == []
        assert only(plan_care([waiting], [], NOW + 1)).do == "reboot"
        assert plan_care([replace(waiting, runs=None)], [], NOW + 1) == []

    def test_gives_up(self):
        """A machine that cannot be brought to reboot is given back to its agents, with a problem."""
        deaf = rebooting("rebooting", stage_at=NOW - ASK_AGAIN_S - 1, ordered_at=NOW - REBOOT_S - 1)
        waiting = upgrading("two", delivered=False)
        step, other = plan_care([deaf, waiting], [], NOW)
        assert (step.do, step.changes["operation"], step.changes["operation_stage"]) == ("", "", "")
        assert step.problem
        assert other.do == "deliver"


class TestUpgrade:
    """One node at a time, the first as canary."""

    def test_release_is_brought_first(self):
        """Agents serve on while the release is on its way."""
        assert only(plan_care([upgrading(delivered=False)], [], NOW)).do == "deliver"
        assert plan_care([upgrading(newest="")], [], NOW) == []

    def test_newest_already(self):
        """A node with the newest release is done at once."""
        assert only(plan_care([upgrading(newest=OLD)], [], NOW)).changes["operation"] == ""

    def test_one_at_a_time_in_order(self):
        """The one that was ordered first begins, and the next only when it has ended."""
        later, first = upgrading("a", ordered_at=NOW - 5), upgrading("b")
        step = only(plan_care([later, first], [], NOW))
        assert (step.node, step.changes["operation_stage"]) == ("b", "resting")
        assert plan_care([later, replace(first, stage="proving", stage_at=NOW, runs=None)], [], NOW) == []
        assert only(plan_care([later, node("b", release=NEW)], [], NOW)).node == "a"

    def test_swaps_once_all_rest(self):
        """The new release is taken when nothing runs, the old one kept in mind."""
        step = only(plan_care([upgrading(stage="resting", next_release=NEW)], [resting()], NOW))
        assert (step.changes["release_sha256"], step.changes["next_release_sha256"]) == (NEW, OLD)
        assert step.changes["operation_stage"] == "proving"

    def test_is_done_when_its_agents_are_ready(self):
        """Agents that serve with the new release prove it."""
        proving = upgrading(stage="proving", release=NEW, next_release=OLD, stage_at=NOW)
        starting = agent("mini-1", node="one", state="starting")
        assert plan_care([proving], [starting], NOW) == []
        assert only(plan_care([proving], [agent("mini-1", node="one")], NOW)).changes["operation"] == ""

    @pytest.mark.parametrize(
        ("bad", "waited_s"),
        [({"state": "failed", "error": "no module\nmore"}, 1), ({"attempt": 3}, 1), ({}, PROVE_S + 1)],
        ids=["failed", "three-runs", "never-ready"],
    )
    def test_bad_release_is_taken_back(self, bad, waited_s):
        """Agents that do not come up send the node back, and all that wait keep what they have."""
        proving = upgrading(stage="proving", release=NEW, next_release=OLD, stage_at=NOW - waited_s)
        late = agent("mini-1", node="one", **{"state": "starting", **bad})
        step = only(plan_care([proving, upgrading("two")], [late], NOW))
        assert step.changes["operation_stage"] == "reverting"
        reverting = replace(proving, stage="reverting")
        failed, other = plan_care([reverting, upgrading("two")], [resting()], NOW)
        assert (failed.changes["release_sha256"], failed.changes["operation"]) == (OLD, "")
        assert failed.problem
        assert (other.node, other.changes) == ("two", {"operation": ""})

    @pytest.mark.parametrize(("stage", "release"), [("resting", None), ("proving", OLD), ("reverting", OLD)])
    def test_node_that_is_gone_gives_up_its_turn(self, stage, release):
        """Ten minutes out of reach end an upgrade, and the node's row names its old release."""
        away = upgrading(stage=stage, next_release=OLD, runs=None, stage_at=NOW - AWAY_S)
        assert plan_care([away, upgrading("two")], [], NOW) == []
        gone, other = plan_care([away, upgrading("two")], [], NOW + 1)
        assert (gone.changes.get("release_sha256"), gone.changes["operation"]) == (release, "")
        assert gone.problem
        assert other.changes == {"operation": ""}

    def test_those_that_leave_prove_nothing(self):
        """An agent that takes long to leave does not make a release a bad one."""
        proving = upgrading(stage="proving", release=NEW, next_release=OLD, stage_at=NOW - PROVE_S - 1)
        leaving = agent("mini-1", node="one", wanted="draining", state="draining")
        step = only(plan_care([proving], [leaving], NOW))
        assert (step.changes["operation"], step.problem) == ("", "")

    def test_release_that_cannot_be_brought(self):
        """A delivery that fails for good is a problem of that node, and ends the rollout."""
        steps = plan_care([upgrading(trouble="disk full"), upgrading("two")], [], NOW)
        assert [(step.node, step.changes["operation"], step.problem) for step in steps] == [
            ("one", "", "disk full"),
            ("two", "", ""),
        ]


class TestTurns:
    """One node is out at a time."""

    def test_reboots_and_upgrades_share_the_turn(self):
        """While one node is out, neither a reboot nor an upgrade begins elsewhere."""
        out = replace(rebooting("rebooting", runs=None), stage_at=NOW)
        others = [node("two", operation="reboot", ordered_boot_id="b1"), upgrading("three")]
        assert plan_care([out, *others], [], NOW) == []
        begun = plan_care(others, [], NOW)
        assert [(step.node, step.changes["operation_stage"]) for step in begun] == [("two", "resting")]

    def test_a_node_that_stays_away_gives_up_its_turn(self):
        """A box that does not come back from its reboot holds up the others for ten minutes, no longer."""
        out = replace(rebooting("rebooting", runs=None), stage_at=NOW - AWAY_S)
        assert plan_care([out, upgrading("two")], [], NOW) == []
        assert only(plan_care([out, upgrading("two")], [], NOW + 1)).node == "two"

    def test_the_canary_has_agents(self):
        """A release is proved where agents run, whatever the order of names."""
        serving = agent("mini-1", node="b")
        step = only(plan_care([upgrading("a"), upgrading("b")], [serving], NOW))
        assert step.node == "b"


class TestRetire:
    """A node leaves when nothing is left there."""

    def test_waits_for_agents_and_for_the_node(self):
        """The box is cleaned once its agents' rows are gone and it can be reached."""
        retired = node(wanted="retired")
        assert plan_care([retired], [agent("mini-1", node="one")], NOW) == []
        assert plan_care([replace(retired, runs=None)], [], NOW) == []
        step = only(plan_care([retired], [], NOW))
        assert (step.do, step.changes["operation_stage"]) == ("retire", "removing")

    def test_answer_that_was_lost(self):
        """Told again until it is done; a box that refuses our key after it was told has forgotten us."""
        told = node(wanted="retired", stage="removing")
        assert only(plan_care([told], [], NOW)).do == "retire"
        shut = {"runs": None, "problems": frozenset({"key_refused"})}
        assert only(plan_care([replace(told, **shut)], [], NOW)).do == "retired"
        assert plan_care([replace(told, stage="", **shut)], [], NOW) == []

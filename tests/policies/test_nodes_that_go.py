"""Agents of nodes that are worked on, emptied or lost."""

from dataclasses import replace

from fleet_builders import (
    GB,
    NOW,
    agent,
    agent_report,
    deployment,
    gateway_report,
    snapshot,
)

from appliance.policies.actions import Create, Forget, Remove, Start, Stop
from appliance.policies.fleet import NodeFacts
from appliance.policies.placement import agent_bytes
from appliance.policies.reconcile import plan
from appliance.policies.victims import REPLACEMENT_S


class TestNodesThatGo:
    """One node is `local`, the other `far`; what happens to `far` is the test's."""

    HERE = NodeFacts("local", 16 * GB, 2)
    THERE = NodeFacts("far", 16 * GB, 2)

    def fleet(self, *agents, far=THERE, local=HERE, far_runs=True, wanted=1, **given):
        here = {one.id: 11 for one in agents if one.node == "local" and one.state != "stopped"}
        there = {one.id: 12 for one in agents if one.node == "far" and one.state != "stopped"}
        return snapshot(
            agents=agents, deployments=[deployment(least=wanted, desired=wanted)], nodes=(local, far),
            running={"local": here, "far": there if far_runs else None}, **given,
        )  # fmt: skip

    def test_replacement_comes_first(self):
        """An agent stays in service on a node that is to be empty until another one is ready elsewhere."""
        leaving = replace(self.THERE, stay="rest", accepts=False, leaving_since=NOW)
        alone = agent("old", node="far")
        first = plan(self.fleet(alone, far=leaving))
        assert first.actions == (Create("mini", 1, "local"),)
        coming = agent("new", node="local", state="starting", ready_at=None, created_at=NOW)
        assert plan(self.fleet(alone, coming, far=leaving)).actions == ()
        second = plan(self.fleet(alone, replace(coming, state="ready", ready_at=NOW), far=leaving))
        assert {one.id: one.wanted for one in second.agents} == {"old": "resting", "new": "warm"}
        assert second.routes_changed

    def test_no_room_elsewhere(self):
        """Where nothing can take its place an agent leaves at once: what waits is held, not lost."""
        leaving = replace(self.THERE, stay="leave", accepts=False, leaving_since=NOW)
        full = replace(self.HERE, accepts=False)
        decided = plan(self.fleet(agent("old", node="far"), far=leaving, local=full))
        assert [one.wanted for one in decided.agents] == ["draining"]

    def test_a_replacement_that_never_comes(self):
        """After two minutes nobody is waited for any more."""
        leaving = replace(self.THERE, stay="leave", accepts=False, leaving_since=NOW - REPLACEMENT_S - 1)
        coming = agent("new", node="local", state="starting", ready_at=None, created_at=NOW)
        decided = plan(self.fleet(agent("old", node="far"), coming, far=leaving))
        assert {one.id: one.wanted for one in decided.agents} == {"old": "draining", "new": "warm"}

    def test_resting_agent_is_told_to_end_once(self):
        """Out of service and idle it is stopped, and not told again while it ends."""
        leaving = replace(self.THERE, stay="rest", accepts=False, leaving_since=NOW)
        rests = agent("old", node="far", wanted="resting", state="draining", draining_generation=1)
        rests = replace(rests, leaving_at=NOW - 1)
        kept = agent("new", node="local")
        seen = [gateway_report(agent_report("old", "draining"), agent_report("new"))]
        decided = plan(self.fleet(rests, kept, far=leaving, reports=seen))
        assert decided.actions == (Stop("old", "far"),)
        told = next(one for one in decided.agents if one.id == "old")
        assert plan(self.fleet(told, kept, far=leaving, reports=seen)).actions == ()

    def test_called_back_and_kept(self):
        """Once its node is done it is started there again, and the one that stood in for it leaves."""
        rests = agent("old", node="far", wanted="resting", state="stopped", away_at=NOW - 5)
        stand_in = agent("new", node="local", created_at=NOW - 5)
        back = plan(self.fleet(rests, stand_in))
        assert back.actions == (Start("old", "far"),)
        old, new = back.agents
        assert (old.wanted, old.attempt, new.wanted) == ("warm", 0, "warm")
        ready = replace(old, state="ready", ready_at=NOW, away_at=None, pid=12)
        after = plan(self.fleet(ready, stand_in))
        assert {one.id: one.wanted for one in after.agents} == {"old": "warm", "new": "draining"}

    def test_resting_becomes_leaving(self):
        """A node that is retired while its agents rest gives them up."""
        gone = replace(self.THERE, stay="leave", accepts=False)
        rests = agent("old", node="far", wanted="resting", state="stopped", away_at=NOW - 5)
        assert Forget("old", "far") in plan(self.fleet(rests, agent("new"), far=gone)).actions

    def test_lost_node_is_replaced_and_comes_back(self):
        """Agents of a lost node are made up for elsewhere; when it is back the newcomer goes."""
        lost = replace(self.THERE, lost=True)
        alone = agent("old", node="far")
        decided = plan(self.fleet(alone, far=lost, far_runs=False, reports=[gateway_report()]))
        assert decided.actions == (Create("mini", 1, "local"),)
        away = decided.agents[0]
        assert (away.wanted, away.state, away.away_at) == ("warm", "starting", NOW)
        stand_in = agent("new", node="local", created_at=NOW - 5)
        seen = [gateway_report(agent_report("old", "connecting"), agent_report("new"))]
        returning = plan(self.fleet(away, stand_in, reports=seen))
        assert returning.actions == ()
        back = plan(self.fleet(away, stand_in))
        assert {one.id: one.wanted for one in back.agents} == {"old": "warm", "new": "draining"}

    def test_short_absence_changes_nothing(self):
        """A node that is out of sight for a moment keeps its agents as they are."""
        decided = plan(self.fleet(agent("old", node="far"), far_runs=False))
        assert (decided.actions, decided.agents[0].state) == ((), "ready")

    def test_in_hand_is_no_verdict(self):
        """An agent that is just being brought is neither dead nor started twice; a failure is a run."""
        coming = agent("far-1", node="far", state="starting", ready_at=None, pid=None, attempt=1)
        running = {"local": {}, "far": {}}
        values = {"agents": [coming], "nodes": (self.HERE, self.THERE), "running": running}
        assert plan(snapshot(**values, in_hand=frozenset({"far-1"}))).actions == ()
        failed = plan(snapshot(**values, failures={"far-1": "disk full"}))
        assert (failed.agents[0].error, failed.agents[0].retry_at) == ("disk full", NOW + 1)

    def test_undeploy_with_a_lost_node(self):
        """A removed deployment drains its agents on a lost node, too."""
        lost = replace(self.THERE, lost=True)
        wanted = [deployment(removing=True, removing_at=NOW)]
        fleet = self.fleet(agent("old", node="far"), far=lost, far_runs=False)
        assert plan(replace(fleet, deployments=tuple(wanted))).agents[0].wanted == "draining"

    def test_room_for_some(self):
        """Where one of two finds room elsewhere, one leaves at once and one stays until that is ready."""
        leaving = replace(self.THERE, stay="rest", accepts=False, leaving_since=NOW)
        small = replace(self.HERE, ram_bytes=agent_bytes(24_000_000))
        two = [agent("a", node="far"), agent("b", node="far")]
        decided = plan(self.fleet(*two, far=leaving, local=small, wanted=2))
        assert Create("mini", 1, "local") in decided.actions
        assert sorted(one.wanted for one in decided.agents) == ["resting", "warm"]

    def test_those_that_serve_stay_longest(self):
        """Of two that are to go, the one that is not ready is no stand-in for the one that is."""
        leaving = replace(self.THERE, stay="rest", accepts=False, leaving_since=NOW)
        broken = agent("a", node="far", state="starting", ready_at=None, unready_at=NOW)
        going = [broken, agent("b", node="far"), agent("c")]
        seen = [gateway_report(agent_report("a", "connecting"), agent_report("b"), agent_report("c"))]
        decided = plan(self.fleet(*going, far=leaving, wanted=2, reports=seen))
        assert next(one for one in decided.agents if one.id == "b").wanted == "warm"

    def test_no_longer_wanted_while_it_comes_back(self):
        """What is not ready yet after its node was worked on leaves where nobody wants it any more."""
        back = agent("old", node="far", state="starting", ready_at=None, away_at=NOW - 5)
        fleet = self.fleet(back, reports=[gateway_report(agent_report("old", "connecting"))])
        removed = replace(fleet, deployments=(deployment(removing=True, removing_at=NOW),))
        assert plan(removed).agents[0].wanted == "draining"

    def test_undeploy_while_agents_rest(self):
        """An agent of a removed deployment is not kept for a node that may never come back."""
        leaving = replace(self.THERE, stay="rest", accepts=False, leaving_since=NOW, lost=True)
        rests = agent("old", node="far", wanted="resting", state="stopped", away_at=NOW - 5)
        for far in (leaving, self.THERE):
            fleet = self.fleet(rests, far=far, far_runs=far is self.THERE)
            removed = plan(replace(fleet, deployments=(deployment(removing=True, removing_at=NOW),)))
            assert removed.actions == (Forget("old", "far"), Remove("mini"))
        serves = self.fleet(agent("old", node="far"), far=replace(leaving, lost=False))
        removed = plan(replace(serves, deployments=(deployment(removing=True, removing_at=NOW),)))
        assert removed.agents[0].wanted == "draining"

    def test_a_lost_node_keeps_nothing_for_ever(self):
        """An agent that left the routes on a lost node is forgotten; seen again it is an orphan."""
        lost = replace(self.THERE, lost=True)
        told = agent("old", node="far", wanted="stopped", state="draining", leaving_at=NOW - 66)
        decided = plan(self.fleet(told, agent("new"), far=lost, far_runs=False))
        assert decided.actions == (Forget("old", "far"),)
        early = replace(told, leaving_at=NOW - 64)
        assert plan(self.fleet(early, agent("new"), far=lost, far_runs=False)).actions == ()

    def test_what_is_being_brought_is_broken_off(self):
        """An agent on its way to a node that is to be empty has not ended before its job has."""
        leaving = replace(self.THERE, stay="rest", accepts=False, leaving_since=NOW)
        coming = agent("old", node="far", wanted="resting", state="draining", pid=None, ready_at=None)
        coming = replace(coming, draining_generation=1, leaving_at=NOW - 1)
        values = {
            "agents": [coming, agent("new")], "nodes": (self.HERE, leaving),
            "running": {"local": {"new": 11}, "far": {}},
        }  # fmt: skip
        decided = plan(snapshot(**values, in_hand=frozenset({"old"})))
        assert decided.actions == (Stop("old", "far"),)
        assert decided.agents[0].state == "draining"
        assert plan(snapshot(**values)).agents[0].state == "stopped"

    def test_lost_to_us_but_not_to_gateways(self):
        """A node whose sshd is gone while its agents serve needs no stand-ins."""
        lost = replace(self.THERE, lost=True)
        seen = [gateway_report(agent_report("old", "ready"))]
        decided = plan(self.fleet(agent("old", node="far"), far=lost, far_runs=False, reports=seen))
        assert (decided.actions, decided.agents[0].state) == ((), "ready")

    def test_surplus_goes_where_it_is_crowded(self):
        """Of three agents on two nodes one leaves the node that has two, though another is newer."""
        two = [agent(f"here-{number}", node="local", created_at=NOW - 50 + number) for number in (1, 2)]
        fleet = self.fleet(*two, agent("there", node="far", created_at=NOW - 5), wanted=2)
        decided = plan(fleet)
        assert [one.id for one in decided.agents if one.wanted == "draining"] == ["here-2"]

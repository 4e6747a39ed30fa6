"""Agents that move: off crowded nodes, onto owned ones, away from where they may not be, to empty a node."""

from dataclasses import replace

import pytest
from fleet_builders import NOW, agent, agent_report, gateway_report
from placement_builders import World, busy, calm, fleet, node, on, wanted

from appliance.policies.actions import Create
from appliance.policies.moving import GIVE_UP_S, MOST_MOVES
from appliance.policies.placement_rules import PlacementRules
from appliance.policies.reconcile import plan
from appliance.policies.scaling import ScalingState

BOTH = [node("a"), node("b")]


def did(decided):
    return [words for each in decided.deployments for words in each.did]


class TestSpreading:
    """All on one node, and another comes."""

    def test_one_moves_new_before_old(self):
        """The other is ready before the one that moves leaves; then all is at rest."""
        world = World(BOTH, on("aa", threads=2), [wanted(2)])
        first = world.tick()
        assert first.actions == (Create("mini", 1, "b"),)
        assert did(first) == ["move mini-1 from a to b: it has 50% of a, and would have all of it there"]
        assert {one.wanted for one in first.agents} == {"warm"}
        second = world.tick()
        assert did(second) == ["drain mini-1: another takes its place"]
        world.settle()
        assert world.where() == ["a", "b"]

    def test_all_on_one_node_that_is_large_enough(self):
        """Also where nobody is crowded: one node is one point of failure."""
        nodes = [node("a", cores=8), node("b", cores=8)]
        world = World(nodes, on("aa", threads=4), [wanted(2)])
        world.settle()
        assert world.where() == ["a", "b"]

    @pytest.mark.parametrize(
        "given",
        [
            pytest.param({"nodes": [node("a")]}, id="nowhere to go"),
            pytest.param({"nodes": [node("a"), node("b", accepts=False)]}, id="the other takes none"),
            pytest.param({"nodes": [node("a"), node("b", ram_gb=0.1)]}, id="no room there"),
            pytest.param({"nodes": [node("a", cores=4), node("b", cores=1)]}, id="it would do less there"),
            pytest.param({"rules": PlacementRules(prefer="fewest")}, id="few nodes are asked"),
            pytest.param({"rules": PlacementRules(require=(("disk", "ssd"),))}, id="it may not go anywhere"),
            pytest.param({"paused": True}, id="paused"),
            pytest.param({"moves": tuple(NOW - one for one in range(MOST_MOVES))}, id="no budget"),
            pytest.param(
                {"scaling_state": ScalingState(at=NOW - 1, active_at=NOW, panic_at=NOW - 5)}, id="panic",
            ),
            pytest.param(
                {"scaling_state": replace(calm(), steps=((NOW - 20, 1),))}, id="just changed",
            ),
            pytest.param({"silent": ("gateway-2",)}, id="a gateway is silent"),
        ],
    )  # fmt: skip
    def test_reasons_to_stay(self, given):
        """Nothing is moved."""
        given = dict(given)
        nodes, silent = given.pop("nodes", BOTH), given.pop("silent", ())
        agents = on("aa", threads=2)
        decided = plan(fleet(nodes, agents, [wanted(2, **given)], silent=silent))
        assert not [words for words in did(decided) if words.startswith("move ")]
        assert {one.wanted for one in decided.agents} == {"warm"}

    def test_one_move_at_a_time(self):
        """Of two deployments that crowd, one agent moves."""
        agents = on("aa", threads=2) + on("aa", owner="big", threads=2)
        decided = plan(fleet([*BOTH, node("c")], agents, [wanted(2), wanted(2, "big")]))
        assert len(decided.actions) == len(did(decided)) == 1

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            pytest.param({"nodes": [node("a"), node("b", accepts=False)]}, "b takes no agents", id="node"),
            pytest.param({"now": NOW + GIVE_UP_S + 1}, "none was ready on b within 180 s", id="time"),
            pytest.param({"queued": 3}, "load has come", id="load"),
        ],
    )
    def test_a_move_is_called_off(self, given, why):
        """What would not be begun now is not finished, either."""
        agents = on("aa", threads=2)
        agents[0] = replace(agents[0], moving_at=NOW - 1, moving_to="b")
        given = dict(given)
        queued, nodes = given.pop("queued", 0), given.pop("nodes", BOTH)
        now = given.get("now", NOW)
        one = wanted(2, scaling_state=calm(now))
        counts = replace(busy(0), queued=queued)
        seen = [agent_report(each.id) for each in agents]
        reports = [gateway_report(*seen, deployments=[counts], at=now)]
        decided = plan(fleet(nodes, agents, [one], reports=reports, **given))
        assert f"leave mini-1 on a: {why}" in did(decided)[0]
        assert decided.agents[0].moving_at is None

    def test_a_move_in_vain_is_not_tried_again(self):
        """None was ready there in time: nobody of this deployment is moved there once more."""
        world = World(BOTH, on("aa", threads=2), [wanted(2)])
        first, second = world.agents
        world.agents = [replace(first, moving_at=NOW - GIVE_UP_S - 1, moving_to="b"), second]
        assert "none was ready on b within 180 s" in did(world.tick())[0]
        world.settle()
        assert world.where() == ["a", "a"]
        world.agents = [replace(one, moving_to="") for one in world.agents]
        world.settle()
        assert world.where() == ["a", "b"]

    def test_replicas_over_nodes_and_regions(self):
        """What is to be spread is, two apart at most one after."""
        nodes = [
            node("a", region="east", cores=8),
            node("b", region="east", cores=8),
            node("c", region="west"),
        ]
        world = World(nodes, on("aabb", threads=1), [wanted(4, rules=PlacementRules(spread="region"))])
        world.settle()
        assert world.where() == ["a", "b", "c", "c"]
        world = World(nodes, on("aaab", threads=1), [wanted(4, rules=PlacementRules(spread="node"))])
        world.settle()
        assert world.where().count("a") <= 2


class TestWhoMustMove:
    """Rules and owned nodes."""

    def test_agents_that_break_a_rule_leave_one_at_a_time(self):
        """The new one comes first, and never fewer are ready than are wanted."""
        nodes = [node("a"), node("b", labels={"disk": "ssd"}), node("c", labels={"disk": "ssd"})]
        world = World(
            nodes, on("aa", threads=2), [wanted(2, rules=PlacementRules(require=(("disk", "ssd"),)))]
        )
        for _ in range(12):
            assert len(world.tick().deployments) == 1
            assert len(world.where()) >= 2
        assert world.where() == ["b", "c"]

    def test_nowhere_else_is_a_problem_that_is_told(self):
        """It stays, and people read why."""
        one = wanted(1, rules=PlacementRules(avoid=(("spot", ""),)))
        decided = plan(fleet([node("a", labels={"spot": "yes"})], on("a"), [one]))
        assert (decided.actions, decided.agents[0].wanted) == ((), "warm")
        problem = decided.deployments[0].problem
        assert "agent mini-1 stays on a, which has the label spot=yes, which is avoided" in problem

    def test_the_first_agents_go_on_owned_nodes(self):
        """The minimum on owned ones though others are faster; what comes beyond goes where it does most."""
        nodes = [node("own"), node("spot", preemptible=True, cores=8)]
        assert plan(fleet(nodes, [], [wanted(1)])).actions == (Create("mini", 1, "own"),)
        burst = World(nodes, [], [wanted(0, least=1)])
        burst.load["mini"] = 2
        burst.settle()
        assert burst.where() == ["own", "spot"]

    def test_a_base_agent_moves_back_to_an_owned_node(self):
        """It went to a preemptible one while there was nothing else."""
        world = World([node("spot", preemptible=True)], [], [wanted(1)])
        world.settle()
        assert world.where() == ["spot"]
        world.nodes.append(node("own"))
        world.settle()
        assert world.where() == ["own"]


class TestEmptying:
    """Two nodes in use where one would do."""

    CHEAP = PlacementRules(prefer="fewest")

    def world(self, *, rules=CHEAP, **given):
        nodes = [node("a", cores=4, can_sleep=True), node("b", cores=4, cost_per_hour=0.5, can_sleep=True)]
        deployments = [wanted(1, rules=rules, **given), wanted(1, "big", rules=rules, **given)]
        return World(nodes, on("a", threads=2) + on("b", owner="big", threads=2), deployments)

    def test_the_costly_node_is_emptied(self):
        """Its agent moves beside the other; the decision says what that saves."""
        world = self.world()
        words = did(world.tick())
        assert words == ["move big-1 from b to a: empties b, which saves 0.501 an hour for 1 moves"]
        world.settle()
        assert (world.where(), world.where("big")) == (["a"], ["a"])

    def test_not_unless_asked(self):
        """A deployment that prefers speed keeps its node."""
        assert did(self.world(rules=PlacementRules()).tick()) == []

    def test_not_where_the_rest_would_do_less_than_is_asked(self):
        """Two that are busy share no box."""
        world = self.world(unit_rps=100.0, capacities={"a": 100.0, "b": 100.0})
        world.agents = [replace(one, threads=4) for one in world.agents]
        world.load = {"mini": 1, "big": 1}
        world.settle()
        assert (world.where(), world.where("big")) == (["a"], ["b"])
        world.load = {"mini": 0, "big": 0}
        world.settle()
        assert world.where() == world.where("big")

    def test_all_or_nothing(self):
        """Where one of two would not fit, none is moved."""
        nodes = [node("a", cores=8, ram_gb=0.6), node("b", cores=8, cost_per_hour=0.5)]
        one, other = wanted(1, rules=self.CHEAP), wanted(2, "big", rules=self.CHEAP)
        agents = on("a", threads=1) + on("bb", owner="big", threads=1)
        assert did(plan(fleet(nodes, agents, [one, other]))) == []

    def test_within_the_budget(self):
        """A node with more agents than may be moved is left as it is."""
        count = MOST_MOVES + 1
        nodes = [node("a", cores=64), node("b", cores=64, cost_per_hour=0.5)]
        agents = on("a", threads=1) + on("b" * count, owner="big", threads=1)
        deployments = [wanted(1, rules=self.CHEAP), wanted(count, "big", rules=self.CHEAP)]
        moved = did(plan(fleet(nodes, agents, deployments)))
        assert not [words for words in moved if "from b" in words]


class TestFailedForGood:
    """An agent that does not come up on a healthy node."""

    FAILED = {"state": "failed", "ready_at": None, "attempt": 5, "pid": None, "error": "no such library",
              "retry_at": NOW + 30}  # fmt: skip

    def test_another_node_makes_up_for_it(self):
        """A replacement comes elsewhere; the failed one stays as the problem, and is tried again."""
        failed = agent("mini-1", node="a", **self.FAILED)
        decided = plan(fleet(BOTH, [failed], [wanted(1)]))
        assert decided.actions == (Create("mini", 1, "b"),)
        assert "agent mini-1 failed: no such library" in decided.deployments[0].problem
        stand_in = agent("mini-2", node="b")
        after = plan(fleet(BOTH, [failed, stand_in], [wanted(1)]))
        assert ([one.wanted for one in after.agents], after.actions) == (["warm", "warm"], ())
        assert "mini-1" in after.deployments[0].problem
        retried = replace(failed, state="starting", retry_at=None, attempt=6, pid=4, unready_at=NOW)
        again = plan(fleet(BOTH, [retried, stand_in], [wanted(1)]))
        assert [one.wanted for one in again.agents] == ["warm", "warm"]

    def test_it_recovers(self):
        """Then one of the two is too many."""
        back = agent("mini-1", node="a", attempt=6, ready_at=NOW)
        decided = plan(fleet(BOTH, [back, agent("mini-2", node="b")], [wanted(1)]))
        assert sorted(one.wanted for one in decided.agents) == ["draining", "warm"]

    def test_what_fails_everywhere_is_not_tried_everywhere(self):
        """One replacement, not one on each node of the fleet."""
        nodes = [node(name) for name in "abcdef"]
        failed = [agent(f"mini-{n}", node=name, **self.FAILED) for n, name in enumerate("ab")]
        assert plan(fleet(nodes, failed, [wanted(1)])).actions == ()

    def test_it_goes_when_fewer_are_wanted(self):
        """A lower number takes the failed one first."""
        failed = agent("mini-1", node="a", **self.FAILED)
        one = wanted(2, least=1, most=1)
        decided = plan(fleet(BOTH, [failed, agent("mini-2", node="b")], [one]))
        assert {each.id: each.wanted for each in decided.agents} == {"mini-1": "draining", "mini-2": "warm"}

    def test_where_there_is_no_other_node_it_waits(self):
        """The failure is the problem, not the lack of room."""
        failed = agent("mini-1", node="a", **self.FAILED)
        decided = plan(fleet([node("a"), node("b", accepts=False)], [failed], [wanted(1)]))
        assert (decided.actions, decided.agents[0].wanted) == ((), "warm")
        assert "no such library" in decided.deployments[0].problem

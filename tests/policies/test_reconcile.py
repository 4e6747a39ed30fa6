"""From wanted and seen to actions: one step at a time, and whole stories."""

from dataclasses import replace

import pytest
from fleet_builders import (
    NOW,
    agent,
    agent_report,
    deployment,
    deployment_report,
    gateway_report,
    snapshot,
)

from appliance.policies.actions import Create, EndOrphan, Forget, Remove, Start, Stop
from appliance.policies.fleet import Exit, NodeFacts
from appliance.policies.placement import agent_bytes
from appliance.policies.reconcile import plan
from appliance.policies.standing import restart_delay_s, start_limit_s


def only(decided, name="mini-1"):
    return next(one for one in decided.agents if one.id == name)


def test_nothing_to_do():
    """A fleet that is as wanted needs no action, and no agent changes."""
    fleet = snapshot(agents=[agent()])
    decided = plan(fleet)
    assert (decided.actions, decided.routes_changed, decided.agents) == ((), False, fleet.agents)


def test_missing_agents_are_created():
    """The minimum is met at once, on a node with room."""
    decided = plan(snapshot(deployments=[deployment(least=2, desired=0)]))
    assert decided.actions == (Create("mini", 1, "local"), Create("mini", 1, "local"))
    assert decided.routes_changed
    (each,) = decided.deployments
    assert (each.before, each.desired, each.clamps) == (0, 2, ("min 2",))


def test_refused_placement_is_said():
    """Without room nothing is created, and the deployment says why."""
    decided = plan(snapshot(deployments=[deployment(desired=1)], nodes=[NodeFacts("local", 10**8, 2)]))
    assert decided.actions == ()
    assert "of RAM" in decided.deployments[0].problem


def test_what_a_tick_places_counts_in_the_same_tick():
    """Two agents that fit one by one but not together: one comes, the other is refused."""
    ram = 2 * agent_bytes(24_000_000) - 1
    decided = plan(snapshot(deployments=[deployment(least=2, desired=2)], nodes=[NodeFacts("local", ram, 2)]))
    assert decided.actions == (Create("mini", 1, "local"),)
    assert decided.deployments[0].problem


def test_a_fleet_just_enrolled_is_not_crowded_on_its_first_node():
    """The first agent comes at once where it can; the others wait for nodes that are just being looked at."""
    nodes = [NodeFacts("first", 10**9, 2), NodeFacts("second", 10**9, 2, accepts=False, settling=True)]
    asked = [deployment(least=2, desired=0)]
    decided = plan(snapshot(deployments=asked, nodes=nodes, running={"first": {}, "second": None}))
    assert decided.actions == (Create("mini", 1, "first"),)
    assert "first look at second" in decided.deployments[0].problem
    gone = [nodes[0], replace(nodes[1], settling=False)]
    decided = plan(snapshot(deployments=asked, nodes=gone, running={"first": {}, "second": None}))
    assert decided.actions == (Create("mini", 1, "first"),) * 2


class TestMending:
    """Agents that should run and do not."""

    def test_crashed_agent_restarts_at_once(self):
        """The first crash costs no wait; the same agent is started, and the error keeps the log."""
        fleet = snapshot(agents=[agent()], running={}, exits={"mini-1": Exit(-9, ("last words",))})
        decided = plan(fleet)
        assert decided.actions == (Start("mini-1", "local"),)
        after = only(decided)
        assert (after.state, after.attempt, after.started_at) == ("starting", 1, NOW)
        assert after.error == "the process was ended by signal 9\nlast words"
        assert not decided.routes_changed

    def test_second_crash_waits(self):
        """A crash soon after a restart waits a second."""
        decided = plan(snapshot(agents=[agent(attempt=1)], running={}))
        assert decided.actions == ()
        assert only(decided).retry_at == NOW + 1
        later = plan(snapshot(agents=[only(decided)], running={}, now=NOW + 1))
        assert later.actions == (Start("mini-1", "local"),)
        assert only(later).retry_at is None

    def test_five_bad_runs_are_a_failure(self):
        """The fifth run that ends badly makes it failed; it is tried again each minute."""
        decided = plan(
            snapshot(agents=[agent(attempt=4)], running={}, exits={"mini-1": Exit(3, ("no model",))})
        )
        after = only(decided)
        assert (after.state, after.retry_at) == ("failed", NOW + 60)
        assert "exited with code 3\nno model" in decided.deployments[0].problem
        assert plan(snapshot(agents=[after], running={}, now=NOW + 59)).actions == ()
        assert plan(snapshot(agents=[after], running={}, now=NOW + 60)).actions == (Start("mini-1", "local"),)

    def test_delays(self):
        """At once, 1, 2, 4 seconds, then a minute."""
        assert [restart_delay_s(attempt) for attempt in range(6)] == [0, 1, 2, 4, 60, 60]

    def test_well_for_ten_seconds_forgets_attempts(self):
        """Ready for 10 s: the next crash is a first one again."""
        soon = plan(snapshot(agents=[agent(attempt=3, ready_at=NOW - 9, error="x")]))
        late = plan(snapshot(agents=[agent(attempt=3, ready_at=NOW - 10, error="x")]))
        assert (only(soon).attempt, only(late).attempt, only(late).error) == (3, 0, "")

    def test_taken_port_is_left(self):
        """Exit code 4 says the port is taken: the next start gets another."""
        fleet = snapshot(agents=[agent()], running={}, exits={"mini-1": Exit(4)})
        assert plan(fleet).actions == (Start("mini-1", "local", new_port=True),)

    def test_not_ready_in_time_is_ended_and_started_again(self):
        """11 s after its start without being ready it is killed; its restart follows the same delays."""
        waiting = agent(state="starting", ready_at=None, unready_at=NOW - 11, started_at=NOW - 11)
        reports = [gateway_report(agent_report(state="connecting", busy=None))]
        decided = plan(snapshot(agents=[waiting], reports=reports))
        assert decided.actions == (Stop("mini-1", "local", kill=True),)
        assert only(decided).retry_at == NOW
        assert "not ready within" in only(decided).error
        gone = plan(snapshot(agents=[only(decided)], running={}, now=NOW + 1))
        assert gone.actions == (Start("mini-1", "local"),)

    def test_big_models_get_more_time(self):
        """The limit grows with the model, to a minute at most."""
        assert (start_limit_s(0), start_limit_s(10**9), start_limit_s(10**11)) == (10.0, 35.0, 60.0)

    @pytest.mark.parametrize(
        "unheard",
        [
            pytest.param({"reports": (), "heard_since": None}, id="nobody-reports"),
            pytest.param({"heard_since": NOW - 2}, id="heard-only-now"),
            pytest.param({"reports": [gateway_report()]}, id="gateway-does-not-know-it-yet"),
        ],
    )
    def test_unseen_is_not_unready(self, unheard):
        """Where gateways cannot tell, an agent that runs is left alone."""
        waiting = agent(state="starting", ready_at=None, unready_at=NOW - 300)
        known = {"reports": [gateway_report(agent_report(state="connecting", busy=None))]}
        decided = plan(snapshot(agents=[waiting], **{**known, **unheard}))
        assert decided.actions == ()
        assert only(decided).state == "starting"

    def test_unseen_process_is_not_dead(self):
        """Where the node does not answer nothing is concluded of its agents."""
        fleet = replace(snapshot(agents=[agent()]), running={"local": None})
        decided = plan(fleet)
        assert (decided.actions, decided.agents) == ((), fleet.agents)

    def test_reports_from_before_a_restart_say_nothing(self):
        """A report older than the start does not make the new process ready."""
        started = agent(state="starting", ready_at=None, started_at=NOW - 0.1, unready_at=NOW - 0.1)
        decided = plan(snapshot(agents=[started], reports=[gateway_report(agent_report(), at=NOW - 0.5)]))
        assert only(decided).state == "starting"

    def test_running_processes_are_adopted(self):
        """A process that a former worker started is taken over by its row."""
        decided = plan(snapshot(agents=[agent(pid=None)], running={"mini-1": 77}))
        assert (only(decided).pid, decided.actions) == (77, ())

    def test_process_without_row_is_ended(self):
        """What no row knows has no business here."""
        assert plan(snapshot(running={"ghost-1": 5}, deployments=[])).actions == (
            EndOrphan("ghost-1", "local"),
        )


class TestLeaving:
    """The handshake, and who goes first."""

    def leaving(self, **given):
        return agent(**{"wanted": "draining", "state": "draining", "leaving_at": NOW - 1,
                        "draining_generation": 7, **given})  # fmt: skip

    def planned(self, *reports, one=None, **given):
        wanted = [deployment(least=0, desired=0)]
        return plan(
            snapshot(agents=[one or self.leaving()], deployments=wanted, reports=reports, **given)
        ).actions

    def test_surplus_drains_idle_and_newest_first(self):
        """Of three the busy one and the oldest stay."""
        agents = [
            agent("mini-1", created_at=1.0),
            agent("mini-2", created_at=2.0),
            agent("mini-3", created_at=3.0),
        ]
        seen = [agent_report("mini-1"), agent_report("mini-2"), agent_report("mini-3", in_flight=4)]
        decided = plan(
            snapshot(
                agents=agents,
                deployments=[deployment(least=1, most=2, desired=2)],
                reports=[gateway_report(*seen)],
            )
        )
        assert {one.id: one.wanted for one in decided.agents} == {
            "mini-1": "warm", "mini-2": "draining", "mini-3": "warm",
        }  # fmt: skip
        assert decided.routes_changed
        assert decided.actions == ()

    def test_what_serves_nothing_goes_before_what_serves(self):
        """A starting agent is drained before a ready idle one."""
        agents = [agent("mini-1", state="starting", ready_at=None), agent("mini-2", created_at=NOW)]
        seen = [agent_report("mini-1", "loading", busy=None), agent_report("mini-2")]
        decided = plan(
            snapshot(agents=agents, deployments=[deployment(most=1)], reports=[gateway_report(*seen)])
        )
        assert only(decided, "mini-1").wanted == "draining"

    def test_stop_when_all_have_let_go(self):
        """Every gateway serves the generation with nothing in flight, the agent holds nothing: SIGTERM."""
        quiet = [gateway_report(agent_report(state="draining"), number=7)]
        assert self.planned(*quiet) == (Stop("mini-1", "local"),)

    @pytest.mark.parametrize(
        "report",
        [
            pytest.param(gateway_report(agent_report(), number=6), id="older-generation"),
            pytest.param(gateway_report(agent_report(in_flight=1), number=7), id="in-flight"),
            pytest.param(gateway_report(agent_report(busy=1), number=7), id="agent-busy"),
            pytest.param(gateway_report(agent_report(busy=None), number=7), id="agent-not-asked"),
            pytest.param(gateway_report(agent_report(load_age_s=4.0), number=7), id="old-word"),
        ],
    )
    def test_wait_while_anything_is_under_way(self, report):
        """Any step of the handshake that is missing holds the stop."""
        other = gateway_report(agent_report(busy=None), gateway="gateway-2", number=9)
        assert self.planned(other, report) == ()

    def test_its_own_word_counts_where_gateways_have_none(self):
        """An agent that no gateway is connected to any more is asked directly."""
        report = gateway_report(number=7)
        assert self.planned(report, busy={"mini-1": 2}) == ()
        assert self.planned(report, busy={"mini-1": 0}) == (Stop("mini-1", "local"),)

    def test_silent_gateway_delays_at_most_the_longest_request(self):
        """A gateway that hangs holds the stop for 60 s and a margin, not for ever."""
        report = gateway_report(agent_report(), number=7)
        assert self.planned(report, silent=("gateway-2",)) == ()
        late = self.leaving(leaving_at=NOW - 66)
        assert self.planned(report, one=late, silent=("gateway-2",)) == (Stop("mini-1", "local"),)

    def test_never_ready_needs_no_word(self):
        """An agent that was never ready holds nothing."""
        one = self.leaving(ready_at=None)
        assert self.planned(gateway_report(number=7), one=one) == (Stop("mini-1", "local"),)

    def test_ended_agent_is_forgotten(self):
        """Once its process is gone row and files go too, whatever it was doing."""
        assert self.planned(running={}) == (Forget("mini-1", "local"),)
        assert self.planned(running={}, one=self.leaving(wanted="stopped")) == (Forget("mini-1", "local"),)

    def test_agent_that_does_not_end_is_killed_late(self):
        """After SIGTERM it has the longest request's time; then nothing can be under way."""
        told = self.leaving(wanted="stopped")
        assert self.planned(gateway_report(number=8), one=told) == ()
        stuck = self.leaving(wanted="stopped", leaving_at=NOW - 66)
        assert self.planned(gateway_report(number=8), one=stuck) == (Stop("mini-1", "local", kill=True),)


class TestNewRevision:
    """New agents first, old ones after."""

    def step(self, *agents, desired=2):
        wanted = [deployment(least=desired, desired=desired, revision=2)]
        return plan(snapshot(agents=agents, deployments=wanted, reports=[
            gateway_report(*(agent_report(one.id, one.state) for one in agents if one.state == "ready"))
        ]))  # fmt: skip

    def test_one_new_comes_first(self):
        """The first new agent is created while all old ones serve."""
        decided = self.step(agent("old-1"), agent("old-2"))
        assert decided.actions == (Create("mini", 2, "local"),)
        assert all(one.wanted == "warm" for one in decided.agents)

    def test_no_old_one_goes_before_a_new_one_is_ready(self):
        """A starting new agent changes nothing yet, and brings no second one."""
        new = agent("new-1", revision=2, state="starting", ready_at=None)
        decided = self.step(agent("old-1"), agent("old-2"), new)
        assert decided.actions == ()
        assert all(one.wanted == "warm" for one in decided.agents)

    def test_each_ready_one_replaces_one(self):
        """With one new ready one old drains, and the next new comes."""
        decided = self.step(agent("old-1"), agent("old-2"), agent("new-1", revision=2))
        assert sum(one.wanted == "draining" for one in decided.agents) == 1
        assert decided.actions == (Create("mini", 2, "local"),)

    def test_failed_new_one_leaves_the_old(self):
        """Where the new revision does not come up the old one goes on serving."""
        new = agent("new-1", revision=2, state="failed", ready_at=None, attempt=5, retry_at=NOW + 50)
        wanted = [deployment(least=1, revision=2)]
        reports = [gateway_report(agent_report("old-1"))]
        decided = plan(
            snapshot(agents=[agent("old-1"), new], deployments=wanted, reports=reports, running={"old-1": 11})
        )
        assert only(decided, "old-1").wanted == "warm"
        assert decided.actions == ()


class TestOrders:
    """Paused, removed, unproven."""

    def test_paused_keeps_its_number_and_mends(self):
        """A paused deployment is not scaled, but a crashed agent comes back."""
        wanted = [deployment(least=3, desired=1, paused=True)]
        assert plan(snapshot(agents=[agent()], deployments=wanted)).actions == ()
        crashed = plan(snapshot(agents=[agent()], deployments=wanted, running={}))
        assert crashed.actions == (Start("mini-1", "local"),)

    def test_removal_waits_for_the_queue_a_moment(self):
        """While gateways hold requests for it the agents stay, as long as a request may wait."""
        wanted = deployment(removing=True)
        waiting = [gateway_report(agent_report(), deployments=[deployment_report(queued=3)])]
        kept = plan(snapshot(agents=[agent()], deployments=[wanted], reports=waiting))
        assert only(kept).wanted == "warm"
        assert kept.deployments[0].removing_at == NOW
        late = replace(wanted, removing_at=NOW - 60)
        assert (
            only(plan(snapshot(agents=[agent()], deployments=[late], reports=waiting))).wanted == "draining"
        )
        assert only(plan(snapshot(agents=[agent()], deployments=[wanted]))).wanted == "draining"

    def test_deployment_goes_with_its_last_agent(self):
        """The row is removed once no agent is left."""
        wanted = [deployment(removing=True)]
        gone = agent(wanted="stopped")
        assert plan(snapshot(agents=[gone], deployments=wanted, running={})).actions == (
            Forget("mini-1", "local"),
            Remove("mini"),
        )

    def test_new_revision_is_proven_by_one_agent(self):
        """With a minimum of zero one agent still comes up once, and then counts as proof."""
        wanted = deployment(least=0, desired=0, proven=False)
        decided = plan(snapshot(deployments=[wanted]))
        assert decided.actions == (Create("mini", 1, "local"),)
        assert decided.deployments[0].kind == "proof"
        ready = plan(snapshot(agents=[agent()], deployments=[replace(wanted, desired=1)]))
        assert ready.deployments[0].proven
        assert ready.deployments[0].desired == 1


class TestBetterProfile:
    """Agents make room for ones with a clearly better profile, one at a time, new before old."""

    def test_one_new_agent_comes_first(self):
        """Nothing is drained before the new one is ready."""
        agents = [agent(outdated=True), agent("mini-2", outdated=True, pid=12)]
        decided = plan(snapshot(agents=agents, deployments=[deployment(desired=2, least=2)]))
        assert decided.actions == (Create("mini", 1, "local"),)
        assert {one.wanted for one in decided.agents} == {"warm"}

    def test_growth_does_not_wait_for_it(self):
        """What is wanted beyond those that run comes at once: it is of the same revision."""
        wanted = [deployment(desired=3, least=3)]
        decided = plan(snapshot(agents=[agent(outdated=True)], deployments=wanted))
        assert decided.actions == (Create("mini", 1, "local"),) * 2

    def test_then_an_old_one_goes(self):
        """With the new one ready, one of the old is drained and the next new one comes."""
        agents = [agent(outdated=True), agent("mini-2", outdated=True, pid=12), agent("mini-3", pid=13)]
        decided = plan(snapshot(agents=agents, deployments=[deployment(desired=2, least=2)]))
        assert sorted(one.wanted for one in decided.agents) == ["draining", "warm", "warm"]
        assert only(decided, "mini-3").wanted == "warm"
        assert Create("mini", 1, "local") in decided.actions

    def test_without_room_they_stay(self):
        """Where a second agent does not fit, all stays as it is, and that is no problem."""
        nodes = [NodeFacts("local", agent_bytes(24_000_000) + 1, 2)]
        decided = plan(snapshot(agents=[agent(outdated=True)], nodes=nodes))
        assert (decided.actions, decided.deployments[0].problem) == ((), "")
        assert only(decided).wanted == "warm"

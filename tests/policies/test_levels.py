"""Parked agents: who parks, who comes back, who ends; and what happens when two act at once."""

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

from appliance.policies.actions import Create, Forget, Park, Resume, Stop
from appliance.policies.fleet import NodeFacts
from appliance.policies.placement import agent_bytes
from appliance.policies.placement_rules import PlacementRules
from appliance.policies.reconcile import plan

PARK_S = 300.0


def parked(name="mini-1", *, ago=10.0, **given):
    """An agent that was told to park `ago` seconds before NOW."""
    return agent(
        name, wanted="parked", state="parked", parked_at=NOW - ago, leaving_at=NOW - ago - 2,
        draining_generation=1, **given,
    )  # fmt: skip


def fleet(*agents, seen=None, least=0, most=4, desired=0, held=(), number=1, in_flight=0, **given):
    """A fleet whose gateway sees the agents as their rows say, unless `seen` says otherwise by id."""
    states = {one.id: one.state for one in agents} | (seen or {})
    links = [one if isinstance(one, tuple) else (name, {"state": one}) for name, one in states.items() if one]
    reports = given.pop("reports", None) or [
        gateway_report(
            *(agent_report(name, **link) for name, link in links),
            deployments=[deployment_report(in_flight=in_flight)], number=number,
        )
    ]  # fmt: skip
    wanted = deployment(least=least, most=most, desired=desired, park_s=given.pop("park_s", PARK_S), **{
        name: given.pop(name) for name in ("revision", "removing", "paused") if name in given
    })  # fmt: skip
    given.setdefault("deployments", (wanted,))
    return snapshot(agents=agents, reports=reports, held=frozenset(held), **given)


def node(**given):
    return NodeFacts("local", 16 * 10**9, 2, **given)


def woken(name="mini-1", state="loading", **given):
    return (name, {"state": state, "resumed": True, **given})


def of(decided, name="mini-1"):
    return next((one for one in decided.agents if one.id == name), None)


def did(decided):
    return "; ".join(word for each in decided.deployments for word in each.did)


class TestGoingDown:
    """An agent that is too much."""

    def test_it_leaves_service_to_be_parked(self):
        """First gateways must hear of it; nothing is told to the agent yet."""
        decided = plan(fleet(agent()))
        assert (of(decided).wanted, of(decided).draining_generation) == ("parked", None)
        assert (decided.actions, decided.routes_changed) == ((), True)
        assert "drain mini-1 to park it: more than wanted" in did(decided)

    @pytest.mark.parametrize(
        ("link", "number", "is_told"),
        [
            pytest.param({"state": "ready"}, 5, True, id="handshake done"),
            pytest.param({"state": "ready"}, 4, False, id="a gateway has not heard of it"),
            pytest.param({"state": "ready", "in_flight": 1}, 5, False, id="in flight"),
            pytest.param({"state": "ready", "busy": 1}, 5, False, id="it holds work itself"),
        ],
    )
    def test_it_is_told_to_park_after_the_handshake(self, link, number, is_told):
        """Every gateway has taken it out of service, and it holds nothing."""
        leaving = agent(wanted="parked", state="draining", leaving_at=NOW - 1, draining_generation=5)
        decided = plan(fleet(leaving, seen={"mini-1": ("mini-1", link)}, number=number))
        assert decided.actions == ((Park("mini-1", "local"),) if is_told else ())
        assert of(decided).parked_at == (NOW if is_told else None)

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            pytest.param({"park_s": 0.0}, "draining", id="parking is off"),
            pytest.param({"removing": True}, "draining", id="removed"),
            pytest.param({"most": 1, "least": 1}, "draining", id="over a lowered maximum"),
            pytest.param({}, "parked", id="could come back"),
        ],
    )
    def test_who_is_parked(self, given, wanted):
        """Only one that could come back: else it stops."""
        decided = plan(fleet(agent("mini-1"), agent("mini-2", created_at=NOW - 50), **given))
        assert of(decided, "mini-2").wanted == wanted

    def test_no_more_than_could_come_back(self):
        """Of a maximum of three with one warm and one parked, one more may be."""
        warm = [agent(f"mini-{number}") for number in (1, 2, 3)]
        decided = plan(fleet(parked("mini-0"), *warm, most=3))
        assert sorted(one.wanted for one in decided.agents) == ["draining", "parked", "parked", "warm"]

    def test_one_that_never_was_ready_stops(self):
        """There is nothing in it worth keeping."""
        decided = plan(fleet(agent(state="starting", ready_at=None), seen={"mini-1": "loading"}))
        assert of(decided).wanted == "draining"

    def test_one_that_gateways_do_not_trust_stops(self):
        """What fails is not kept to fail again."""
        assert of(plan(fleet(agent(), seen={"mini-1": "ejected"}))).wanted == "draining"

    def test_an_order_that_was_lost_is_given_again(self):
        """A worker killed in between, or an agent that started anew and is warm: it is told to park again."""
        again = plan(fleet(parked(ago=10.0), seen={"mini-1": "ready"}))
        assert (again.actions, of(again).wanted) == ((Park("mini-1", "local"),), "parked")
        early = plan(fleet(parked(ago=1.0), seen={"mini-1": "ready"}))
        assert early.actions == ()


class TestComingBack:
    """An agent is wanted again."""

    def test_parked_ones_come_before_new_ones(self):
        """Of three wanted one is parked: it is resumed, and two are made."""
        decided = plan(fleet(parked(), least=3))
        assert decided.actions == (Resume("mini-1", "local"), *[Create("mini", 1, "local")] * 2)
        assert (of(decided).wanted, of(decided).state, of(decided).parked_at) == ("warm", "starting", None)
        assert decided.routes_changed

    def test_one_that_did_not_park_yet_just_stays(self):
        """It is ready still, so it comes first, and needs no order."""
        leaving = agent(
            "mini-9", wanted="parked", state="draining", leaving_at=NOW - 1, draining_generation=1
        )
        decided = plan(fleet(parked(), leaving, least=1, seen={"mini-9": "ready"}))
        assert (of(decided, "mini-9").wanted, of(decided, "mini-9").state) == ("warm", "ready")
        assert (of(decided).wanted, decided.actions) == ("parked", ())

    def test_order_to_resume_is_repeated_until_it_is_heard(self):
        """A worker killed after its write, before the order: the next tick gives it."""
        warm = agent(state="starting", unready_at=NOW - 2)
        decided = plan(fleet(warm, least=1, desired=1, seen={"mini-1": "parked"}))
        assert (decided.actions, of(decided).state) == ((Resume("mini-1", "local"),), "starting")

    def test_gateways_and_loop_choose_the_same(self):
        """By id, whatever their order: else one need would wake two."""
        decided = plan(fleet(parked("mini-b", created_at=NOW - 900), parked("mini-a"), held=["mini"]))
        assert [one.id for one in decided.agents if one.wanted == "warm"] == ["mini-a"]


class TestAdopting:
    """A gateway resumed one by itself."""

    def test_it_is_wanted_from_now_on(self):
        """The number rises with it, and the decision says so."""
        decided = plan(fleet(parked(), seen={"mini-1": woken()}))
        (each,) = decided.deployments
        assert (each.before, each.desired, of(decided).wanted) == (0, 1, "warm")
        assert "adopt mini-1" in did(decided)
        assert "adopted 1" in each.clamps

    def test_never_over_the_maximum(self):
        """One beyond it ends by the handshake: requests that it has are answered."""
        decided = plan(fleet(agent("mini-2"), parked(), most=1, least=1, desired=1, seen={"mini-1": woken()}))
        assert of(decided).wanted == "draining"
        assert [one.desired for one in decided.deployments] == [1]
        assert not decided.actions

    def test_just_as_its_time_is_over(self):
        """What was to end this second serves: somebody waits for it."""
        decided = plan(fleet(parked(ago=PARK_S + 1), seen={"mini-1": woken(state="ready")}))
        assert (of(decided).wanted, of(decided).state) == ("warm", "ready")

    def test_after_a_restart_of_the_gateway_work_tells(self):
        """Nobody says that it was resumed, but it has requests: so it is wanted."""
        decided = plan(fleet(parked(), seen={"mini-1": ("mini-1", {"state": "ready", "in_flight": 2})}))
        assert of(decided).wanted == "warm"

    def test_one_that_started_anew_by_itself_is_not_wanted(self):
        """It crashed while parked and came up warm: nobody asked for it."""
        decided = plan(fleet(parked(pid=12), seen={"mini-1": "loading"}))
        assert (of(decided).wanted, [one.desired for one in decided.deployments]) == ("parked", [0])

    def test_a_paused_deployment_keeps_its_number(self):
        """What a gateway woke beyond it ends."""
        decided = plan(fleet(parked(), paused=True, seen={"mini-1": woken()}))
        assert (of(decided).wanted, [one.desired for one in decided.deployments]) == ("draining", [0])


class TestEnding:
    """A parked agent nobody needs."""

    @pytest.mark.parametrize(
        ("one", "given", "why"),
        [
            pytest.param(parked(ago=PARK_S), {}, "parked for 300 s", id="time is over"),
            pytest.param(parked(revision=2), {}, "older revision", id="other revision"),
            pytest.param(parked(), {"removing": True}, "being removed", id="removed"),
            pytest.param(parked(), {"park_s": 0.0}, "parking is off", id="switched off"),
            pytest.param(parked(), {"nodes": [node(stay="leave")]}, "to be empty", id="drained"),
            pytest.param(parked(), {"nodes": [node(stay="rest")]}, "to be empty", id="reboot"),
        ],
    )  # fmt: skip
    def test_it_leaves_by_the_handshake(self, one, given, why):
        """A gateway that has not heard of it may still wake it: so it stops only after all have."""
        decided = plan(fleet(one, **given))
        assert (of(decided).wanted, of(decided).draining_generation) == ("draining", None)
        assert why in did(decided)
        assert not decided.actions

    def test_the_longest_parked_ends_where_the_maximum_is_lowered(self):
        """Two parked, and one could come back: the other goes."""
        decided = plan(fleet(parked("mini-1", ago=5.0), parked("mini-2", ago=50.0), most=1))
        assert [one.id for one in decided.agents if one.wanted == "parked"] == ["mini-1"]

    def test_a_parked_one_that_crashed_is_forgotten(self):
        """It held nothing: no restart, no error."""
        decided = plan(fleet(parked(), seen={"mini-1": None}, running={}))
        assert (decided.actions, decided.agents) == ((Forget("mini-1", "local"),), ())

    def test_on_a_lost_node_it_is_given_up(self):
        """It goes the way of all that leave; should the node come back, its process ends as an orphan."""
        nodes = [node(lost=True)]
        decided = plan(
            fleet(parked(), nodes=nodes, seen={"mini-1": "connecting"}, running={"local": None, "other": {}})
        )
        assert of(decided).wanted == "draining"

    def test_a_lost_node_where_gateways_see_it_keeps_it(self):
        """SSH alone is lost: a gateway can resume it, so it stays."""
        nodes = [node(lost=True)]
        decided = plan(fleet(parked(), nodes=nodes, running={"local": None, "other": {}}))
        assert of(decided).wanted == "parked"

    def test_others_need_the_memory(self):
        """One parked agent ends where another deployment finds no room, and no more than that."""
        room = 3 * agent_bytes(24_000_000)
        small = [NodeFacts("local", room, 2)]
        asks = deployment("other", least=1, desired=1)
        both = [deployment(least=0, desired=0, park_s=PARK_S), asks]
        three = [parked(f"mini-{number}", ago=10.0 + number) for number in (1, 2, 3)]
        decided = plan(fleet(*three, deployments=both, nodes=small))
        assert [one.id for one in decided.agents if one.wanted == "draining"] == ["mini-3"]
        assert "others need its memory" in did(decided)
        going = [one if one.id != "mini-3" else replace(one, draining_generation=1) for one in decided.agents]
        after = plan(fleet(*going, deployments=both, nodes=small, seen={"mini-3": "draining"}))
        assert [one.id for one in after.agents if one.wanted == "parked"] == ["mini-1", "mini-2"]
        assert after.actions == (Stop("mini-3", "local"),)


def test_memory_is_made_free_only_where_the_other_may_go():
    """A parked agent stays where another deployment's rules keep that away from its node."""
    rules = PlacementRules(require=(("disk", "ssd"),))
    asks = deployment("other", least=1, desired=1, placement=rules)
    both = [deployment(least=0, desired=0, park_s=PARK_S), asks]
    small = NodeFacts("local", agent_bytes(24_000_000), 2)
    assert of(plan(fleet(parked(), deployments=both, nodes=[small]))).wanted == "parked"
    matching = replace(small, labels={"disk": "ssd"})
    assert of(plan(fleet(parked(), deployments=both, nodes=[matching]))).wanted == "draining"


def test_park_ordered_while_a_gateway_resumes():
    """The order to park crosses a wake-up: the agent serves, is adopted, and what it refused came back."""
    leaving = agent(wanted="parked", state="draining", leaving_at=NOW - 1, draining_generation=1)
    told = plan(fleet(leaving, seen={"mini-1": "ready"}))
    assert told.actions == (Park("mini-1", "local"),)
    crossed = fleet(of(told), seen={"mini-1": woken(state="parked")}, held=["mini"], now=NOW + 0.3)
    adopted = plan(crossed)
    assert (of(adopted).wanted, [one.desired for one in adopted.deployments]) == ("warm", [1])
    assert Park("mini-1", "local") not in adopted.actions
    ready = plan(fleet(of(adopted), seen={"mini-1": "ready"}, desired=1, in_flight=1, now=NOW + 1))
    assert (of(ready).wanted, of(ready).state) == ("warm", "ready")

"""What is taken for silence, by the clock alone: no socket, no sleeping."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from agents.protocol import AgentState
from appliance.gateway.fleet import Agent
from appliance.gateway.tracker import AgentSlots, Pool
from appliance.gateway.watch import WATCH_S, Watch
from appliance.policies.balancing import DEFAULT_POLICY, find_policy
from appliance.policies.health import HEALTHY, LONGEST_S, Phase
from appliance.policies.snapshot import AgentRoute


class StubLink:
    """A connection that is up and says what the test says."""

    beats = True

    def __init__(self):
        self.heard_at = 0.0

    def forgive(self, paused_s, now):
        self.heard_at = min(now, self.heard_at + paused_s)

    def check(self, _now):
        pass

    def send(self, _frame):
        pass


class Plant:
    """Two agents, a watch over them, and a clock."""

    def __init__(self):
        self.now = 0.0
        self.agents = [Agent(slots_of(name), StubLink()) for name in ("one", "two")]
        self.pool = Pool(find_policy(DEFAULT_POLICY))
        self.pool.agents = [agent.slots for agent in self.agents]
        self.pool.refresh()
        self.fleet = SimpleNamespace(
            agents={agent.route.id: agent for agent in self.agents},
            every_agent=lambda: self.agents,
            deployments={"mini": SimpleNamespace(pool=self.pool)},
        )
        self.left = []
        self.watch = Watch(self.fleet, self.left.append, lambda _: self.pool.refresh())

    def run(self, seconds, *, heard=(), paused_s=0.0, each=lambda: None):
        """Look again and again for so long; `heard` beat all the time, each look is late by `paused_s`."""
        end = self.now + seconds
        while self.now < end:
            self.now += WATCH_S + paused_s
            for agent in heard:
                agent.link.heard_at = self.now - paused_s
            each()
            self.watch.tick(self.now, paused_s)


def slots_of(name):
    route = AgentRoute(
        id=name, deployment="mini", node="box", host="h", port=1, certificates=(), wanted="warm", slots=4,
        ahead=2,
    )  # fmt: skip
    slots = AgentSlots(route)
    slots.state = AgentState.READY
    return slots


@pytest.fixture
def plant():
    return Plant()


def test_a_late_look_is_no_word_of_a_silent_agent(plant):
    """What the gateway forgives for its own pauses does not put an agent on trial that says nothing."""
    silent, other = plant.agents
    plant.run(0.6, heard=[other])
    assert silent.slots.health.silent
    plant.run(1.0, heard=[other], paused_s=0.13)
    assert silent.slots.health.silent
    plant.run(0.2, heard=[silent, other], paused_s=0.13)
    assert silent.slots.health.phase is Phase.TRIAL


def test_a_gateway_that_is_a_little_late_each_time_finds_a_silence(plant):
    """20 ms late with each look, it ejects within half a second all the same."""
    silent, other = plant.agents
    plant.run(0.2, heard=plant.agents, paused_s=0.02)
    silent.pending[1] = None
    silent.busy_since = plant.now
    plant.run(0.45, heard=[other], paused_s=0.02)
    assert silent.slots.health.silent


def test_a_stall_of_the_gateway_is_nobodys_silence(plant):
    """After a stall of a second the agents have as long as ever to be heard."""
    silent, other = plant.agents
    plant.run(0.2, heard=plant.agents)
    silent.pending[1] = None
    silent.busy_since = plant.now
    plant.run(0.5, paused_s=1.0)
    plant.run(0.2, heard=[other])
    assert not silent.slots.health.silent
    plant.run(0.4, heard=[other])
    assert silent.slots.health.silent


def test_requests_that_give_up_early_do_not_hide_a_silence(plant):
    """An agent that is busy anew each fifth of a second, and says nothing, is ejected within 0.5 s."""
    silent, other = plant.agents
    plant.run(0.2, heard=plant.agents)
    silent.pending[1] = None

    def give_up():
        if plant.now - silent.busy_since > 0.2:
            silent.busy_since = plant.now

    plant.run(0.5, heard=[other], each=give_up)
    assert silent.slots.health.silent


def test_a_quicker_pace_is_not_asked_for_afterwards(plant):
    """Agents that beat once a second, as there were a thousand, are not silent when they are two."""
    plant.fleet.agents |= {str(number): None for number in range(998)}
    plant.run(0.2, heard=plant.agents)
    assert {agent.paced_ms for agent in plant.agents} == {1000}
    plant.run(0.7, heard=plant.agents[:1])
    plant.fleet.agents = dict.fromkeys(("one", "two"))
    plant.run(0.2, heard=plant.agents[:1])
    assert plant.agents[1].slots.health.phase is Phase.HEALTHY
    plant.run(0.4, heard=plant.agents[:1])
    assert plant.agents[1].slots.health.silent


def test_one_ejected_for_errors_that_falls_silent_keeps_no_work(plant):
    """What it has goes elsewhere as soon as from any other, and it is out until it is heard."""
    failing, other = plant.agents
    plant.run(0.2, heard=plant.agents)
    failing.slots.health = replace(HEALTHY, times=5, well_since=plant.now)
    for _ in range(5):
        plant.watch.note_error(failing, "error", plant.now)
    assert failing.slots.health.until == plant.now + LONGEST_S
    plant.run(0.2, heard=plant.agents)
    failing.pending[1] = None
    plant.run(0.5, heard=[other])
    assert failing.slots.health.silent
    assert plant.left == [failing]
    plant.run(1.0, heard=[other])
    assert failing.slots.health.silent
    plant.run(0.1, heard=plant.agents)
    assert failing.slots.health.phase is Phase.TRIAL
    assert plant.left == [failing]

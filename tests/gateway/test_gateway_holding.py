"""Whom a gateway resumes by itself, and when; by an explicit clock."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from gateway_harness import deployment
from test_gateway_parts import slots
from test_gateway_queue import load

from agents.protocol import AgentState
from appliance.gateway.calls import Deployment
from appliance.gateway.holding import Holding


@dataclass
class Stage:
    """A deployment with its agents; `resumed` are those that were told to, in order."""

    agents: list
    given: dict = field(default_factory=dict)

    def __post_init__(self):
        self.now, self.resumed, self.told = 100.0, [], []
        self.deployment = Deployment.begin(
            deployment(max_agents=3, **self.given), "first_available", self.now
        )
        self.deployment.pool.agents = self.agents
        self.deployment.pool.refresh()
        fleet = SimpleNamespace(by_slots=lambda one: SimpleNamespace(link=self._link(one)))
        self.holding = Holding("gateway-1", fleet, lambda event: self.told.append(event.reason))

    def _link(self, one):
        return SimpleNamespace(up=True, send=lambda frame: self.resumed.append(one.route.id))

    def wait(self, count=1):
        """So many requests begin to wait now."""
        for _ in range(count):
            self.deployment.queue.offer(Waiting(self.now, self.now + 60))

    def pass_s(self, seconds):
        """Let time pass, as the gateway looks five times a second."""
        for _ in range(round(seconds * 5)):
            self.now += 0.2
            if self.deployment.pool.targets:
                self.holding.note_queue(self.deployment, self.now)
            else:
                self.holding.hold(self.deployment, self.now)

    def is_now(self, agent, state):
        agent.state, agent.resume_sent_at = state, None
        self.deployment.pool.refresh()


@dataclass(eq=False)
class Waiting:
    """A call as queues and waiting times look at it."""

    accepted_at: float
    deadline_at: float
    priority: int = 1
    key: str = "k"
    work: float = 1.0


def parked(name, wanted="parked"):
    return slots(name, AgentState.PARKED, wanted=wanted)


def test_one_that_does_not_answer_is_passed_over():
    """The next is resumed within a second; the mute one has no share in what this gateway woke."""
    hung, well = parked("a"), parked("b")
    stage = Stage([hung, well])
    stage.wait()
    stage.pass_s(0.4)
    assert stage.resumed == ["a"]
    stage.pass_s(0.4)
    assert stage.resumed == ["a", "b"]
    assert (hung.resumed, well.resumed) == (False, True)


@pytest.mark.parametrize("state", [AgentState.LOADING, AgentState.READY])
def test_one_that_answers_late_was_resumed_all_the_same(state):
    """Slow machines answer after that while: what it does then is of this gateway's doing."""
    late = parked("a")
    stage = Stage([late])
    stage.wait()
    stage.pass_s(2.0)
    assert (late.mute, late.resumed) == (True, False)
    late.spoke(load(state=state), stage.now)
    assert (late.mute, late.resumed) == (False, True)


def test_one_that_loads_is_waited_for():
    """It has said that it heard: another would be one too many."""
    slow = parked("a")
    stage = Stage([slow, parked("b")])
    stage.wait()
    stage.pass_s(0.2)
    slow.state = AgentState.LOADING
    stage.pass_s(8.0)
    assert stage.resumed == ["a"]


def test_a_mute_one_counts_for_the_maximum_until_it_is_told_again():
    """It may have heard after all; so no more are woken than may be warm."""
    stage = Stage([parked("a"), parked("b"), parked("c"), slots("d", AgentState.LOADING)])
    stage.wait()
    stage.pass_s(5.0)
    assert stage.resumed == ["a", "b"]
    stage.pass_s(7.0)
    assert stage.resumed[:3] == ["a", "b", "a"]


def test_a_queue_is_told_of_and_left_to_the_loop_for_a_while():
    """While warm agents are there, what is worth another is the loop's to say."""
    stage = Stage([slots("warm"), parked("a")])
    stage.wait(10)
    stage.pass_s(3.8)
    assert (stage.resumed, stage.told) == ([], ["queued"] * 3)


def test_without_a_loop_parked_agents_come_one_by_one():
    """One after 4 s in the queue, another after as long again, never over the maximum."""
    agents = [slots("warm"), *map(parked, "abc")]
    stage = Stage(agents)
    stage.wait(10)
    stage.pass_s(4.0)
    assert stage.resumed == ["a"]
    stage.is_now(agents[1], AgentState.READY)
    stage.pass_s(3.8)
    assert stage.resumed == ["a"]
    stage.pass_s(0.4)
    assert stage.resumed == ["a", "b"]
    stage.is_now(agents[2], AgentState.READY)
    stage.pass_s(30.0)
    assert stage.resumed == ["a", "b"]


def test_where_requests_may_wait_for_long_they_do():
    """After how long that is, the route says."""
    stage = Stage([slots("warm"), parked("a")], {"resume_after_s": 20.0})
    stage.wait()
    stage.pass_s(19.8)
    assert stage.resumed == []
    stage.pass_s(0.4)
    assert stage.resumed == ["a"]


def test_a_queue_that_empties_wakes_nobody():
    """Only how long one has waited counts, not for how long there has been a queue."""
    stage = Stage([slots("warm"), parked("a")])
    for _ in range(10):
        stage.wait()
        stage.pass_s(1.0)
        for call in list(stage.deployment.queue):
            stage.deployment.queue.remove(call)
    assert stage.resumed == []

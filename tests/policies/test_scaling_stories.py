"""How many agents over time, through a whole plan with an explicit clock: what people see of scaling."""

import json
from dataclasses import replace

import pytest
from fleet_builders import NOW, agent, agent_report, deployment, deployment_report, gateway_report, snapshot

from appliance.policies.actions import Create
from appliance.policies.reconcile import plan
from appliance.policies.report import GatewayReport
from appliance.policies.scaling import ScalingPolicy, state_from_json
from appliance.policies.scaling_keys import set_key
from appliance.policies.schedules import parse_schedule

SERVICE_S = 0.5


class World:
    """A deployment of one-slot agents that serve two seconds after they are created, and its gateway."""

    def __init__(self, *, desired=1, **keys):
        policy = ScalingPolicy(min_agents=0, max_agents=20, slots=1.0, stabilization_s=14.0, idle_s=75.0,
                               park_s=0.0)  # fmt: skip
        for key, value in keys.items():
            policy = set_key(policy, key, str(value))
        self.deployment = replace(deployment(desired=desired), policy=policy)
        self.agents = [agent(f"mini-{number}") for number in range(desired)]
        self.now, self.started_at, self.number = NOW, NOW - 1000, desired
        self.counted = dict.fromkeys(("accepted", "answered", "executed", "cache_hits"), 0)
        self.concurrency_s = self.service_s = 0.0
        self.plan = None

    def report(self, *, rate=0.0, cached=0.0, queued=0, oldest_s=0.0) -> GatewayReport:
        came = int(rate)
        there = round(rate * SERVICE_S)
        self.counted["accepted"] += came + int(cached)
        self.counted["answered"] += came + int(cached)
        self.counted["executed"] += came
        self.counted["cache_hits"] += int(cached)
        self.service_s += came * SERVICE_S
        self.concurrency_s += there + queued
        counted = deployment_report(
            in_flight=there, queued=queued, oldest_wait_s=oldest_s, concurrency_s=self.concurrency_s,
            service_s=self.service_s, **self.counted,
        )  # fmt: skip
        seen = [agent_report(one.id, state="ready" if one.state == "ready" else "connecting")
                for one in self.agents]  # fmt: skip
        return gateway_report(*seen, deployments=[counted], at=self.now, started_at=self.started_at)

    def run(self, seconds, *, silent=False, lost=False, held=False, **load):
        for _ in range(seconds):
            self.now += 1
            self.agents = [
                replace(one, state="ready", ready_at=self.now) if self.now - one.created_at >= 2 else one
                for one in self.agents
            ]
            report = self.report(**load)
            self.plan = plan(
                snapshot(
                    now=self.now, agents=self.agents, deployments=(self.deployment,),
                    reports=() if lost else (report,), silent=("g2",) if silent else (),
                    held=frozenset({"mini"}) if held else frozenset(),
                )
            )  # fmt: skip
            self.follow()
        return self.deployment.desired

    def follow(self):
        """What was decided is done: created agents start, drained ones are gone, and the state is kept."""
        [decided] = self.plan.deployments
        kept = {one.id for one in self.plan.agents if one.wanted == "warm"}
        self.agents = [one for one in self.agents if one.id in kept]
        for _ in [action for action in self.plan.actions if isinstance(action, Create)]:
            self.number += 1
            name = f"mini-{self.number}"
            self.agents.append(
                agent(name, created_at=self.now, started_at=self.now, state="starting", ready_at=None)
            )
        state = state_from_json(json.loads(json.dumps(decided.scaling_state.to_json())))
        self.deployment = replace(self.deployment, desired=decided.desired, scaling_state=state)

    @property
    def reason(self):
        return self.plan.deployments[0].reason


@pytest.mark.slow
def test_load_brings_agents_and_quiet_takes_them_away():
    """Ten requests a second of half a second bring seven to nine; silence none, after the idle time."""
    world = World()
    world.run(70, rate=1)
    assert world.run(10, rate=10) >= 5
    assert world.run(90, rate=10) in (7, 8, 9)
    assert len(world.agents) == world.deployment.desired
    assert world.run(70, rate=0) >= 1
    assert world.run(20, rate=0) == 0
    assert world.plan.deployments[0].kind == "idle"
    assert world.agents == []
    assert world.run(1, queued=1, held=True) == 1
    assert "0 -> 1" in world.reason


def test_what_the_cache_answers_needs_no_agents():
    """A hundred requests a second from memory are none for agents."""
    world = World()
    assert world.run(120, rate=1, cached=100) <= 3


@pytest.mark.slow
def test_what_is_not_seen_lowers_nothing():
    """A gateway that is silent, lost reports, and one that starts again with its counters at zero."""
    world = World()
    before = world.run(100, rate=10)
    assert world.run(40, rate=10, lost=True) == before
    assert min(world.run(1, rate=10) for _ in range(30)) == before
    world.counted = dict.fromkeys(world.counted, 0)
    world.concurrency_s, world.service_s, world.started_at = 0.0, 0.0, world.now
    assert min(world.run(1, rate=10) for _ in range(30)) >= before
    assert world.run(100, rate=0, silent=True) == world.deployment.desired >= before


def test_the_first_come_together():
    """Where people want three at first, one held request brings three."""
    world = World(desired=0, activation=3)
    assert world.run(1, queued=1, held=True) == 3
    assert "activation 3" in world.reason


@pytest.mark.slow
@pytest.mark.parametrize(("hold", "max_agents", "want"), [(3, 20, 3), (0, 20, 0), (9, 6, 6)])
def test_what_is_held_stands(hold, max_agents, want):
    """Neither load nor quiet changes it; a bound that was lowered later is told."""
    world = World(max=max_agents, hold=hold)
    assert world.run(60, rate=10) == want
    assert world.run(120, rate=0) == want
    assert f"held at {hold} by order" in world.reason
    assert ("max 6" in world.reason) == (hold > max_agents)
    world.deployment = replace(world.deployment, policy=replace(world.deployment.policy, hold=None))
    assert world.run(100, rate=10) in (6, 7, 8, 9)


def test_a_queue_that_grows_brings_agents_before_the_wait_is_over():
    """Where it is not known how long requests take, too: each waits less than is acceptable yet."""
    world = World(desired=2)
    world.run(70, rate=2)
    before = world.run(20, rate=2)
    for second in range(4):
        world.run(1, rate=2, queued=1 + second, oldest_s=1.5)
    assert world.deployment.desired > before
    decided = world.plan.deployments[0]
    assert decided.inputs["want_breach"] >= before


def test_a_schedule_has_agents_ready_in_time():
    """They are there as the window begins, and go once it is over."""
    world = World(desired=0)
    world.now += 100
    opens = (NOW // 60 + 3) * 60  # NOW is on a Monday, 13:46:40 UTC
    window = parse_schedule("mon 13:49-13:50 UTC min=4")
    world.deployment = replace(
        world.deployment, policy=replace(world.deployment.policy, schedules=(window,), start_s=3.0)
    )
    world.run(int(opens - world.now) - 6)
    assert world.deployment.desired == 0
    world.run(6)
    assert sum(one.state == "ready" for one in world.agents) == 4
    assert f"min 4 by schedule {window.text}" in world.reason
    assert world.run(58) == 4
    assert world.run(20) == 0

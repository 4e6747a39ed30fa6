"""Machines on which starts take longer than they should: it comes to rest all the same."""

from dataclasses import dataclass, replace
from random import Random

import pytest
from fleet_builders import NOW, agent, agent_report, deployment_report, gateway_report, snapshot
from placement_builders import calm, node, wanted

from appliance.policies.actions import Create, Start, Stop
from appliance.policies.reconcile import plan
from appliance.policies.standing import start_limit_s


@dataclass
class Process:
    """On a node, and ready from then on."""

    node: str
    pid: int
    ready_at: float


class Boxes:
    """Boxes on which `start_s(boxes)` tells how long the next start takes; a tick is a second."""

    def __init__(self, count, want, start_s):
        self.nodes = [node(f"n{number}") for number in range(count)]
        self.deployment = replace(wanted(want), proven=True)
        self.start_s = start_s
        self.now, self.generation = NOW, 1
        self.agents, self.processes = [], {}
        self.starts = self.most = 0

    def starting(self):
        """How many processes load just now."""
        return sum(one.ready_at > self.now for one in self.processes.values())

    def start(self, name, where):
        self.starts += 1
        self.processes[name] = Process(where, 100 + self.starts, self.now + self.start_s(self))

    def look(self):
        running = {one.name: {} for one in self.nodes}
        for name, process in self.processes.items():
            running[process.node][name] = process.pid
        seen = []
        for one in self.agents:
            process = self.processes.get(one.id)
            ready = process is not None and process.ready_at <= self.now
            state = "draining" if one.wanted == "draining" else "ready" if ready else "connecting"
            seen.append(agent_report(one.id, state))
        report = gateway_report(*seen, deployments=[deployment_report()], at=self.now, number=self.generation)
        return snapshot(
            agents=self.agents, deployments=(self.deployment,), nodes=tuple(self.nodes), running=running,
            reports=[report], now=self.now, heard_since=NOW - 100,
        )  # fmt: skip

    def tick(self):
        decided = plan(self.look())
        self.generation += decided.routes_changed
        self.agents = [
            replace(one, draining_generation=self.generation)
            if one.wanted == "draining" and one.draining_generation is None
            else one
            for one in decided.agents
        ]
        for action in decided.actions:
            if isinstance(action, Create):
                name = f"new-{self.starts:03}"
                self.agents.append(
                    agent(name, node=action.node, created_at=self.now, started_at=self.now, pid=None,
                          unready_at=self.now, ready_at=None, state="starting")
                )  # fmt: skip
                self.start(name, action.node)
            elif isinstance(action, Start):
                self.start(action.agent, action.node)
            elif isinstance(action, Stop):
                self.processes.pop(action.agent, None)
        self.most = max(self.most, len(self.processes))
        (each,) = decided.deployments
        self.deployment = replace(self.deployment, desired=each.desired, scaling_state=calm(self.now + 1))
        self.now += 1.0
        return decided


def taking_turns(boxes):
    """The more start at once, the longer each takes."""
    return 4.0 + 4.0 * boxes.starting()


def by_chance(boxes):
    return Random(boxes.starts).uniform(5, 28)


@pytest.mark.parametrize(
    ("count", "want", "start_s"),
    [
        pytest.param(3, 3, lambda _: 15.0, id="fifteen seconds on every box"),
        pytest.param(1, 2, lambda _: 15.0, id="fifteen seconds on the only box"),
        pytest.param(3, 3, lambda _: 45.0, id="forty-five seconds"),
        pytest.param(4, 8, taking_turns, id="they make each other slow"),
        pytest.param(4, 6, by_chance, id="sometimes so, sometimes so"),
    ],
)
def test_slow_starts_come_to_rest(count, want, start_s):
    """All are ready within some minutes, with few more processes than wanted, and nothing is done after."""
    boxes = Boxes(count, want, start_s)
    for _ in range(220):
        boxes.tick()
    assert sum(one.state == "ready" for one in boxes.agents) == len(boxes.agents) == want
    assert (boxes.most <= want + 1, boxes.starts <= 6 * want) == (True, True)
    starts = boxes.starts
    assert not any(boxes.tick().actions for _ in range(40))
    assert boxes.starts == starts


def test_each_attempt_has_more_time():
    """10 s at first, then 20, 30 and so on, never more than a minute."""
    assert [start_limit_s(0, attempt) for attempt in (0, 1, 2, 9)] == [10.0, 20.0, 30.0, 60.0]

"""Room on nodes while a plan is made. Standard library only."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from appliance.policies.fleet import AgentFacts, DeploymentFacts, FleetSnapshot, NodeFacts
from appliance.policies.placement import (
    NodeSpace,
    Placement,
    Refusal,
    Wish,
    agent_bytes,
    place,
    threads_of_new,
)

#: Agents that one plan starts, new ones and such as were there: each costs its tick 3 to 5 ms, and a process
#: on the appliance's own node, so that a thousand at once would keep all else waiting. Of each deployment one
#: may always be started, so that none waits for the many of another.
MOST_STARTED: Final = 64
MOST_STARTED_ON_NODE: Final = 8
ALWAYS_STARTED: Final = 1
#: There is room, and the next tick takes it.
LATER: Final = Refusal("")


class Spaces:
    """What is promised on the nodes, counting what this tick adds; `refused` are models that found no room.

    Parked agents keep what they were promised: only so can they come back. `threads` are, by node and
    deployment, the engine threads of agents that serve there and are to stay.
    """

    def __init__(self, snapshot: FleetSnapshot) -> None:
        self.refused: list[tuple[int, Wish]] = []
        self.threads: dict[str, Counter[str]] = {}
        self._started: Counter[str] = Counter()
        self._starts_on: Counter[str] = Counter()
        self._nodes = {node.name: _space_of(node) for node in snapshot.nodes}
        wanted = {one.name: one.revision for one in snapshot.deployments}
        for agent in snapshot.agents:
            threads = 0 if agent.wanted == "parked" else agent.threads
            lasts = _lasts(agent) and wanted.get(agent.deployment) == agent.revision
            self.promise(agent.node, agent.model_bytes, threads)
            if agent.node in self._nodes and not lasts:
                self._nodes[agent.node].agents -= 1
            if lasts:
                self.threads.setdefault(agent.node, Counter())[agent.deployment] += agent.threads

    def place(self, deployment: DeploymentFacts, wish: Wish, *, patient: bool) -> str | Refusal:
        """Take room for one agent: the node's name, or why there is none; LATER where a tick makes no more.

        One who is `patient` rather waits for the first look at a node than takes a worse one.
        """
        if not self.may_start(deployment.name):
            return LATER
        found = self.look(deployment.model_bytes, wish, patient=patient)
        if isinstance(found, str) and not self.may_start(deployment.name, found):
            return LATER
        if isinstance(found, Refusal):
            self.refused.append((deployment.model_bytes, wish))
            return found
        self.count_start(deployment.name, found)
        threads = self.threads_of_new(found, deployment)
        self.promise(found, deployment.model_bytes, threads)
        self.threads.setdefault(found, Counter())[deployment.name] += threads
        return found

    def may_start(self, deployment: str, node: str = "") -> bool:
        """Whether this tick starts one more agent of it, made or there already; where '' on some node."""
        if self._started[deployment] < ALWAYS_STARTED:
            return True
        return self._started.total() < MOST_STARTED and self._starts_on[node] < MOST_STARTED_ON_NODE

    def count_start(self, deployment: str, node: str) -> None:
        """One is started."""
        self._started[deployment] += 1
        self._starts_on[node] += 1

    def look(self, model_bytes: int, wish: Wish, *, patient: bool) -> str | Refusal:
        """Where an agent would go, without taking the room."""
        found = place(model_bytes, self._nodes.values(), patient=patient, wish=wish)
        return found.node if isinstance(found, Placement) else found

    def node(self, name: str) -> NodeSpace | None:
        """The node with what is promised there, None where there is none of that name."""
        return self._nodes.get(name)

    def cores(self, name: str) -> int:
        """Of a node, at least one."""
        node = self._nodes.get(name)
        return max(1, node.cores) if node is not None else 1

    def threads_of_new(self, name: str, deployment: DeploymentFacts) -> int:
        """Engine threads that a new agent of it is thought to have there."""
        return threads_of_new(self.cores(name), deployment.policy.threads)

    def nodes(self) -> Iterable[NodeSpace]:
        """All of them."""
        return self._nodes.values()

    def lasting_threads(self, node: str) -> int:
        """Engine threads there of all agents that are to stay."""
        there = self.threads.get(node)
        return there.total() if there else 0

    def move(self, agent: AgentFacts, to_node: str) -> None:
        """Give an agent that is to stay its room elsewhere."""
        self.promise(agent.node, agent.model_bytes, agent.threads, agents=-1)
        self.promise(to_node, agent.model_bytes, agent.threads)
        self.threads.setdefault(agent.node, Counter())[agent.deployment] -= agent.threads
        self.threads.setdefault(to_node, Counter())[agent.deployment] += agent.threads

    def widen(self, agent: AgentFacts, threads: int) -> None:
        """Give an agent that is to stay so many engine threads more, or fewer."""
        if agent.node in self._nodes:
            self._nodes[agent.node].engine_threads += threads
        self.threads.setdefault(agent.node, Counter())[agent.deployment] += threads

    def others_threads(self, node: str, deployment: str) -> int:
        """Engine threads there of agents of other deployments that are to stay."""
        there = self.threads.get(node)
        return there.total() - there[deployment] if there else 0

    def copy(self) -> "Spaces":
        """The same room, to try in."""
        new = object.__new__(Spaces)
        new.refused = []
        new._started, new._starts_on = self._started.copy(), self._starts_on.copy()
        new.threads = {name: there.copy() for name, there in self.threads.items()}
        new._nodes = {name: replace(node) for name, node in self._nodes.items()}
        return new

    def fits(self, node: NodeSpace, model_bytes: int, wish: Wish, freed_bytes: int) -> bool:
        """Whether an agent could go there, were so much given back."""
        freed = replace(node, promised_bytes=node.promised_bytes - freed_bytes)
        return isinstance(place(model_bytes, [freed], wish=wish), Placement)

    def promise(self, name: str, model_bytes: int, threads: int, *, agents: int = 1) -> None:
        """Give room for so many alike; with `agents` negative take it back."""
        node = self._nodes.get(name)
        if node is not None:
            node.promised_bytes += agents * agent_bytes(model_bytes)
            node.engine_threads += agents * threads
            node.agents += agents


def _lasts(agent: AgentFacts) -> bool:
    """Whether it serves and nobody is to take its place."""
    return agent.wanted == "warm" and not agent.outdated and agent.moving_at is None


def _space_of(node: NodeFacts) -> NodeSpace:
    return NodeSpace(
        node.name,
        node.ram_bytes,
        node.cores,
        accepts=node.accepts and not node.lost,
        settling=node.settling,
        labels=node.labels,
        region=node.region,
        cost_per_hour=node.cost_per_hour or 0.0,
        preemptible=node.preemptible,
        can_sleep=node.can_sleep,
        power_stage=node.power_stage,
    )

"""How much a set of agents does together, in average agents. Standard library only.

An agent on a box that does twice what an average one does counts as two, on one that does half as a half.
Agents that share a box share what it does: their sum never exceeds it.
"""

from collections import Counter
from collections.abc import Iterable

from appliance.policies.fleet import AgentFacts, DeploymentFacts
from appliance.policies.placement import mean_per_core
from appliance.policies.profiles import share_of_box
from appliance.policies.spaces import Spaces
from appliance.policies.turn import Turn


class Capacity:
    """What agents of one deployment do together, as they are added and taken away. `total` is the sum."""

    def __init__(
        self, turn: Turn, agents: Iterable[AgentFacts] = (), *, spaces: Spaces | None = None
    ) -> None:
        self._deployment = turn.deployment
        self._spaces = spaces or turn.spaces
        self._unit_rps = turn.deployment.policy.capacity_rps or 1.0
        self._per_core: float | None = None
        self._count: Counter[str] = Counter()
        self._threads: Counter[str] = Counter()
        self.total = 0.0
        for agent in agents:
            self.add(agent.node, agent.threads)

    def add(self, node: str, threads: int, *, agents: int = 1) -> float:
        """One more agent there; with `agents` -1 one fewer. By how much the total grew."""
        before = self._on(node)
        self._count[node] += agents
        self._threads[node] += agents * threads
        grown = self._on(node) - before
        self.total += grown
        return grown

    def gain(self, node: str, threads: int, *, agents: int = 1) -> float:
        """By how much the total would grow; negative where one is taken away."""
        grown = self.add(node, threads, agents=agents)
        self.add(node, threads, agents=-agents)
        return grown

    def alone(self, node: str) -> float:
        """What one agent does, as it starts, that has that node for itself."""
        known = self._deployment.capacities.get(node, 0.0)
        if not known:
            if self._per_core is None:
                self._per_core = mean_per_core(
                    self._spaces.nodes(), self._deployment.capacities, self._deployment.policy.threads
                )
            known = self._per_core * self._spaces.threads_of_new(node, self._deployment)
        return known / self._unit_rps

    def leaves_free(self, node: str, threads: int) -> bool:
        """Whether so many engine threads more take nothing from others there."""
        there = self._threads[node] + self._spaces.others_threads(node, self._deployment.name)
        return there + threads <= self._spaces.cores(node)

    def _on(self, node: str) -> float:
        count = self._count[node]
        if count <= 0:
            return 0.0
        threads = self._threads[node] + self._spaces.others_threads(node, self._deployment.name)
        return count * self.alone(node) * share_of_box(self._spaces.cores(node), threads)


def counts_speeds(deployment: DeploymentFacts) -> bool:
    """Whether agents count by what they do: where the speed of an average one, and of any box, is known."""
    return bool(deployment.policy.capacity_rps) and bool(deployment.capacities)

"""Where agents are, as gateways are told: of their rows, made anew where one changed."""

import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import Self

from appliance.kept_rows import KeptRows
from appliance.models import Agent, Node
from appliance.models.agents import uses_engine_threads
from appliance.policies.profiles import share_of_box
from appliance.policies.snapshot import AgentRoute, WantedRoute

_WANTED: dict[str, WantedRoute] = {
    Agent.Wanted.WARM: "warm",
    Agent.Wanted.PARKED: "parked",
    Agent.Wanted.RESTING: "draining",
    Agent.Wanted.DRAINING: "draining",
}
_COLUMNS = (
    "deployment", "node", "host", "port", "certificates", "profile", "wanted",
    "deployment__name", "node__name",
)  # fmt: skip


@dataclass(slots=True)
class _Kept:
    """An agent's route as it follows from its row, None of one that is stopped; what it takes of its box."""

    route: AgentRoute | None
    node: int
    threads: int
    capacity_rps: float

    @classmethod
    def of(cls, agent: Agent) -> Self:
        """Its deployment and node must be loaded."""
        threads = agent.engine_threads if uses_engine_threads(agent) else 0
        if agent.wanted == Agent.Wanted.STOPPED:
            return cls(None, agent.node.pk, threads, 0.0)
        route = AgentRoute(
            id=agent.id,
            deployment=agent.deployment.name,
            node=agent.node.name,
            host=agent.host,
            port=agent.port,
            certificates=tuple(agent.certificates),
            wanted=_WANTED[agent.wanted],
            slots=agent.slots,
            ahead=agent.ahead,
            fixed_s=float(agent.profile.get("fixed_s") or 0.0),
            per_token_s=float(agent.profile.get("per_token_s") or 0.0),
        )
        return cls(route, agent.node.pk, threads, agent.capacity_rps)

    def beside(self, cores: int, threads: int) -> AgentRoute | None:
        """With so many engine threads on its box in all."""
        capacity_rps = round(self.capacity_rps * share_of_box(cores, threads), 3)
        if self.route is not None and self.route.capacity_rps != capacity_rps:
            self.route = replace(self.route, capacity_rps=capacity_rps)
        return self.route


class AgentRoutes:
    """Reads the routes of all agents but stopped ones. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._agents = KeptRows(Agent.objects.select_related("deployment", "node"), _COLUMNS, _Kept.of)
        self._cores = KeptRows(Node.objects.order_by(), ["hardware"], lambda node: (node.pk, node.cores))

    def read(self) -> tuple[AgentRoute, ...]:
        """As the rows are now."""
        with self._lock:
            agents, cores = self._agents.read(), dict(self._cores.read())
            threads: Counter[int] = Counter()
            for one in agents:
                threads[one.node] += one.threads
            routes = [one.beside(cores[one.node], threads[one.node]) for one in agents]
        return tuple(route for route in routes if route is not None)


agent_routes = AgentRoutes()

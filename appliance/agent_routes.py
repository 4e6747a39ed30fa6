"""Where agents are, as gateways are told: of their rows, made anew where one changed."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
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
    """An agent's route as it follows from its row, None of one that is stopped; what it takes of its box.

    Of a damaged row there is no more in it than where the agent is and what is wanted of it.
    """

    route: AgentRoute | None
    node: int
    threads: int
    capacity_rps: float
    damaged: bool = False

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
        return cls(route, agent.node.pk, threads, agent.capacity_rps, bool(agent.damage))

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
        # Of deployments and nodes no more than is needed: of 2,000 agents that is 4 of 5 parts of the work.
        agents = Agent.objects.select_related("deployment", "node").only(*_COLUMNS)
        self._agents = KeptRows(agents, _COLUMNS, _Kept.of)
        self._cores = KeptRows(Node.objects.order_by(), ["hardware"], lambda node: (node.pk, node.cores))

    def read(self, before: Callable[[], Mapping[str, AgentRoute]] = dict) -> tuple[AgentRoute, ...]:
        """As the rows are now; agents with a damaged one as they were `before`, by id, where they were."""
        with self._lock:
            agents, cores = self._agents.read(), dict(self._cores.read())
            threads: Counter[int] = Counter()
            for one in agents:
                threads[one.node] += one.threads
            routes = [one.beside(cores[one.node], threads[one.node]) for one in agents]
            damaged = {one.route.id for one in agents if one.damaged and one.route is not None}
        found = tuple(route for route in routes if route is not None)
        if not damaged:
            return found
        known = before()
        return tuple(
            replace(known[one.id], wanted=one.wanted) if one.id in damaged & known.keys() else one
            for one in found
        )


agent_routes = AgentRoutes()

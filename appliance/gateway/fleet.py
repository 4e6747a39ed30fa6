"""The deployments and agents of the present routing table, and those that are on their way out."""

from collections.abc import Callable, Iterator

from appliance.gateway.calls import Call, Deployment
from appliance.gateway.link import Link
from appliance.gateway.routes import RoutingTable, usable_policy
from appliance.gateway.slots import AgentSlots
from appliance.gateway.stats import DeploymentStats, GatewayStats
from appliance.policies.silence import Silence
from appliance.policies.snapshot import AgentRoute

_LAST_STREAM = 0xFFFF_FFFF

OpenLink = Callable[[AgentRoute], Link]


class Agent:
    """One agent: its slots, its link, and the calls under way on it by their stream number.

    It has had work since `busy_since`, was told to beat each `paced_ms` (0: not told) at `paced_at`, and when
    it was taken for silent it had been heard last at `silent_since`.
    """

    __slots__ = (
        "_stream", "busy_since", "link", "paced_at", "paced_ms", "pending", "retiring", "silence",
        "silent_since", "slots",
    )  # fmt: skip

    def __init__(self, slots: AgentSlots, link: Link) -> None:
        self.slots = slots
        self.link = link
        self.pending: dict[int, Call] = {}
        self.retiring = False
        self.silence = Silence()
        self.busy_since = self.silent_since = self.paced_at = 0.0
        self.paced_ms = 0
        self._stream = 0

    @property
    def route(self) -> AgentRoute:
        """What the snapshot says of it."""
        return self.slots.route

    def next_stream(self) -> int:
        """A stream number that no call under way has."""
        stream = self._stream % _LAST_STREAM + 1
        while stream in self.pending:
            stream = stream % _LAST_STREAM + 1
        self._stream = stream
        return stream


class Fleet:
    """Who is there. `connect` must be set before the first table is applied."""

    def __init__(self, stats: GatewayStats) -> None:
        self.connect: OpenLink | None = None
        self.deployments: dict[str, Deployment] = {}
        self.agents: dict[str, Agent] = {}
        self._stats = stats
        self._by_link: dict[Link, Agent] = {}
        self._by_slots: dict[AgentSlots, Agent] = {}
        self._leaving: list[Deployment] = []

    def apply(self, table: RoutingTable, now: float) -> list[Deployment]:
        """Take a new table over; returns the deployments that are gone, whose queues must be emptied.

        Links to agents that stay are kept; those to agents that go are closed once idle.
        """
        self._apply_agents(table)
        gone = self._apply_deployments(table, now)
        for deployment in self.deployments.values():
            name = deployment.route.name
            deployment.pool.agents = [a.slots for a in self.agents.values() if a.route.deployment == name]
            deployment.pool.refresh()
        return gone

    def by_link(self, link: Link) -> Agent | None:
        """Whose link it is, None where that agent is gone."""
        return self._by_link.get(link)

    def by_slots(self, slots: AgentSlots) -> Agent:
        """Whose slots they are."""
        return self._by_slots[slots]

    def every_agent(self) -> list[Agent]:
        """All agents with a link, also those that only finish what they have."""
        return list(self._by_link.values())

    def close_if_idle(self, agent: Agent) -> None:
        """End the link of an agent that has left the snapshot and has no more work."""
        if agent.retiring and not agent.pending and agent.link in self._by_link:
            del self._by_link[agent.link], self._by_slots[agent.slots]
            agent.link.close()

    def calls_in_flight(self) -> list[Call]:
        """All calls that an agent has."""
        return [call for agent in self._by_link.values() for call in agent.pending.values()]

    def calls_queued(self) -> list[Call]:
        """All calls that wait."""
        return [call for deployment in self.deployments.values() for call in deployment.queue]

    def calls_shared(self) -> list[Call]:
        """All calls that follow another, and those that they follow."""
        deployments = [*self.deployments.values(), *self._leaving]
        flights = [flight for deployment in deployments for flight in deployment.flights.values()]
        followers = [call for flight in flights for call in flight.followers]
        return followers + [flight.leader for flight in flights]

    def active(self) -> int:
        """How many requests are in flight or queued."""
        return sum(stats.active for stats in self._present())

    def total(self) -> DeploymentStats:
        """The sum of all counters since the start, also of deployments that are gone."""
        for deployment in [d for d in self._leaving if d.stats.active == 0]:
            self._leaving.remove(deployment)
            self._stats.gone.add(deployment.stats)
        return self._stats.total(self._present())

    def close(self) -> None:
        """End all links at once."""
        links = list(self._by_link)
        self._by_link.clear()  # so that nobody takes them for lost
        for link in links:
            link.close()

    def _present(self) -> Iterator[DeploymentStats]:
        yield from (deployment.stats for deployment in self.deployments.values())
        yield from (deployment.stats for deployment in self._leaving)

    def _apply_deployments(self, table: RoutingTable, now: float) -> list[Deployment]:
        for name, route in table.deployments.items():
            policy = usable_policy(route)
            if name in self.deployments:
                self.deployments[name].take_route(route, policy)
            else:
                self.deployments[name] = Deployment.begin(route, policy, now)
        gone = [self.deployments.pop(name) for name in self.deployments.keys() - table.deployments.keys()]
        for deployment in gone:
            deployment.gone = True
            deployment.cache.resize(0)
        self._leaving.extend(gone)
        return gone

    def _apply_agents(self, table: RoutingTable) -> None:
        for agent in list(self.agents.values()):
            route = table.agents.get(agent.route.id)
            if route is None or _moved(agent.route, route):
                del self.agents[agent.route.id]
                agent.retiring = True
                self.close_if_idle(agent)
            else:
                self._update(agent, route)
        for agent_id in table.agents.keys() - self.agents.keys():
            self._add(table.agents[agent_id])

    def _update(self, agent: Agent, route: AgentRoute) -> None:
        if route != agent.route:
            agent.slots.take_route(route)
            agent.link.route = route
            if not agent.link.up:
                agent.link.hurry()

    def _add(self, route: AgentRoute) -> None:
        assert self.connect is not None
        agent = Agent(AgentSlots(route), self.connect(route))
        self.agents[route.id] = agent
        self._by_link[agent.link] = agent
        self._by_slots[agent.slots] = agent
        agent.link.start()


def _moved(old: AgentRoute, new: AgentRoute) -> bool:
    return (old.host, old.port, old.deployment) != (new.host, new.port, new.deployment)

"""One deployment's part of a plan, in the making. Standard library only."""

from collections.abc import Callable

from appliance.policies.actions import Action
from appliance.policies.fleet import AgentFacts, DeploymentFacts, FleetSnapshot, Stay

#: Beyond the longest request: by then whatever was under way has been answered or given up.
LEAVING_MARGIN_S = 5.0


class Turn:
    """The deployment's agents as they are after what was decided so far, and what is to be done.

    `did` says in words what is done, `problem` what keeps the deployment from being as wanted.
    """

    def __init__(
        self, snapshot: FleetSnapshot, deployment: DeploymentFacts, agents: list[AgentFacts]
    ) -> None:
        self.snapshot = snapshot
        self.deployment = deployment
        self.agents = agents
        self.actions: list[Action] = []
        self.did: list[str] = []
        self.problem = ""

    def warm(self) -> list[AgentFacts]:
        """Those that are to serve."""
        return self.those(lambda agent: agent.wanted == "warm")

    def settled(self) -> list[AgentFacts]:
        """Warm agents as they are wanted now, on nodes that are there to stay."""
        return [
            agent
            for agent in self.warm()
            if not self.is_old(agent) and self.stay(agent) == "stay" and not self.snapshot.is_lost(agent)
        ]

    def is_old(self, agent: AgentFacts) -> bool:
        """Whether another is to take its place: of the wanted revision, or with a better profile."""
        return agent.revision != self.deployment.revision or agent.outdated

    def stay(self, agent: AgentFacts) -> Stay:
        """What becomes of it by its node."""
        node = self.snapshot.node(agent.node)
        return node.stay if node is not None else "stay"

    def rests(self, agent: AgentFacts) -> bool:
        """Whether it comes back to its node: not one of an older revision, or of what is removed."""
        wanted = agent.revision == self.deployment.revision and not self.deployment.removing
        return wanted and self.stay(agent) == "rest"

    def leaving_since(self, agent: AgentFacts) -> float:
        """Since when its node is to be empty."""
        node = self.snapshot.node(agent.node)
        return self.snapshot.now if node is None else node.leaving_since or self.snapshot.now

    def waited_s(self, agent: AgentFacts) -> float:
        """How long ago it was told to leave."""
        return self.snapshot.now - (agent.leaving_at or self.snapshot.now)

    def longest_s(self) -> float:
        """By then whatever was under way when it was told has been answered or given up."""
        return self.deployment.deadline_s + LEAVING_MARGIN_S

    def those(self, chosen: Callable[[AgentFacts], bool]) -> list[AgentFacts]:
        """The chosen ones."""
        return [agent for agent in self.agents if chosen(agent)]

    def in_flight(self, agent: AgentFacts) -> int:
        """Requests that gateways see it have."""
        link = self.snapshot.link(agent)
        return link.in_flight if link is not None else 0

    def put(self, agent: AgentFacts) -> None:
        """Take it in as it is from now on."""
        self.agents = [agent if one.id == agent.id else one for one in self.agents]

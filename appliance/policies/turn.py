"""One deployment's part of a plan, in the making. Standard library only."""

from collections.abc import Callable

from appliance.policies.actions import Action, Asked
from appliance.policies.fleet import AgentFacts, DeploymentFacts, FleetSnapshot, Stay
from appliance.policies.spaces import Spaces
from appliance.policies.standing import has_failed

#: Beyond the longest request: by then whatever was under way has been answered or given up.
LEAVING_MARGIN_S = 5.0


class Turn:
    """The deployment's agents as they are after what was decided so far, and what is to be done.

    `did` says in words what is done, `problem` what keeps the deployment from being as wanted; `asked` is
    what was decided on, `would` in a dry run the number that it would be; `least` and `most` bound the number
    of agents now, `asked_agents` is what the load asks in average ones.
    """

    def __init__(
        self,
        snapshot: FleetSnapshot,
        deployment: DeploymentFacts,
        agents: list[AgentFacts],
        spaces: Spaces | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.deployment = deployment
        self.agents = agents
        self.actions: list[Action] = []
        self.did: list[str] = []
        self.problem = ""
        self.asked: Asked | None = None
        self.would: int | None = None
        self.spaces = Spaces(snapshot) if spaces is None else spaces
        self.asked_agents: int | None = None
        self.least, self.most = deployment.policy.min_agents, deployment.policy.max_agents
        self._seen: tuple[list[AgentFacts], int] = ([], -1)
        self._kept_here: list[AgentFacts] = []

    def warm(self) -> list[AgentFacts]:
        """Those that are to serve."""
        return self.those(lambda agent: agent.wanted == "warm")

    def settled(self) -> list[AgentFacts]:
        """Warm agents as they are wanted now, on nodes that are there to stay; without those made up for."""
        here = self._here()
        made_up_for = {agent.id for agent in self._made_up_for(here)}
        return [agent for agent in here if agent.id not in made_up_for]

    def made_up_for(self) -> list[AgentFacts]:
        """Failed agents that others stand in for, on other nodes. They are started again all the same."""
        return self._made_up_for(self._here())

    def is_old(self, agent: AgentFacts) -> bool:
        """Whether another is to take its place: of the wanted revision, with a better profile, elsewhere."""
        outdated = agent.revision != self.deployment.revision or agent.outdated
        return outdated or agent.moving_at is not None or bool(self.misplaced(agent))

    def misplaced(self, agent: AgentFacts) -> str:
        """Why it may not be where it is, '' where it may."""
        if not self.deployment.placement.limits:
            return ""
        node = self.snapshot.node(agent.node)
        if node is None or not node.readable:
            return ""
        return self.deployment.placement.why_not(node.labels)

    def _here(self) -> list[AgentFacts]:
        """Asked some ten times a tick: found anew only where `agents` is another list, or one has left it."""
        agents, count = self._seen
        if agents is not self.agents or count != len(self.agents):
            self._seen = (self.agents, len(self.agents))
            self._kept_here = [
                agent
                for agent in self.warm()
                if not self.is_old(agent) and self.stay(agent) == "stay" and not self.snapshot.is_lost(agent)
            ]
        return self._kept_here

    def _made_up_for(self, here: list[AgentFacts]) -> list[AgentFacts]:
        """As many as there are ready ones, at least one: what fails everywhere is not tried everywhere."""
        failed = [agent for agent in here if has_failed(agent)]
        if not failed or len(self.snapshot.nodes) < 2 or not self.deployment.proven:
            return []
        if any(agent.revision != self.deployment.revision for agent in self.warm()):
            return []  # the others serve until the new ones have proved themselves
        ready = sum(agent.state == "ready" for agent in here)
        return failed[: max(1, ready)]

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

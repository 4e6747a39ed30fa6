"""Who has how much: each agent's slots, and the one step that picks an agent and takes a slot.

Work waits in the gateway, not at an agent: an agent is given what it executes plus one batch
ahead, never more. Pure: no socket, no clock.
"""

from agents.protocol import AgentState, LoadReport, Refusal
from appliance.policies.balancing import Nothing, Policy
from appliance.policies.report import LinkState
from appliance.policies.snapshot import AgentRoute


class AgentSlots:
    """One agent as this gateway sees it. Totals only grow while the gateway lives.

    `state` is what the agent itself said last, None without a link that spoke. `limit` is how
    many requests it may hold, 0 while it refuses.
    """

    __slots__ = (
        "answered",
        "failed",
        "heard_at",
        "in_flight",
        "limit",
        "load",
        "refused",
        "resume_sent_at",
        "resumed",
        "route",
        "sent",
        "served_by",
        "slots",
        "state",
    )

    def __init__(self, route: AgentRoute) -> None:
        self.sent = self.answered = self.failed = self.refused = self.in_flight = 0
        self.state: AgentState | None = None
        self.load: LoadReport | None = None
        self.heard_at = 0.0
        self.resumed = False
        self.resume_sent_at: float | None = None
        self.take_route(route)

    def take_route(self, route: AgentRoute) -> None:
        """What the snapshot says of it from now on."""
        self.route = route
        self.slots = route.slots
        self.limit = route.slots + route.ahead
        served_by = f"{route.node}/{route.id}"
        self.served_by = "".join(c if " " < c <= "~" else "_" for c in served_by).encode()
        if route.wanted == "warm":
            self.resumed = False  # the control plane knows of it now

    def spoke(self, load: LoadReport, now: float) -> None:
        """It told its load: whatever it refused before is forgotten."""
        if self.state is not load.state and load.state in (AgentState.READY, AgentState.PARKED):
            self.resume_sent_at = None  # the resume has worked, or has come to nothing
            if load.state is AgentState.PARKED:
                self.resumed = False
        self.load, self.state, self.heard_at = load, load.state, now
        self.reopen()

    def refuse(self, reason: Refusal) -> None:
        """It did not take a request: nothing more for it until it speaks, answers, or time passes."""
        self.refused += 1
        if reason is Refusal.FULL:
            self.limit = 0
        elif reason is Refusal.PARKED:
            self.state, self.resumed = AgentState.PARKED, False
        elif reason is Refusal.DRAINING:
            self.state = AgentState.DRAINING
        else:
            self.state = AgentState.LOADING

    def reopen(self) -> None:
        """It may take work again."""
        self.limit = self.route.slots + self.route.ahead

    def probe(self) -> None:
        """Time has passed since it refused: one more request may show whether it takes work again."""
        if self.limit == 0:
            self.limit = min(self.in_flight + 1, self.route.slots + self.route.ahead)

    def lost(self) -> None:
        """Its link broke: nothing is known of it."""
        self.state, self.load, self.resume_sent_at, self.resumed = None, None, None, False
        self.reopen()

    @property
    def link_state(self) -> LinkState:
        """The state in the words of the report."""
        if self.state is None:
            return "connecting"
        if self.route.wanted == "draining":
            return "draining"
        return _LINK_STATES[self.state]


_LINK_STATES: dict[AgentState, LinkState] = {
    AgentState.LOADING: "loading",
    AgentState.READY: "ready",
    AgentState.PARKED: "parked",
    AgentState.DRAINING: "draining",
}


class Reservation:
    """A slot that is taken. `release` gives it back, once however often it is called."""

    __slots__ = ("_held", "agent")

    def __init__(self, agent: AgentSlots) -> None:
        self.agent = agent
        self._held = True
        agent.in_flight += 1

    def release(self) -> None:
        """Give the slot back."""
        if self._held:
            self._held = False
            self.agent.in_flight -= 1


class Pool:
    """The agents of one deployment."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.agents: list[AgentSlots] = []
        self.targets: list[AgentSlots] = []
        self._turn = 0

    def refresh(self) -> None:
        """Find anew who may take work; to be called after each change of a state or a route.

        An agent that is wanted parked but is ready takes work only where this gateway woke it,
        or where no other can.
        """
        ready = [
            agent
            for agent in self.agents
            if agent.state is AgentState.READY and agent.route.wanted != "draining"
        ]
        warm = [agent for agent in ready if agent.route.wanted == "warm" or agent.resumed]
        self.targets = warm or ready

    def reserve(self, avoid: frozenset[AgentSlots] | None = None) -> Reservation | Nothing:
        """Pick an agent and take one of its slots, in one step; or say why there is none.

        `avoid` names agents that must not get it; where only they are left, NO_AGENT is said.
        """
        targets = self.targets
        if avoid:
            targets = [agent for agent in targets if agent not in avoid]
        index = self.policy(targets, self._turn)
        if isinstance(index, Nothing):
            return index
        self._turn = index + 1
        return Reservation(targets[index])

    def find_resumable(self, max_warm: int) -> AgentSlots | None:
        """A parked agent that may be woken without more than `max_warm` being warm, or None.

        None also while one that was woken has not said yet what became of it.
        """
        if any(agent.resume_sent_at is not None for agent in self.agents):
            return None
        parked = [
            agent
            for agent in self.agents
            if agent.state is AgentState.PARKED and agent.route.wanted != "draining"
        ]
        for agent in sorted(parked, key=lambda agent: agent.route.wanted != "warm"):
            others = sum(1 for other in self.agents if other is not agent and _counts_warm(other))
            if others < max_warm:
                return agent
        return None


def _counts_warm(agent: AgentSlots) -> bool:
    """Whether an agent is warm, or is about to be as soon as it is back."""
    if agent.route.wanted == "draining":
        return False
    return agent.route.wanted == "warm" or agent.state in (AgentState.READY, AgentState.LOADING)

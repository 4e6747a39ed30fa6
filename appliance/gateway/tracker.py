"""The agents of a deployment, and the one step that picks one and takes a slot.

Work waits in the gateway, not at an agent: an agent is given what it executes plus one batch
ahead, never more. Pure: no socket, no clock. Times are seconds of the caller's clock.
"""

from typing import Final

from agents.protocol import AgentState
from appliance.gateway.sessions import Sessions
from appliance.gateway.slots import AgentSlots, Reservation
from appliance.policies.balancing import Nothing, Policy, Wait
from appliance.policies.health import choose_usable

#: Of more targets than this a policy that compares sees a sample: so many with room, and so many of
#: the faster half, full or not.
SAMPLE_OVER: Final = 32
SAMPLE_OPEN: Final = 16
SAMPLE_FAST: Final = 12
#: So many choices apart they are ranked by speed, for a sample with fast and slow ones alike.
RANK_EVERY: Final = 1024
TYPICAL_WEIGHT: Final = 0.01


class Pool:
    """The agents of one deployment.

    `open` lists at least the targets with room; `held` requests have a slot that was taken here;
    `typical_s` is the mean time of the last answers.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.agents: list[AgentSlots] = []
        self.targets: list[AgentSlots] = []
        self.open: list[AgentSlots] = []
        self.held = 0
        self.sessions = Sessions()
        self.typical_s = 0.0
        self._answers = self._choices = 0
        self._ranked: list[AgentSlots] = []
        self._turn = 0
        self._draw = 1

    def refresh(self) -> None:
        """Find anew who may take work; to be called after each change of a state or a route.

        An agent that is wanted parked but is ready takes work only where this gateway woke it,
        or where no other can. An ejected one does where too many are.
        """
        ready = [
            agent
            for agent in self.agents
            if agent.state is AgentState.READY and agent.route.wanted != "draining"
        ]
        warm = [agent for agent in ready if agent.route.wanted == "warm" or agent.resumed]
        targets = _usable(warm) or _usable(ready)
        self.sessions.resize()
        if targets == self.targets:
            return
        self.sessions.forget()
        for agent in self.targets:
            agent.pool, agent.listed = None, False
        self.targets = targets
        self.open = list(targets)
        self._ranked = []
        for agent in self.targets:
            agent.pool, agent.listed = self, True
            agent.introduce(self.typical_s)

    def note_typical(self, took_s: float) -> None:
        """An agent has answered in so long. The first to do so tells what the others are thought to take."""
        self._answers += 1
        if self._answers == 1:
            self.typical_s = took_s
            for agent in self.targets:
                agent.introduce(took_s)
        else:
            weight = max(TYPICAL_WEIGHT, 1 / self._answers)
            self.typical_s += weight * (min(took_s, 10 * self.typical_s) - self.typical_s)

    def reserve(
        self,
        avoid: frozenset[AgentSlots] | None = None,
        now: float = 0.0,
        work: float = 1.0,
        behind: int = 0,
        session: bytes | None = None,
    ) -> Reservation | Wait | Nothing:
        """Pick an agent and take one of its slots, in one step; or say why there is none, or to wait.

        `avoid` names agents that must not get it; where only they are left, NO_AGENT is said.
        `behind` others wait after it. One of a `session` goes to its agent while that has room.
        """
        targets = self.targets
        if session is not None:
            own = self.sessions.find(session, targets, self.held, avoid)
            if own is not None:
                return Reservation(targets[own], now, work)
        if self.policy.compares and len(targets) > SAMPLE_OVER:
            behind = behind * 2 * SAMPLE_FAST // len(targets)
            targets = self._sample()
        if avoid:
            targets = [agent for agent in targets if agent not in avoid]
        choice = self.policy.pick(targets, self._turn, now, work, behind)
        if not isinstance(choice, int):
            return choice
        self._turn = choice + 1
        return Reservation(targets[choice], now, work)

    def _sample(self) -> list[AgentSlots]:
        """Some targets with room, and some fast ones. What has no room any more leaves `open`."""
        self._draw = draw = (self._draw * 1103515245 + 12345) & 0x7FFF_FFFF
        open_, targets = self.open, self.targets
        sample: list[AgentSlots] = []
        while open_ and len(sample) < SAMPLE_OPEN:
            draw = (draw * 1103515245 + 12345) & 0x7FFF_FFFF
            place = (draw >> 8) % len(open_)
            agent = open_[place]
            if agent.in_flight < agent.limit:
                sample.append(agent)
            else:
                agent.listed = False
                open_[place] = open_[-1]
                open_.pop()
        self._choices += 1
        if len(self._ranked) != len(targets) or self._choices % RANK_EVERY == 0:
            self._ranked = sorted(targets, key=_by_speed)
        ranked, half = self._ranked, (len(targets) + 1) // 2
        first = draw >> 8
        return sample + [ranked[(first + step * half // SAMPLE_FAST) % half] for step in range(SAMPLE_FAST)]

    def find_resumable(self, max_warm: int) -> AgentSlots | None:
        """A parked agent that may be woken without more than `max_warm` being warm, or None.

        None also while one that was woken has not said yet what became of it, unless it is mute. All
        gateways, and the control loop, choose the same.
        """
        if any(agent.resume_sent_at is not None and not agent.mute for agent in self.agents):
            return None
        parked = [
            agent
            for agent in self.agents
            if agent.state is AgentState.PARKED and not agent.mute and agent.route.wanted != "draining"
        ]
        for agent in sorted(parked, key=lambda agent: (agent.route.wanted != "warm", agent.route.id)):
            others = sum(1 for other in self.agents if other is not agent and _counts_warm(other))
            if others < max_warm:
                return agent
        return None


def _usable(agents: list[AgentSlots]) -> list[AgentSlots]:
    usable = choose_usable([agent.health for agent in agents])
    return [agent for agent, is_usable in zip(agents, usable, strict=True) if is_usable]


def _by_speed(agent: AgentSlots) -> float:
    return agent.fixed_s + agent.per_work_s


def _counts_warm(agent: AgentSlots) -> bool:
    """Whether an agent is warm, or is about to be as soon as it is back."""
    if agent.route.wanted == "draining":
        return False
    loads = agent.mute or agent.state in (AgentState.READY, AgentState.LOADING)
    return agent.route.wanted == "warm" or loads

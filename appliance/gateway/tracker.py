"""Who has how much: each agent's slots, and the one step that picks an agent and takes a slot.

Work waits in the gateway, not at an agent: an agent is given what it executes plus one batch
ahead, never more. Pure: no socket, no clock. Times are seconds of the caller's clock.
"""

from typing import Final

from agents.protocol import AgentState, LoadReport, Refusal
from appliance.policies.balancing import Nothing, Policy, Wait
from appliance.policies.report import LinkState
from appliance.policies.service_time import ServiceTime
from appliance.policies.snapshot import AgentRoute

#: Of more targets than this a policy that compares sees a sample: so many with room, and so many of
#: the faster half, full or not.
SAMPLE_OVER: Final = 32
SAMPLE_OPEN: Final = 16
SAMPLE_FAST: Final = 12
#: So many choices apart they are ranked by speed, for a sample with fast and slow ones alike.
RANK_EVERY: Final = 1024
#: An agent without an answer for so long may be as fast again as this many times its peers' mean.
QUIET_S: Final = 2.0
RECOVERED: Final = 4.0
TYPICAL_WEIGHT: Final = 0.01


class AgentSlots:
    """One agent as this gateway sees it. Totals only grow while the gateway lives.

    `state` is what the agent itself said last, None without a link that spoke. `limit` is how
    many requests it may hold, 0 while it refuses; after a cold start it begins at 1 (`warmth`),
    grows by one with each answer, and doubles with each report. For `busy_until`, `fixed_s`, `per_work_s` and
    `doubt_until` see `Target`; other processes on its node make it slower by `crowding`.
    """

    __slots__ = (
        "answered",
        "busy_until",
        "crowding",
        "doubt_until",
        "failed",
        "fixed_s",
        "heard_at",
        "in_flight",
        "limit",
        "listed",
        "load",
        "measured_at",
        "per_work_s",
        "pool",
        "refused",
        "resume_sent_at",
        "resumed",
        "route",
        "sent",
        "served_by",
        "service",
        "slots",
        "state",
        "warmth",
    )

    def __init__(self, route: AgentRoute) -> None:
        self.sent = self.answered = self.failed = self.refused = self.in_flight = 0
        self.state: AgentState | None = None
        self.load: LoadReport | None = None
        self.heard_at = self.measured_at = 0.0
        self.resumed = False
        self.resume_sent_at: float | None = None
        self.pool: Pool | None = None
        self.listed = False
        self.service = ServiceTime()
        self.crowding = 1.0
        self.busy_until = 0.0
        self.warmth: int | None = None
        self.take_route(route)
        self._show_speed()

    def take_route(self, route: AgentRoute) -> None:
        """What the snapshot says of it from now on."""
        self.route = route
        self.slots = route.slots
        self.limit = self._most()
        served_by = f"{route.node}/{route.id}"
        self.served_by = "".join(c if " " < c <= "~" else "_" for c in served_by).encode()
        if route.wanted == "warm":
            self.resumed = False  # the control plane knows of it now
        self.offer()

    def spoke(self, load: LoadReport, now: float) -> bool:
        """It told its load: whatever it refused before is forgotten. True where its state is another."""
        changed = self.state is not load.state
        if changed and load.state in (AgentState.READY, AgentState.PARKED):
            self.resume_sent_at = None  # the resume has worked, or has come to nothing
            if load.state is AgentState.PARKED:
                self.resumed = False
        if load.state is not AgentState.READY or (self.state is None and load.answered_total == 0):
            self.warmth = 1
        elif self.warmth is not None and not changed:
            self._warm_up(self.warmth)  # answers may take long: it is warm in a few seconds all the same
        self.load, self.state, self.heard_at = load, load.state, now
        self.crowding = 1 + min(max(load.node_cpu_percent - load.cpu_percent, 0.0), 100.0) / 100
        if self.pool is not None and self.pool.typical_s:
            self.service.assume(self.pool.typical_s)
            if not self.in_flight and now - self.measured_at > QUIET_S:
                self.service.forget(RECOVERED * self.pool.typical_s)
        self._show_speed()
        self.reopen()
        return changed

    def measure(self, took_s: float, work: float, now: float) -> None:
        """It has answered a request of `work`; `took_s` leaves out what was before it."""
        self.measured_at = now
        alone_s = took_s / self.crowding
        self.service.answered(alone_s, work, now)
        if self.pool is not None:
            self.pool.note_typical(alone_s)
        if self.warmth is not None:
            self._warm_up(1)
        self._show_speed()

    def introduce(self, typical_s: float) -> None:
        """It is among agents that take `typical_s`: all that is known of it before its first answer."""
        if typical_s and not self.service.answers:
            self.service.assume(typical_s)
            self._show_speed()

    def distrust(self, now: float) -> None:
        """It has answered with an error."""
        self.service.failed(now)
        self._show_speed()

    def _show_speed(self) -> None:
        """Put what is known of its speed where policies read it."""
        service = self.service
        self.fixed_s = service.fixed_s * self.crowding
        self.per_work_s = service.per_work_s * self.crowding
        self.doubt_until = service.doubt_until

    def _warm_up(self, more: int) -> None:
        warmth = (self.warmth or 0) + more
        self.warmth = warmth if warmth < self.route.slots + self.route.ahead else None

    def _most(self) -> int:
        most = self.route.slots + self.route.ahead
        return most if self.warmth is None else min(most, self.warmth)

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
        self.limit = self._most()
        self.offer()

    def offer(self) -> None:
        """It may have room: the pool looks at it again."""
        if not self.listed and self.pool is not None:
            self.listed = True
            self.pool.open.append(self)

    def probe(self) -> None:
        """Time has passed since it refused: one more request may show whether it takes work again."""
        if self.limit == 0:
            self.limit = min(self.in_flight + 1, self._most())
            self.offer()

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

    __slots__ = ("_ahead", "_before_s", "_held", "_own_s", "_sent_at", "_work", "agent")

    def __init__(self, agent: AgentSlots, now: float = 0.0, work: float = 1.0) -> None:
        self.agent = agent
        self._held = True
        self._sent_at, self._work, self._ahead = now, work, agent.in_flight
        # Its slots share what comes: one request more keeps the agent busy for a slot's share longer.
        slots = agent.slots
        service_s = agent.fixed_s + agent.per_work_s * work
        self._own_s = service_s / slots
        busy_until = agent.busy_until if agent.in_flight and agent.busy_until > now else now
        self._before_s = max(0.0, busy_until - now - self._own_s * (slots - 1))
        agent.busy_until = busy_until + self._own_s
        agent.in_flight += 1

    def answered(self, now: float) -> None:
        """The agent has answered: learn how fast it is. To be called before `release`."""
        agent, took_s = self.agent, now - self._sent_at
        least_s = took_s * agent.slots / (agent.slots + self._ahead)
        agent.measure(max(took_s - self._before_s, least_s), self._work, now)
        left_s = (agent.in_flight - 1) * (agent.fixed_s + agent.per_work_s * self._work) / agent.slots
        if agent.slots == 1 or now + left_s < agent.busy_until:
            agent.busy_until = now + left_s
        self._own_s = 0.0

    def failed(self, now: float) -> None:
        """The agent has answered with an error. To be called before `release`."""
        self.agent.distrust(now)

    def release(self) -> None:
        """Give the slot back."""
        if self._held:
            self._held = False
            agent = self.agent
            agent.in_flight -= 1
            agent.busy_until -= self._own_s
            agent.offer()


class Pool:
    """The agents of one deployment.

    `open` lists at least the targets with room; `typical_s` is the mean time of the last answers.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.agents: list[AgentSlots] = []
        self.targets: list[AgentSlots] = []
        self.open: list[AgentSlots] = []
        self.typical_s = 0.0
        self._answers = self._choices = 0
        self._ranked: list[AgentSlots] = []
        self._turn = 0
        self._draw = 1

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
        targets = warm or ready
        if targets == self.targets:
            return
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
    ) -> Reservation | Wait | Nothing:
        """Pick an agent and take one of its slots, in one step; or say why there is none, or to wait.

        `avoid` names agents that must not get it; where only they are left, NO_AGENT is said.
        `behind` others wait after it.
        """
        targets = self.targets
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


def _by_speed(agent: AgentSlots) -> float:
    return agent.fixed_s + agent.per_work_s


def _counts_warm(agent: AgentSlots) -> bool:
    """Whether an agent is warm, or is about to be as soon as it is back."""
    if agent.route.wanted == "draining":
        return False
    return agent.route.wanted == "warm" or agent.state in (AgentState.READY, AgentState.LOADING)

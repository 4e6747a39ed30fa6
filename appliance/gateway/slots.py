"""One agent as a gateway sees it: what it may be given, how fast it is; and one of its slots, taken.

Pure: no socket, no clock. Times are seconds of the caller's clock.
"""

from typing import TYPE_CHECKING, Final

from agents.protocol import AgentState, Beat, LoadReport, Refusal
from appliance.policies.health import HEALTHY, Health, Phase
from appliance.policies.report import LinkState
from appliance.policies.service_time import ServiceTime
from appliance.policies.snapshot import AgentRoute

if TYPE_CHECKING:
    from appliance.gateway.tracker import Pool

#: An agent without an answer for so long may be as fast again as this many times its peers' mean.
QUIET_S: Final = 2.0
RECOVERED: Final = 4.0
#: How much of what a beat tells of a node's crowding is believed: 100 ms of a processor's clock are coarse.
BEAT_WEIGHT: Final = 0.2


class AgentSlots:
    """One agent as this gateway sees it. Totals only grow while the gateway lives.

    `state` is what the agent itself said last, None without a link that spoke. `limit` is how
    many requests it may hold, 0 while it refuses; after a cold start it begins at 1 (`warmth`),
    grows by one with each answer, and doubles with each report; an error halves it, and on trial it
    is 1. `beat` is what it told since `load`. For `busy_until`, `fixed_s`, `per_work_s` and
    `doubt_until` see `Target`; other processes on its node make it slower by `crowding`.
    """

    __slots__ = (
        "answered",
        "beat",
        "busy_until",
        "crowding",
        "doubt_until",
        "failed",
        "fixed_s",
        "health",
        "heard_at",
        "in_flight",
        "limit",
        "listed",
        "load",
        "measured_at",
        "mute",
        "on_trial",
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
        self.beat: Beat | None = None
        self.health: Health = HEALTHY
        self.on_trial = False
        self.heard_at = self.measured_at = 0.0
        self.resumed = False
        self.resume_sent_at: float | None = None
        self.mute = False
        self.pool: Pool | None = None
        self.listed = False
        self.service = ServiceTime()
        self.crowding = 1.0
        self.busy_until = 0.0
        self.warmth: int | None = None
        self.route = route
        self.take_route(route)
        self._show_speed()

    def take_route(self, route: AgentRoute) -> None:
        """What the snapshot says of it from now on."""
        if route.wanted != self.route.wanted:
            self.resumed = False  # the control plane has decided anew
        self.route = route
        self.service.expect(route.fixed_s, route.per_token_s)
        self.slots = route.slots
        self.limit = self._most()
        served_by = f"{route.node}/{route.id}"
        self.served_by = "".join(c if " " < c <= "~" else "_" for c in served_by).encode()
        self.offer()

    def spoke(self, load: LoadReport, now: float) -> bool:
        """It told its load: whatever it refused before is forgotten. True where its state is another."""
        changed = self.state is not load.state
        if self.mute and load.state in (AgentState.LOADING, AgentState.READY):
            self.mute, self.resumed = False, self.route.wanted != "warm"  # it has heard, only late
        if changed and load.state in (AgentState.READY, AgentState.PARKED):
            self.resume_sent_at, self.mute = None, False  # the resume has worked, or has come to nothing
            if load.state is AgentState.PARKED:
                self.resumed = False
        if load.state is not AgentState.READY or (self.state is None and load.answered_total == 0):
            self.warmth = 1
        elif self.warmth is not None and not changed:
            self._warm_up(self.warmth)  # answers may take long: it is warm in a few seconds all the same
        self.load, self.beat, self.state, self.heard_at = load, None, load.state, now
        self.crowding = 1 + min(max(load.node_cpu_percent - load.cpu_percent, 0.0), 100.0) / 100
        if self.pool is not None and self.pool.typical_s:
            self.service.assume(self.pool.typical_s)
            if not self.in_flight and now - self.measured_at > QUIET_S:
                self.service.forget(RECOVERED * self.pool.typical_s)
        self._show_speed()
        self.reopen()
        return changed

    def look_resumed(self, since_s: float, mute_after_s: float, patience_s: float) -> None:
        """Told to resume so long ago, a mute one is parked still; after the patience it is told again."""
        if since_s > patience_s:
            self.resume_sent_at, self.mute = None, False
        elif since_s > mute_after_s and self.state is AgentState.PARKED:
            self.mute, self.resumed = True, False

    def take_beat(self, beat: Beat, now: float) -> None:
        """It told the little that changes fast."""
        self.beat, self.heard_at = beat, now
        crowding = 1 + max(beat.node_cpu_percent - beat.cpu_percent, 0) / 100
        self.crowding += BEAT_WEIGHT * (crowding - self.crowding)
        self._show_speed()

    def take_health(self, health: Health, now: float) -> None:
        """How far it is trusted from now on. After an ejection it starts as slowly as after a cold start."""
        before, self.health = self.health.phase, health
        if health.phase is before:
            return
        self.on_trial = health.phase is Phase.TRIAL
        if health.phase is not Phase.EJECTED:
            self.warmth = 1
            self.service.failures, self.service.doubt_until = 0, now  # the trial takes their place
            self._show_speed()
        self.reopen()

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
        """It has answered with an error: it may hold half as much until it answers well."""
        self.service.failed(now)
        self.warmth = max(1, self._most() // 2)
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
        if self.on_trial:
            return 1
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
        self.state, self.load, self.beat = None, None, None
        self.resume_sent_at, self.mute, self.resumed = None, False, False
        self.reopen()

    @property
    def link_state(self) -> LinkState:
        """The state in the words of the report."""
        if self.state is None:
            return "connecting"
        if self.route.wanted == "draining":
            return "draining"
        if self.state is AgentState.READY and self.health.phase is Phase.EJECTED:
            return "ejected"
        return _LINK_STATES[self.state]


_LINK_STATES: dict[AgentState, LinkState] = {
    AgentState.LOADING: "loading",
    AgentState.READY: "ready",
    AgentState.PARKED: "parked",
    AgentState.DRAINING: "draining",
}


class Reservation:
    """A slot that is taken. `release` gives it back, once however often it is called."""

    __slots__ = ("_ahead", "_before_s", "_held", "_own_s", "_pool", "_sent_at", "_work", "agent")

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
        self._pool = agent.pool
        if self._pool is not None:
            self._pool.held += 1

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
            if self._pool is not None:
                self._pool.held -= 1
            agent.busy_until -= self._own_s
            agent.offer()

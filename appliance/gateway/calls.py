"""One client's request from the moment it is accepted until it has ended, and its deployment."""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final, Protocol

from agents.protocol import Answer
from appliance.gateway.cache import AnswerCache
from appliance.gateway.drain import Drain
from appliance.gateway.errors import ApiError
from appliance.gateway.slots import AgentSlots, Reservation
from appliance.gateway.stats import DeploymentStats
from appliance.gateway.tracker import Pool
from appliance.gateway.wait_queue import NORMAL, WaitQueue
from appliance.policies.balancing import find_policy
from appliance.policies.hedging import RecentTimes
from appliance.policies.snapshot import DeploymentRoute

#: So many calls are watched at most for being slow; of more the oldest are not.
MOST_WATCHED: Final = 4096


@dataclass(frozen=True, slots=True)
class Served:
    """An agent's answer, and who gave it (NODE/AGENT)."""

    answer: Answer
    served_by: bytes


class ClientLeft:
    """The request ended because nobody waits for its answer."""


CLIENT_LEFT = ClientLeft()

Outcome = Served | ApiError | ClientLeft


class Awaited(Protocol):
    """Where a call's outcome goes, once: a future is one."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, outcome: Outcome, /) -> None:
        """It has ended so. Must not raise, and not ask anything of the dispatcher."""
        ...


class Second:
    """The second attempt of a call that is hedged."""

    __slots__ = ("reservation", "sent_at", "stream")

    def __init__(self, reservation: Reservation, stream: int, sent_at: float) -> None:
        self.reservation = reservation
        self.stream = stream
        self.sent_at = sent_at


class Call:
    """A request of a client. It is queued, or in flight (`reservation` is set), or done.

    `outcome` is what its handler waits for. `key` says whose it is, `priority` and `work` (in
    tokens) where it waits. With a `cache_key` it may get another's answer; its own is kept
    where `keep_answer`. It was `adopted` where it got another's place at an agent. With a `session`
    it goes to that session's agent. It is `hedged` once it has had a `second` attempt, and takes
    `borrowed` places of the budget for retries. It has `begun` once its first token is there. Times are
    monotonic seconds.
    """

    __slots__ = (
        "accepted_at",
        "adopted",
        "avoid",
        "begun",
        "body",
        "borrowed",
        "breaks",
        "cache_key",
        "deadline_at",
        "deadline_s",
        "deployment",
        "done",
        "error_retries",
        "hedged",
        "keep_answer",
        "key",
        "outcome",
        "path",
        "priority",
        "request_id",
        "reservation",
        "second",
        "sent_at",
        "session",
        "stream",
        "timer",
        "was_sent",
        "work",
    )

    def __init__(
        self,
        deployment: "Deployment",
        *,
        path: str,
        request_id: str,
        body: bytes,
        deadline_s: float,
        outcome: "Awaited",
        key: str = "",
        priority: int = NORMAL,
        cache_key: bytes | None = None,
        session: bytes | None = None,
    ) -> None:
        self.deployment = deployment
        self.path = path
        self.request_id = request_id
        self.body = body
        self.deadline_s = deadline_s
        self.outcome = outcome
        self.key = key
        self.priority = priority
        self.cache_key = cache_key
        self.session = session
        self.keep_answer = False
        self.work = 1.0
        self.accepted_at = self.deadline_at = self.sent_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.reservation: Reservation | None = None
        self.stream = 0
        self.avoid: frozenset[AgentSlots] | None = None
        self.second: Second | None = None
        self.breaks = self.error_retries = self.borrowed = 0
        self.was_sent = self.adopted = self.hedged = self.begun = self.done = False

    def begin_answer(self, now: float) -> None:
        """The first token of an agent's answer is there: counted once, whatever comes after it.

        An answer that is sent whole begins with its end; one that is streamed, with its first piece.
        """
        if not self.begun:
            self.begun = True
            self.deployment.stats.first_token.observe(now - self.accepted_at)


class Flight:
    """Calls that ask the same: the leader is under way for all."""

    __slots__ = ("followers", "leader")

    def __init__(self, leader: Call) -> None:
        self.leader = leader
        self.followers: OrderedDict[Call, None] = OrderedDict()


@dataclass(slots=True)
class Deployment:
    """What runs for one deployment: its agents, its queue and its counters.

    `room`: an agent had some when the queue was looked at last, but not for what waited; it is
    looked at again when `look_again` fires. Where it is hedged, `recent` are the times of its answers and
    `watched` when calls under way were sent, the earliest first.
    """

    route: DeploymentRoute
    pool: Pool
    queue: WaitQueue[Call]
    stats: DeploymentStats
    drain: Drain
    cache: AnswerCache[Served]
    flights: dict[bytes, Flight] = field(default_factory=dict)
    held_told_at: float = float("-inf")
    queue_told: int = 0
    resumed_at: float = float("-inf")
    gone: bool = False
    room: bool = False
    look_again: asyncio.TimerHandle | None = None
    recent: RecentTimes = field(default_factory=RecentTimes)
    watched: deque[tuple[float, Call]] = field(default_factory=lambda: deque(maxlen=MOST_WATCHED))
    hedge_timer: asyncio.TimerHandle | None = None

    @classmethod
    def begin(cls, route: DeploymentRoute, policy: str, now: float) -> "Deployment":
        """A deployment that has served nothing yet."""
        queue: WaitQueue[Call] = WaitQueue(route.queue_limit, route.queue_tokens)
        cache: AnswerCache[Served] = AnswerCache(route.cache_bytes)
        return cls(route, Pool(find_policy(policy)), queue, DeploymentStats(now), Drain(now), cache)

    def take_route(self, route: DeploymentRoute, policy: str) -> None:
        """What the snapshot says of it from now on."""
        self.route = route
        self.queue.limit, self.queue.limit_work = route.queue_limit, route.queue_tokens
        self.cache.resize(route.cache_bytes)
        self.pool.policy = find_policy(policy)

    def oldest_wait_s(self, now: float) -> float:
        """For how long the request that waits longest has been here, 0 where none waits."""
        return now - min((call.accepted_at for call in self.queue), default=now)

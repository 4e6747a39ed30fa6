"""One client's request from the moment it is accepted until it has ended, and its deployment."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from agents.protocol import Answer
from appliance.gateway.cache import AnswerCache
from appliance.gateway.drain import Drain
from appliance.gateway.errors import ApiError
from appliance.gateway.stats import DeploymentStats
from appliance.gateway.tracker import AgentSlots, Pool, Reservation
from appliance.gateway.wait_queue import NORMAL, WaitQueue
from appliance.policies.balancing import find_policy
from appliance.policies.snapshot import DeploymentRoute


@dataclass(frozen=True, slots=True)
class Served:
    """An agent's answer, and who gave it (NODE/AGENT)."""

    answer: Answer
    served_by: bytes


class ClientLeft:
    """The request ended because nobody waits for its answer."""


CLIENT_LEFT = ClientLeft()

Outcome = Served | ApiError | ClientLeft


class Call:
    """A request of a client. It is queued, or in flight (`reservation` is set), or done.

    `outcome` is the future its handler awaits. `key` says whose it is, `priority` and `work` (in
    tokens) where it waits. With a `cache_key` it may get another's answer; its own is kept
    where `keep_answer`. It was `adopted` where it got another's place at an agent. Times are
    monotonic seconds.
    """

    __slots__ = (
        "accepted_at",
        "adopted",
        "avoid",
        "body",
        "breaks",
        "cache_key",
        "deadline_at",
        "deadline_s",
        "deployment",
        "done",
        "error_retries",
        "keep_answer",
        "key",
        "outcome",
        "path",
        "priority",
        "request_id",
        "reservation",
        "sent_at",
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
        outcome: "asyncio.Future[Outcome]",
        key: str = "",
        priority: int = NORMAL,
        cache_key: bytes | None = None,
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
        self.keep_answer = False
        self.work = 1.0
        self.accepted_at = self.deadline_at = self.sent_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.reservation: Reservation | None = None
        self.stream = 0
        self.avoid: frozenset[AgentSlots] | None = None
        self.breaks = self.error_retries = 0
        self.was_sent = self.adopted = self.done = False


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
    looked at again when `look_again` fires.
    """

    route: DeploymentRoute
    pool: Pool
    queue: WaitQueue[Call]
    stats: DeploymentStats
    drain: Drain
    cache: AnswerCache[Served]
    flights: dict[bytes, Flight] = field(default_factory=dict)
    held_told_at: float = float("-inf")
    gone: bool = False
    room: bool = False
    look_again: asyncio.TimerHandle | None = None

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

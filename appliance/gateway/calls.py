"""One client's request from the moment it is accepted until it has ended, and its deployment."""

import asyncio
from dataclasses import dataclass

from agents.protocol import Answer
from appliance.gateway.errors import ApiError
from appliance.gateway.stats import DeploymentStats
from appliance.gateway.tracker import AgentSlots, Pool, Reservation
from appliance.gateway.wait_queue import WaitQueue
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

    `outcome` is the future its handler awaits. Times are monotonic seconds.
    """

    __slots__ = (
        "accepted_at",
        "avoid",
        "body",
        "breaks",
        "deadline_at",
        "deadline_s",
        "deployment",
        "done",
        "error_retries",
        "outcome",
        "path",
        "request_id",
        "reservation",
        "stream",
        "timer",
        "was_sent",
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
    ) -> None:
        self.deployment = deployment
        self.path = path
        self.request_id = request_id
        self.body = body
        self.deadline_s = deadline_s
        self.outcome = outcome
        self.accepted_at = self.deadline_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.reservation: Reservation | None = None
        self.stream = 0
        self.avoid: frozenset[AgentSlots] | None = None
        self.breaks = self.error_retries = 0
        self.was_sent = self.done = False


@dataclass(slots=True)
class Deployment:
    """What runs for one deployment: its agents, its queue and its counters."""

    route: DeploymentRoute
    pool: Pool
    queue: WaitQueue[Call]
    stats: DeploymentStats
    held_told_at: float = float("-inf")
    gone: bool = False

    @classmethod
    def begin(cls, route: DeploymentRoute, policy: str, now: float) -> "Deployment":
        """A deployment that has served nothing yet."""
        return cls(route, Pool(find_policy(policy)), WaitQueue(route.queue_limit), DeploymentStats(now))

    def take_route(self, route: DeploymentRoute, policy: str) -> None:
        """What the snapshot says of it from now on."""
        self.route = route
        self.queue.limit = route.queue_limit
        self.pool.policy = find_policy(policy)

    def oldest_wait_s(self, now: float) -> float:
        """For how long the request at the head has been here, 0 where none waits."""
        return now - self.queue.head().accepted_at if self.queue else 0.0

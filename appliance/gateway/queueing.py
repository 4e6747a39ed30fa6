"""Where a call waits: it gets an agent at once, a place in the queue, or a refusal."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from appliance.gateway import errors
from appliance.gateway.calls import Call, Deployment, Outcome
from appliance.gateway.holding import Holding
from appliance.gateway.overload import describe_full, find_hopeless
from appliance.gateway.slots import Reservation
from appliance.policies.balancing import Nothing, Wait

SOONEST_S: Final = 0.001

Send = Callable[[Call, Reservation, float], None]
Finish = Callable[[Call, str, Outcome], None]
Expire = Callable[[Call], None]


class Queueing:
    """Lets calls in and out of their deployments' queues. Nothing awaits.

    `send` is called with each call whose slot is taken, `finish` with each that is refused or too
    late, `expire` with each that is not done at its deadline.
    """

    def __init__(self, holding: Holding, send: Send, finish: Finish, expire: Expire) -> None:
        self._holding = holding
        self._send = send
        self._finish = finish
        self._expire = expire
        self._loop = asyncio.get_running_loop()

    def begin(self, call: Call, now: float) -> None:
        """Send a call, or let it wait, or shed it."""
        deployment = call.deployment
        if not deployment.queue:
            found = deployment.pool.reserve(None, now, call.work, session=call.session)
            if isinstance(found, Reservation):
                self.watch(call, now)
                self._send(call, found, now)
                return
            if isinstance(found, Wait):
                self._wait(deployment, found)
        self._enqueue(call, now)

    def watch(self, call: Call, now: float) -> None:
        """See to it that a call ends at its deadline."""
        if call.timer is None:
            call.timer = self._loop.call_later(call.deadline_at - now, self._expire, call)

    def pump(self, deployment: Deployment) -> None:
        """Send what waits, as long as an agent has room for it."""
        queue = deployment.queue
        deployment.room = False
        while queue:
            now = monotonic()
            found = self._next(deployment, now)
            if found is None:
                return
            call, reservation = found
            if now + deployment.drain.quick_s < call.deadline_at:
                queue.take(call)
                self._send(call, reservation, now)
            else:  # even the quickest agent would answer too late: others need the slot
                queue.remove(call)
                reservation.release()
                self._finish(call, "failed", errors.deadline_exceeded(call.deadline_s))

    def _enqueue(self, call: Call, now: float) -> None:
        """Let a call wait where there is a place and its deadline leaves it a chance, else shed it.

        One of higher priority, or of a key with less than its share, may cost others their place.
        """
        deployment = call.deployment
        queue, drain, name = deployment.queue, deployment.drain, deployment.route.name
        hopeless = find_hopeless(queue, drain, call, call.deadline_at - now)
        if hopeless is not None:
            self._finish(call, "shed", hopeless)
            return
        may_pass = deployment.room or queue.only_returned
        pushed_out = queue.offer(call)
        if pushed_out is None:
            self._finish(call, "shed", describe_full(name, queue, drain, call.priority))
            return
        for loser in pushed_out:
            self._finish(loser, "shed", describe_full(name, queue, drain, loser.priority))
        self.watch(call, now)
        if not deployment.pool.targets:
            self._holding.hold(deployment, now)
        elif may_pass:
            self.pump(deployment)

    def _next(self, deployment: Deployment, now: float) -> tuple[Call, Reservation] | None:
        """The first in the queue for which an agent has room, with the slot taken."""
        pool, queue = deployment.pool, deployment.queue
        behind = len(queue) - 1
        call = queue.head()
        if not call.avoid:
            return self._try(deployment, call, pool.reserve(None, now, call.work, behind, call.session))
        for call in queue.candidates():
            found = pool.reserve(call.avoid, now, call.work, behind, call.session)
            if found is Nothing.NO_AGENT and call.avoid:
                call.avoid = None  # only agents that failed it are left: better they than none
                found = pool.reserve(None, now, call.work, behind, call.session)
            taken = self._try(deployment, call, found)
            if taken is not None or not call.avoid:
                return taken
        return None

    def _try(
        self, deployment: Deployment, call: Call, found: Reservation | Wait | Nothing
    ) -> tuple[Call, Reservation] | None:
        """What to send now, None where the call must wait, or had better."""
        if isinstance(found, Reservation):
            return call, found
        if isinstance(found, Wait):
            self._wait(deployment, found)
        return None

    def _wait(self, deployment: Deployment, wait: Wait) -> None:
        """There is room that the next one had better not take: look again when that may be otherwise."""
        deployment.room = True
        if deployment.look_again is None:
            deployment.look_again = self._loop.call_later(
                max(wait.for_s, SOONEST_S), self._look_again, deployment
            )

    def _look_again(self, deployment: Deployment) -> None:
        deployment.look_again = None
        self.pump(deployment)

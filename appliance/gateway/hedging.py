"""A request that is slow is sent to a second agent too, where its deployment asks for that."""

import asyncio
from time import monotonic

from appliance.gateway.attempts import Attempts
from appliance.gateway.calls import Call, Deployment
from appliance.gateway.fleet import Fleet
from appliance.gateway.retries import RetryBudget
from appliance.gateway.slots import Reservation


class Hedging:
    """Watches calls that are under way. Nothing awaits.

    A call gets one second attempt at most, while nothing waits, another agent has a slot free, and the
    budget for retries allows it.
    """

    def __init__(self, fleet: Fleet, attempts: Attempts, budget: RetryBudget) -> None:
        self._fleet = fleet
        self._attempts = attempts
        self._budget = budget
        self._loop = asyncio.get_running_loop()

    def watch(self, call: Call, now: float) -> None:
        """The call was sent just now."""
        deployment = call.deployment
        slow_s = deployment.recent.slow_s
        if slow_s is not None and not call.hedged:
            deployment.watched.append((now, call))
            if deployment.hedge_timer is None:
                self._arm(deployment, slow_s)

    def note(self, call: Call, now: float) -> None:
        """The call was answered; to be called before its second attempt is dropped."""
        first_at = call.sent_at if call.second is None else min(call.sent_at, call.second.sent_at)
        call.deployment.recent.note(now - first_at)

    def _arm(self, deployment: Deployment, in_s: float) -> None:
        deployment.hedge_timer = self._loop.call_later(in_s, self._look, deployment)

    def _look(self, deployment: Deployment) -> None:
        deployment.hedge_timer = None
        watched, slow_s = deployment.watched, deployment.recent.slow_s or 0.0
        now = monotonic()
        while watched:
            sent_at, call = watched[0]
            is_there = not call.done and call.reservation is not None and call.sent_at == sent_at
            if is_there and sent_at + slow_s > now:
                self._arm(deployment, sent_at + slow_s - now)
                return
            watched.popleft()
            if is_there:
                self._hedge(call, now)

    def _hedge(self, call: Call, now: float) -> None:
        deployment, first = call.deployment, call.reservation
        if first is None or call.second is not None or deployment.queue or deployment.gone:
            return
        avoid = (call.avoid or frozenset()) | {first.agent}
        found = deployment.pool.reserve(avoid, now, call.work)
        if not isinstance(found, Reservation):
            return
        agent = found.agent
        if agent.in_flight > agent.slots or agent.on_trial or not self._budget.take(self._fleet.active()):
            found.release()  # there it would wait as well
            return
        call.hedged = True
        call.borrowed += 1
        self._attempts.send_second(call, found, now)

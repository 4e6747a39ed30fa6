"""From accepted to ended: each request gets an agent, waits for one, is retried, or is refused.

Everything here runs in the event loop's thread and nothing awaits, so that every change of
queues, slots and counters is one step for all who look at them.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from agents.protocol import Answer, Kind, LoadReport, Refusal, Request, build_frame, build_request
from appliance.gateway import errors
from appliance.gateway.cache import is_of
from appliance.gateway.calls import CLIENT_LEFT, Call, Deployment, Outcome, Served
from appliance.gateway.fleet import Agent, Fleet
from appliance.gateway.holding import Holding
from appliance.gateway.link import Link
from appliance.gateway.queueing import Queueing
from appliance.gateway.retries import RetryBudget
from appliance.gateway.routes import RoutingTable
from appliance.gateway.sharing import Sharing
from appliance.gateway.stats import GatewayStats
from appliance.gateway.tracker import Reservation
from appliance.policies.report import WantEvent

log = logging.getLogger(__name__)

MAX_BREAKS = 3
MAX_ERROR_RETRIES = 2
REFUSAL_PAUSE_S = 0.05
STATUS_DEADLINE = 504
STATUS_TOO_MANY = 429


class Dispatcher:
    """Carries calls to agents and their answers back. It listens to the fleet's links.

    `want` is called with each event that the control loop should see at once.
    """

    def __init__(
        self, name: str, fleet: Fleet, stats: GatewayStats, want: Callable[[WantEvent], None]
    ) -> None:
        self._fleet = fleet
        self._stats = stats
        self._holding = Holding(name, fleet, want)
        self._loop = asyncio.get_running_loop()
        self._budget = RetryBudget()
        self._queueing = Queueing(self._holding, self._send, self._finish, self._expire)
        self._sharing = Sharing(self._begin_soon, self._finish)

    # What the application asks for.

    def submit(self, call: Call, now: float) -> None:
        """Take a call in: it is sent, queued or shed. Its `outcome` is set sooner or later."""
        deployment = call.deployment
        deployment.stats.accept(now)
        call.accepted_at = now
        call.deadline_at = now + call.deadline_s
        call.work = deployment.drain.estimate(len(call.body))
        if call.cache_key is None or not self._sharing.join(call):
            self._queueing.begin(call, now)
        elif not call.done:
            self._queueing.watch(call, now)

    def shed(self, deployment: Deployment, now: float) -> None:
        """Count a request that is refused before it could wait (its key's rate)."""
        deployment.stats.accept(now)
        deployment.stats.finish("shed", now, now)

    def leave(self, call: Call) -> None:
        """The client is gone: its slot and its place in the queue are free at once."""
        if not call.done:
            heir = self._sharing.find_heir(call) if call.reservation is not None else None
            if heir is None:
                self._withdraw(call, "cancelled")
            else:
                self._hand_over(call, heir)
            self._finish(call, "cancelled", CLIENT_LEFT)
            self._queueing.pump(call.deployment)

    def abandon_all(self) -> None:
        """Answer all that is queued or in flight with 503: the gateway stops now."""
        fleet = self._fleet
        for call in [*fleet.calls_in_flight(), *fleet.calls_queued(), *fleet.calls_shared()]:
            if not call.done:
                self._withdraw(call, "cancelled")
                self._finish(call, "failed", errors.stopping())

    def apply(self, table: RoutingTable) -> None:
        """Serve by another routing table from now on."""
        for deployment in self._fleet.apply(table, monotonic()):
            for call in list(deployment.queue):
                deployment.queue.remove(call)
                self._finish(call, "failed", errors.unknown_model(deployment.route.name))
        for deployment in self._fleet.deployments.values():
            self._queueing.pump(deployment)

    def tick(self, now: float) -> None:
        """Look after requests that are held; to be called several times a second."""
        for deployment in self._fleet.deployments.values():
            queue, targets = deployment.queue, deployment.pool.targets
            slots = sum(target.slots for target in targets)
            deployment.drain.tick(now, slots, waiting=bool(queue))
            if queue and not targets:
                self._holding.hold(deployment, now)

    # What the links tell.

    def link_spoke(self, link: Link, load: LoadReport) -> None:
        agent = self._fleet.by_link(link)
        if agent is not None:
            changed = agent.slots.spoke(load, monotonic())
            deployment = self._fleet.deployments.get(agent.route.deployment)
            if deployment is not None:
                deployment.drain.hear(load)
            if changed:
                self._changed(agent)
            else:
                self._pump_of(agent)

    def link_answered(self, link: Link, stream: int, answer: Answer) -> None:
        agent = self._fleet.by_link(link)
        call = agent.pending.pop(stream, None) if agent is not None else None
        if agent is None or call is None:
            return  # cancelled before the answer came
        slots = agent.slots
        self._note_answer(call, answer)
        self._release(call)
        slots.reopen()
        if answer.status < 500:
            slots.answered += 1
            self._stats.attempts["answered"] += 1
        else:
            slots.failed += 1
            self._stats.attempts["error"] += 1
            if self._retry(call, agent, answer.status):
                self._queueing.pump(call.deployment)
                return
        stats = call.deployment.stats
        stats.prompt_tokens += answer.prompt_tokens
        stats.completion_tokens += answer.completion_tokens
        self._finish(call, "answered" if answer.status < 500 else "failed", Served(answer, slots.served_by))
        self._after_release(agent, call.deployment)

    def link_refused(self, link: Link, stream: int, reason: Refusal) -> None:
        agent = self._fleet.by_link(link)
        if agent is None:
            return
        agent.slots.refuse(reason)
        self._stats.attempts["refused"] += 1
        call = agent.pending.pop(stream, None)
        if call is not None:
            self._release(call)
            self._put_back(call)
        if reason is Refusal.FULL:
            self._loop.call_later(REFUSAL_PAUSE_S, self._reopen, agent)
        self._changed(agent)

    def link_broke(self, link: Link, why: str) -> None:
        agent = self._fleet.by_link(link)
        if agent is None:
            return
        now = monotonic()
        log.warning(
            "agent %s lost: %s; %d requests go elsewhere", agent.route.id, why[:300], len(agent.pending)
        )
        broken = list(agent.pending.values())
        agent.pending.clear()
        agent.slots.lost()
        for call in reversed(broken):  # the oldest ends up at the head
            agent.slots.failed += 1
            self._stats.attempts["broken"] += 1
            self._release(call)
            self._return_broken(call)
        if agent.route.wanted != "draining" and not agent.retiring:
            self._holding.tell(agent.route.deployment, "agent_lost", agent.route.id)
        self._changed(agent)
        for deployment in {call.deployment.route.name: call.deployment for call in broken}.values():
            self._queueing.pump(deployment)
            if deployment.queue and not deployment.pool.targets:
                self._holding.hold(deployment, now)

    # Steps of a call.

    def _note_answer(self, call: Call, answer: Answer) -> None:
        """Learn from an answer how fast its agent is, and the deployment."""
        assert call.reservation is not None
        now = monotonic()
        if answer.status == STATUS_TOO_MANY or (answer.status >= 500 and answer.status != STATUS_DEADLINE):
            call.reservation.failed(now)
        elif answer.status < 400:  # what is refused for its content says nothing of the agent's speed
            call.reservation.answered(now)
        if answer.status >= 500:
            return
        if call.cache_key is not None:
            load = call.reservation.agent.load
            call.keep_answer = load is not None and is_of(call.cache_key, load.revision)
        call.deployment.drain.finish(call.work, now - call.sent_at, call.priority)

    def _begin_soon(self, call: Call) -> None:
        self._loop.call_soon(self._begin_again, call)

    def _begin_again(self, call: Call) -> None:
        """The call that one followed has ended without an answer."""
        if call.done:
            return
        if call.deployment.gone:
            self._finish(call, "failed", errors.unknown_model(call.deployment.route.name))
        else:
            self._queueing.begin(call, monotonic())

    def _hand_over(self, call: Call, heir: Call) -> None:
        """Another call gets the place that this one has at an agent."""
        assert call.reservation is not None
        agent = self._fleet.by_slots(call.reservation.agent)
        agent.pending[call.stream] = heir
        heir.reservation, heir.stream, heir.sent_at = call.reservation, call.stream, call.sent_at
        heir.work, heir.was_sent, heir.adopted = call.work, True, True
        call.reservation = None

    def _send(self, call: Call, reservation: Reservation, now: float) -> None:
        agent = self._fleet.by_slots(reservation.agent)
        stream = agent.next_stream()
        call.reservation, call.stream, call.sent_at = reservation, stream, now
        agent.pending[stream] = call
        agent.slots.sent += 1
        stats = call.deployment.stats
        stats.in_flight += 1
        if not call.was_sent:
            call.was_sent = True
            stats.queue_wait.observe(now - call.accepted_at)
        deadline_ms = max(1, int((call.deadline_at - now) * 1000))
        agent.link.send(build_request(stream, Request(deadline_ms, call.path, call.request_id, call.body)))

    def _release(self, call: Call) -> None:
        assert call.reservation is not None
        call.reservation.release()
        call.reservation = None
        call.deployment.stats.in_flight -= 1

    def _withdraw(self, call: Call, result: str) -> None:
        """Take a call away from where it is: out of the queue, or from its agent."""
        if call.reservation is None:
            if call in call.deployment.queue:
                call.deployment.queue.remove(call)
            return
        agent = self._fleet.by_slots(call.reservation.agent)
        del agent.pending[call.stream]
        agent.link.send(build_frame(Kind.CANCEL, call.stream))
        self._stats.attempts[result] += 1
        self._release(call)
        self._fleet.close_if_idle(agent)

    def _finish(self, call: Call, outcome: str, result: Outcome) -> None:
        call.done = True
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        if call.error_retries:
            self._budget.give_back()
        call.deployment.stats.finish(outcome, monotonic(), call.accepted_at)
        if outcome == "failed":
            _log_failure(call, result)
        if not call.outcome.done():
            call.outcome.set_result(result)
        if call.cache_key is not None:
            self._sharing.settle(call, outcome, result)

    def _expire(self, call: Call) -> None:
        """The deadline has passed without an answer."""
        call.timer = None
        if call.done:
            return
        deployment = call.deployment
        if call.reservation is None and not deployment.pool.targets:
            result = errors.no_capacity(deployment.route.name, call.deadline_s)
        else:
            result = errors.deadline_exceeded(call.deadline_s)
        self._withdraw(call, "timeout")
        self._finish(call, "failed", result)
        self._queueing.pump(deployment)

    def _return_broken(self, call: Call) -> None:
        call.breaks += 1
        if call.breaks > MAX_BREAKS:
            self._finish(call, "failed", errors.agents_broke(call.breaks))
        else:
            self._put_back(call)

    def _put_back(self, call: Call) -> None:
        """To the head of the queue, unless the deployment is gone meanwhile."""
        if call.deployment.gone:
            self._finish(call, "failed", errors.unknown_model(call.deployment.route.name))
        else:
            call.deployment.queue.put_back(call)

    def _retry(self, call: Call, agent: Agent, status: int) -> bool:
        """Whether a call that an agent answered with an error is put back."""
        if status != STATUS_DEADLINE:
            return self._retry_elsewhere(call, agent)
        if call.adopted and not call.deployment.gone and monotonic() < call.deadline_at:
            call.adopted = False  # it was the deadline of the one whose place it got
            self._put_back(call)
            return True
        return False

    def _retry_elsewhere(self, call: Call, agent: Agent) -> bool:
        """Put a call back whose agent answered with an error, where another agent and the budget allow it."""
        avoid = (call.avoid or frozenset()) | {agent.slots}
        if call.error_retries >= MAX_ERROR_RETRIES or all(t in avoid for t in call.deployment.pool.targets):
            return False
        if call.error_retries == 0 and not self._budget.take(self._fleet.active()):
            return False
        call.error_retries += 1
        call.avoid = avoid
        self._put_back(call)
        return True

    # Steps of an agent.

    def _reopen(self, agent: Agent) -> None:
        agent.slots.probe()
        self._pump_of(agent)

    def _changed(self, agent: Agent) -> None:
        """An agent's state is another: who may take work, and whether requests are held now."""
        deployment = self._fleet.deployments.get(agent.route.deployment)
        if deployment is not None:
            deployment.pool.refresh()
            self._queueing.pump(deployment)
            if deployment.queue and not deployment.pool.targets:
                self._holding.hold(deployment, monotonic())
        self._fleet.close_if_idle(agent)

    def _after_release(self, agent: Agent, deployment: Deployment) -> None:
        self._queueing.pump(deployment)
        if agent.retiring:
            self._fleet.close_if_idle(agent)

    def _pump_of(self, agent: Agent) -> None:
        deployment = self._fleet.deployments.get(agent.route.deployment)
        if deployment is not None:
            self._queueing.pump(deployment)


def _log_failure(call: Call, result: Outcome) -> None:
    if isinstance(result, Served):
        why = f"{result.served_by.decode()} answered {result.answer.status}"
    else:
        why = str(result)
    log.warning("request %s for %s failed: %s", call.request_id, call.deployment.route.name, why)

"""From accepted to ended: each request gets an agent, waits for one, is retried, or is refused.

Everything here runs in the event loop's thread and nothing awaits, so that every change of
queues, slots and counters is one step for all who look at them.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from agents.protocol import Answer, Beat, LoadReport, Refusal
from appliance.gateway import errors
from appliance.gateway.attempts import Attempts
from appliance.gateway.cache import is_of
from appliance.gateway.calls import CLIENT_LEFT, Call, Deployment, Outcome, Served
from appliance.gateway.fleet import Agent, Fleet
from appliance.gateway.hedging import Hedging
from appliance.gateway.holding import Holding
from appliance.gateway.link import Link
from appliance.gateway.queueing import Queueing
from appliance.gateway.retries import MAX_BREAKS, STATUS_DEADLINE, STATUS_TOO_MANY, Retries, RetryBudget
from appliance.gateway.routes import RoutingTable
from appliance.gateway.sharing import Sharing
from appliance.gateway.slots import Reservation
from appliance.gateway.stats import GatewayStats
from appliance.gateway.watch import Watch
from appliance.policies.report import WantEvent

log = logging.getLogger(__name__)

REFUSAL_PAUSE_S = 0.05


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
        self._attempts = Attempts(fleet, stats)
        self._retries = Retries(fleet, self._budget, self._finish)
        self._hedging = Hedging(fleet, self._attempts, self._budget)
        self._queueing = Queueing(self._holding, self._send, self._finish, self._expire)
        self._sharing = Sharing(self._begin_soon, self._finish)
        self._watch = Watch(fleet, self._leave_agent, self._changed)

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
                self._attempts.withdraw(call, "cancelled")
            else:
                self._attempts.hand_over(call, heir)
            self._finish(call, "cancelled", CLIENT_LEFT)
            self._queueing.pump(call.deployment)

    def abandon_all(self) -> None:
        """Answer all that is queued or in flight with 503: the gateway stops now."""
        fleet = self._fleet
        for call in [*fleet.calls_in_flight(), *fleet.calls_queued(), *fleet.calls_shared()]:
            if not call.done:
                self._attempts.withdraw(call, "cancelled")
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
            elif targets:
                self._holding.note_queue(deployment, now)

    def watch(self, now: float, paused_s: float) -> None:
        """Look whether agents are well; to be called each `WATCH_S`, this time later by `paused_s`."""
        self._watch.tick(now, paused_s)

    # What the links tell.

    def link_spoke(self, link: Link, load: LoadReport) -> None:
        agent = self._fleet.by_link(link)
        if agent is not None:
            changed = agent.slots.spoke(load, monotonic())
            self._watch.heard(agent)
            deployment = self._fleet.deployments.get(agent.route.deployment)
            if deployment is not None:
                deployment.drain.hear(load)
            if changed:
                self._changed(agent)
            else:
                self._pump_of(agent)

    def link_beat(self, link: Link, beat: Beat) -> None:
        agent = self._fleet.by_link(link)
        if agent is not None:
            agent.slots.take_beat(beat, monotonic())

    def link_answered(self, link: Link, stream: int, answer: Answer) -> None:
        agent = self._fleet.by_link(link)
        call = agent.pending.pop(stream, None) if agent is not None else None
        if agent is None or call is None:
            return  # cancelled before the answer came
        slots = agent.slots
        if call.second is not None:
            self._attempts.turn(call, slots)
        if answer.status >= 500 or answer.status == STATUS_TOO_MANY:
            self._note_error(call, agent, answer.status)
            if self._attempts.end(call, slots):
                call.avoid = (call.avoid or frozenset()) | {slots}  # should the other attempt fail as well
                self._after_release(agent, call.deployment)
                return
            if self._retries.retry(call, agent, answer.status):
                self._after_release(agent, call.deployment)
                return
        else:
            self._note_answer(call, agent, answer)
            self._attempts.end(call, slots)
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
        call = agent.pending.pop(stream, None)
        if call is not None:  # else it was cancelled before the refusal came
            self._stats.attempts["refused"] += 1
            if not self._attempts.end(call, agent.slots):
                self._retries.put_back(call)
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
        agent.paced_ms = 0
        if broken:
            self._watch.note_error(agent, "broken", now)
        for call in reversed(broken):  # the oldest ends up at the head
            agent.slots.failed += 1
            self._stats.attempts["broken"] += 1
            if not self._attempts.end(call, agent.slots):
                self._retries.return_broken(call)
        if agent.route.wanted != "draining" and not agent.retiring:
            self._holding.tell(agent.route.deployment, "agent_lost", agent.route.id)
        self._changed(agent)
        for deployment in {call.deployment.route.name: call.deployment for call in broken}.values():
            self._queueing.pump(deployment)
            if deployment.queue and not deployment.pool.targets:
                self._holding.hold(deployment, now)

    # Steps of a call.

    def _send(self, call: Call, reservation: Reservation, now: float) -> None:
        self._attempts.send(call, reservation, now)
        if call.deployment.route.hedging:
            self._hedging.watch(call, now)

    def _note_answer(self, call: Call, agent: Agent, answer: Answer) -> None:
        """Learn from an answer how fast its agent is, and the deployment."""
        assert call.reservation is not None
        now, slots = monotonic(), agent.slots
        if answer.status < 400:  # what is refused for its content says nothing of the agent's speed
            call.reservation.answered(now)
            stats = call.deployment.stats
            stats.executed += 1
            stats.service_s += now - call.sent_at
            call.begin_answer(now)
        slots.answered += 1
        self._stats.attempts["answered"] += 1
        if slots.on_trial:
            self._watch.note_answer(agent, now)
        if call.deployment.route.hedging:
            self._hedging.note(call, now)
        if call.second is not None:
            self._attempts.drop_second(call, now)
        slots.reopen()
        if call.cache_key is not None:
            call.keep_answer = slots.load is not None and is_of(call.cache_key, slots.load.revision)
        call.deployment.drain.finish(call.work, now - call.sent_at, call.priority)

    def _note_error(self, call: Call, agent: Agent, status: int) -> None:
        """An attempt was answered with an error; past the deadline that is not the agent's."""
        assert call.reservation is not None
        now, slots = monotonic(), agent.slots
        slots.failed += 1
        self._stats.attempts["error"] += 1
        if status != STATUS_DEADLINE:
            call.reservation.failed(now)
            self._watch.note_error(agent, "busy" if status == STATUS_TOO_MANY else "error", now)
        slots.reopen()

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

    def _finish(self, call: Call, outcome: str, result: Outcome) -> None:
        call.done = True
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        if call.borrowed:
            self._budget.give_back(call.borrowed)
        call.deployment.stats.finish(outcome, monotonic(), call.accepted_at)
        if outcome == "failed":
            _log_failure(call, result)
        call.body = b""  # its memory is given back now; what watches for slow calls may keep the rest a while
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
        self._attempts.withdraw(call, "timeout")
        self._finish(call, "failed", result)
        self._queueing.pump(deployment)

    # Steps of an agent.

    def _leave_agent(self, agent: Agent) -> None:
        """An agent is silent: what it has goes elsewhere, but for what has made others silent before."""
        for stream, call in reversed(list(agent.pending.items())):  # the oldest ends up at the head
            if call.breaks < MAX_BREAKS and not call.deployment.gone:
                call.breaks += 1
                if not self._attempts.take_back(agent, stream):
                    self._retries.put_back(call)
        self._pump_of(agent)

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

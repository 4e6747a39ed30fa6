"""Calls at agents: each attempt takes a slot, and gives it back once, however it ends.

A call has one attempt under way, and where it is hedged a second one at another agent. Nothing awaits.
"""

from agents.protocol import Kind, Request, build_frame, build_request
from appliance.gateway.calls import Call, Second
from appliance.gateway.fleet import Agent, Fleet
from appliance.gateway.slots import AgentSlots, Reservation
from appliance.gateway.stats import GatewayStats


class Attempts:
    """Begins attempts and ends them. `agent.pending` and the slots always agree."""

    def __init__(self, fleet: Fleet, stats: GatewayStats) -> None:
        self._fleet = fleet
        self._stats = stats

    def send(self, call: Call, reservation: Reservation, now: float) -> None:
        """Begin the call's attempt at the agent whose slot was taken."""
        call.reservation, call.sent_at = reservation, now
        call.stream = self._begin(call, reservation, now)
        stats = call.deployment.stats
        stats.in_flight += 1
        if not call.was_sent:
            call.was_sent = True
            stats.queue_wait.observe(now - call.accepted_at)

    def send_second(self, call: Call, reservation: Reservation, now: float) -> None:
        """Begin a second attempt beside the first; it counts as one call in flight all the same."""
        call.second = Second(reservation, self._begin(call, reservation, now), now)

    def turn(self, call: Call, slots: AgentSlots) -> None:
        """Make the attempt at this agent the call's first; there are two."""
        second = call.second
        if second is not None and call.reservation is not None and second.reservation.agent is slots:
            call.second = Second(call.reservation, call.stream, call.sent_at)
            call.reservation, call.stream, call.sent_at = second.reservation, second.stream, second.sent_at

    def drop_second(self, call: Call, now: float) -> None:
        """The first attempt has answered: the other is cancelled.

        If it had been under way for longer, its agent took at least so long: that is learned.
        """
        second = call.second
        if second is None:
            return
        call.second = None
        if second.sent_at < call.sent_at:
            second.reservation.answered(now)
        self._stats.attempts["hedged"] += 1
        self._cancel(second.reservation, second.stream)

    def end(self, call: Call, slots: AgentSlots) -> bool:
        """An attempt came to nothing, and is not pending any more; whether the call has another under way."""
        assert call.reservation is not None
        if call.second is None:
            call.reservation.release()
            call.reservation = None
            call.deployment.stats.in_flight -= 1
            return False
        self.turn(call, slots)
        call.reservation.release()
        second, call.second = call.second, None
        call.reservation, call.stream, call.sent_at = second.reservation, second.stream, second.sent_at
        return True

    def withdraw(self, call: Call, result: str) -> None:
        """Take a call away from where it is: out of the queue, or from its agents."""
        reservation = call.reservation
        if reservation is None:
            if call in call.deployment.queue:
                call.deployment.queue.remove(call)
            return
        if call.second is not None:
            self._stats.attempts[result] += 1
            self._cancel(call.second.reservation, call.second.stream)
            call.second = None
        self._stats.attempts[result] += 1
        self._cancel(reservation, call.stream)
        call.reservation = None
        call.deployment.stats.in_flight -= 1

    def hand_over(self, call: Call, heir: Call) -> None:
        """Another call gets the place that this one has at an agent."""
        assert call.reservation is not None
        if call.second is not None:
            self._stats.attempts["hedged"] += 1
            self._cancel(call.second.reservation, call.second.stream)
            call.second = None
        agent = self._fleet.by_slots(call.reservation.agent)
        agent.pending[call.stream] = heir
        heir.reservation, heir.stream, heir.sent_at = call.reservation, call.stream, call.sent_at
        heir.work, heir.was_sent, heir.adopted = call.work, True, True
        call.reservation = None

    def take_back(self, agent: Agent, stream: int) -> bool:
        """Take an attempt away from an agent that is silent: should it wake, it need not begin with it."""
        call = agent.pending.pop(stream)
        agent.link.send(build_frame(Kind.CANCEL, stream))
        agent.slots.failed += 1
        self._stats.attempts["silent"] += 1
        return self.end(call, agent.slots)

    def _begin(self, call: Call, reservation: Reservation, now: float) -> int:
        agent = self._fleet.by_slots(reservation.agent)
        idle = not agent.pending
        if idle:
            agent.busy_since = now
        stream = agent.next_stream()
        agent.pending[stream] = call
        agent.slots.sent += 1
        deadline_ms = max(1, int((call.deadline_at - now) * 1000))
        frame = build_request(stream, Request(deadline_ms, call.path, call.request_id, call.body))
        agent.link.send(frame, at_once=idle)
        return stream

    def _cancel(self, reservation: Reservation, stream: int) -> None:
        agent = self._fleet.by_slots(reservation.agent)
        del agent.pending[stream]
        agent.link.send(build_frame(Kind.CANCEL, stream))
        reservation.release()
        self._fleet.close_if_idle(agent)

"""Who is trusted with work: agents that are silent or fail are ejected, tried again, and taken back."""

import logging
from collections.abc import Callable

from agents.protocol import AgentState, build_pace
from appliance.gateway.fleet import Agent, Fleet
from appliance.gateway.slots import AgentSlots
from appliance.policies import health as policy
from appliance.policies.health import Event, Health, Phase
from appliance.policies.silence import beat_interval_ms

log = logging.getLogger(__name__)

#: How often agents are looked at. It is a part of how soon a silence is noticed.
WATCH_S = 0.04
#: A look that is later than this: the gateway itself stood still, and perhaps its whole machine.
STALLED_S = 0.1
#: An agent is silent by itself where another was heard so long after its last word: two beats. Agents that
#: all fall silent together, as this machine's network does, have spoken last within one.
OUTLASTED_S = 0.2


class Watch:
    """Carries out what `policies/health.py` and `policies/silence.py` decide. Nothing awaits.

    `leave` is called with each agent whose calls must go elsewhere, `changed` with each whose
    trust is another.
    """

    def __init__(
        self, fleet: Fleet, leave: Callable[[Agent], None], changed: Callable[[Agent], None]
    ) -> None:
        self._fleet = fleet
        self._leave = leave
        self._changed = changed

    def tick(self, now: float, paused_s: float) -> None:
        """Look at all agents. `paused_s` is by how much this comes late.

        What came in that time is not read yet, so silence is judged as of before. After a stall
        all are given it for nothing: who stood still as well needs a moment to speak again.
        """
        suspects: list[Agent] = []
        read_at = now - max(0.0, paused_s)
        interval_ms = beat_interval_ms(len(self._fleet.agents))
        for agent in self._fleet.every_agent():
            if paused_s > STALLED_S:
                agent.link.forgive(paused_s, now)
                agent.busy_since = min(now, agent.busy_since + paused_s)
                agent.silent_since = min(now, agent.silent_since + paused_s)  # else it seems to be heard
            agent.link.check(now)
            health = agent.slots.health
            if health.phase is Phase.EJECTED:
                self._look_after(agent, health, now)
            if agent.link.beats and not agent.slots.health.silent:  # for errors ejected, it may have work
                self._pace(agent, interval_ms, now)
                if self._is_silent(agent, read_at):
                    suspects.append(agent)
        if suspects:
            self._eject_silent(suspects, now)

    def note_error(self, agent: Agent, event: Event, now: float) -> None:
        """It has answered with an error, or its connection broke under requests."""
        slots = agent.slots
        health, why = policy.note_error(slots.health, event, slots.answered, now)
        slots.health = health
        if why and policy.may_eject(self._others(agent)):
            self._take(agent, policy.eject(health, why, now), now)

    def note_answer(self, agent: Agent, now: float) -> None:
        """It has answered; to be called where it is on trial."""
        self._take(agent, policy.note_answer(agent.slots.health, now), now)

    def heard(self, agent: Agent) -> None:
        """It has told its load: from now on it beats, if it can."""
        if agent.link.beats:
            self._pace(agent, beat_interval_ms(len(self._fleet.agents)), agent.link.heard_at)

    def _pace(self, agent: Agent, interval_ms: int, now: float) -> None:
        if agent.paced_ms != interval_ms:
            agent.paced_ms, agent.paced_at = interval_ms, now
            agent.link.send(build_pace(interval_ms))

    def _look_after(self, agent: Agent, health: Health, now: float) -> None:
        """See whether an ejection is over."""
        if health.silent and agent.link.heard_at > agent.silent_since:
            health = policy.note_heard(health)
        self._take(agent, policy.note_time(health, now), now)

    def _is_silent(self, agent: Agent, now: float) -> bool:
        heard_at = agent.link.heard_at
        if not agent.pending:
            agent.silence.rest()
        elif agent.silence.look(now - max(heard_at, agent.busy_since)):
            return True
        # Not even a beat as of one without work. It may be busy anew each time that clients give up.
        return now - max(heard_at, agent.paced_at) > agent.paced_ms / 1000 + agent.silence.limit_s

    def _eject_silent(self, suspects: list[Agent], now: float) -> None:
        """Of agents that are all silent none is ejected: there is nobody better, or it is this gateway."""
        silent = {agent.slots for agent in suspects}
        newest = {
            name: self._newest_word(name, silent) for name in {one.route.deployment for one in suspects}
        }
        for agent in suspects:
            if newest[agent.route.deployment] < agent.link.heard_at + OUTLASTED_S:
                continue
            agent.silent_since = agent.link.heard_at
            self._take(agent, policy.note_silence(agent.slots.health, now - agent.silent_since), now)
            self._leave(agent)

    def _newest_word(self, name: str, silent: set[AgentSlots]) -> float:
        """When any agent of a deployment was heard last that is not silent; 0.0 where there is none."""
        deployment = self._fleet.deployments.get(name)
        if deployment is None:
            return 0.0
        others = set(deployment.pool.targets) - silent
        return max(
            (one.link.heard_at for one in self._fleet.every_agent() if one.slots in others), default=0.0
        )

    def _take(self, agent: Agent, health: Health, now: float) -> None:
        before = agent.slots.health
        agent.slots.take_health(health, now)
        if health.phase is before.phase and health.silent == before.silent:
            return
        if health.phase is Phase.EJECTED:
            log.warning("agent %s is ejected: %s", agent.route.id, health.why)
        else:
            log.info("agent %s is %s again", agent.route.id, _AGAIN[health.phase])
        self._changed(agent)

    def _others(self, agent: Agent) -> list[Health]:
        """The state of those that could take an agent's work."""
        deployment = self._fleet.deployments.get(agent.route.deployment)
        others = deployment.pool.agents if deployment is not None else []
        return [other.health for other in others if other is not agent.slots and _is_member(other)]


_AGAIN = {Phase.TRIAL: "tried with one request at a time", Phase.HEALTHY: "in service"}


def _is_member(slots: AgentSlots) -> bool:
    return slots.state is AgentState.READY and slots.route.wanted != "draining"

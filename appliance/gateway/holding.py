"""Requests wait, perhaps with no agent ready: what the gateway itself does about it, and what it tells."""

import logging
from collections.abc import Callable
from time import time
from typing import Literal

from agents.protocol import Kind, build_frame
from appliance.gateway.calls import Deployment
from appliance.gateway.fleet import Fleet
from appliance.policies.report import WantEvent

log = logging.getLogger(__name__)

HELD_AGAIN_S = 0.5
#: A queue is told of when the first in it has waited so long, each time once until it is worked off.
QUEUED_AFTER_S = (0.2, 0.45, 0.9)
#: One that was told to resume and does not even say that it loads after so long is passed over for another.
#: It is told again after the patience, and counts as warm until then: it may have heard.
MUTE_AFTER_S = 0.5
RESUME_PATIENCE_S = 10.0


class Holding:
    """Wakes parked agents, hurries links, and tells the control loop by `want`. Nothing awaits."""

    def __init__(self, name: str, fleet: Fleet, want: Callable[[WantEvent], None]) -> None:
        self._name = name
        self._fleet = fleet
        self._want = want

    def hold(self, deployment: Deployment, now: float) -> None:
        """Requests of this deployment are held; to be called again and again while they are."""
        for slots in deployment.pool.agents:
            link = self._fleet.by_slots(slots).link
            if not link.up:
                link.hurry()
        self._resume_one(deployment, now)
        if now - deployment.held_told_at >= HELD_AGAIN_S:
            deployment.held_told_at = now
            self.tell(deployment.route.name, "held", None)

    def note_queue(self, deployment: Deployment, now: float) -> None:
        """Agents are ready, and requests may wait all the same; to be called several times a second.

        How many agents are worth their cost is the loop's to say. Where a request waits for so long that no
        loop is there, parked ones are resumed without it: one, and another after as long again.
        """
        told, after_s = deployment.queue_told, deployment.route.resume_after_s
        if not deployment.queue:
            deployment.queue_told = 0
            return
        wait_s = deployment.oldest_wait_s(now)
        if told < len(QUEUED_AFTER_S) and wait_s >= QUEUED_AFTER_S[told]:
            deployment.queue_told = told + 1
            self.tell(deployment.route.name, "queued", None)
        if wait_s >= after_s and now - deployment.resumed_at >= after_s:
            self._resume_one(deployment, now)

    def tell(
        self, deployment: str, reason: Literal["held", "queued", "agent_lost"], agent: str | None
    ) -> None:
        """Tell the loop something that it should see at once."""
        self._want(WantEvent(self._name, time(), deployment, reason, agent))

    def _resume_one(self, deployment: Deployment, now: float) -> None:
        for agent in deployment.pool.agents:
            if agent.resume_sent_at is not None:
                agent.look_resumed(now - agent.resume_sent_at, MUTE_AFTER_S, RESUME_PATIENCE_S)
        slots = deployment.pool.find_resumable(deployment.route.max_agents)
        if slots is not None:
            slots.resumed, slots.resume_sent_at = slots.route.wanted != "warm", now
            deployment.resumed_at = now
            self._fleet.by_slots(slots).link.send(build_frame(Kind.RESUME, 0))
            log.info("agent %s is resumed for requests that wait", slots.route.id)

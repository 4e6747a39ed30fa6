"""Requests wait and no agent is ready: what the gateway itself does about it, and what it tells."""

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
            sent_at, link = slots.resume_sent_at, self._fleet.by_slots(slots).link
            if sent_at is not None and now - sent_at > RESUME_PATIENCE_S:
                slots.resume_sent_at = None
            if not link.up:
                link.hurry()
        self._resume_one(deployment, now)
        if now - deployment.held_told_at >= HELD_AGAIN_S:
            deployment.held_told_at = now
            self.tell(deployment.route.name, "held", None)

    def tell(self, deployment: str, reason: Literal["held", "agent_lost"], agent: str | None) -> None:
        """Tell the loop something that it should see at once."""
        self._want(WantEvent(self._name, time(), deployment, reason, agent))

    def _resume_one(self, deployment: Deployment, now: float) -> None:
        slots = deployment.pool.find_resumable(deployment.route.max_agents)
        if slots is not None:
            slots.resumed, slots.resume_sent_at = slots.route.wanted != "warm", now
            self._fleet.by_slots(slots).link.send(build_frame(Kind.RESUME, 0))
            log.info("agent %s is resumed for held requests", slots.route.id)

"""Which of a pool's agents the requests of one session go to. Pure."""

from collections.abc import Container, Sequence
from typing import Protocol

from appliance.policies.balancing import Target
from appliance.policies.snapshot import AgentRoute
from appliance.policies.stickiness import Ring


class Routed(Target, Protocol):
    """An agent that may take work, and its route."""

    @property
    def route(self) -> AgentRoute: ...


class Sessions:
    """The ring of the agents that may take work: made when it is asked for first after they changed."""

    __slots__ = ("_ring", "_slots")

    def __init__(self) -> None:
        self._ring: Ring | None = None
        self._slots = 0

    def forget(self) -> None:
        """Who may take work has changed."""
        self._ring = None

    def resize(self) -> None:
        """How much they may take at once may have changed."""
        self._slots = 0

    def find(
        self, session: bytes, targets: Sequence[Routed], held: int, avoid: Container[Target] | None
    ) -> int | None:
        """The index of a session's agent, None where it and those next to it have no room.

        `targets` hold `held` requests altogether, and are those of the last call unless `forget` was called.
        """
        if self._ring is None:
            self._ring = Ring([agent.route.id for agent in targets])
            self._slots = 0
        if not self._slots:
            self._slots = sum(agent.slots for agent in targets)
        return self._ring.pick(session, targets, held, self._slots, avoid)

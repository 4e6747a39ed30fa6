"""Telling agents to park, to resume and to change shape, over mutual TLS: no node's lane is needed for it.

Told in threads of their own, so that an agent that hangs delays nobody. What came of it gateways tell; an
order that was lost is given again by the loop.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from agents.protocol import PATH_PARK, PATH_RESUME, ProtocolError
from appliance.authority import ClientFiles
from appliance.control.ask import Address, request_agent

#: Parking ends what is under way first; nothing waits for the answer.
TELL_S = 10.0
_CONFLICT = 409
_TELLERS = 4

log = logging.getLogger(__name__)

Tell = Callable[[str, str, int], None]


def tell_agent(path: str, host: str, port: int, files: ClientFiles) -> None:
    """One order. Raises OSError without an answer, ProtocolError where the agent does not follow it."""
    status, _ = request_agent("POST", path, host, port, files, timeout_s=TELL_S)
    if status not in (200, _CONFLICT):  # in conflict with its state now: the loop sees what that is
        raise ProtocolError(f"{path} was answered {status}")


class LevelOrders:
    """Tells many agents at once; an order that an agent is being given is not given again meanwhile."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._pool = ThreadPoolExecutor(_TELLERS, thread_name_prefix="level")
        self._lock = threading.Lock()
        self._told: set[tuple[str, str]] = set()

    def park(self, agents: Iterable[Address]) -> None:
        """Have them give their weights' memory back; returns at once."""
        self._order(PATH_PARK, agents)

    def resume(self, agents: Iterable[Address]) -> None:
        """Have them load their weights again; returns at once."""
        self._order(PATH_RESUME, agents)

    def close(self) -> None:
        """Tell no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _order(self, path: str, agents: Iterable[Address]) -> None:
        for agent, host, port in agents:
            with self._lock:
                if (agent, path) in self._told:
                    continue
                self._told.add((agent, path))
            self._pool.submit(self._one, path, agent, host, port)

    def _one(self, path: str, agent: str, host: str, port: int) -> None:
        try:
            self._tell(path, host, port)
        except (OSError, ProtocolError) as error:
            log.info("agent %s did not follow %s: %s", agent, path, error)
        finally:
            with self._lock:
                self._told.discard((agent, path))

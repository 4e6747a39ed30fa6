"""Telling agents to be of another shape, over mutual TLS, each in a thread of its own.

An agent ends first what it was given, then loads its model again. One that does not follow is left as it is
for a while, and why is kept: telling it each second would keep it from serving.
"""

import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from agents.protocol import PATH_SHAPE, ProtocolError
from appliance.authority import ClientFiles
from appliance.control.ask import Address, request_agent
from appliance.policies.shapes import Shape

#: What was admitted may take as long as a request may, and a large model half a minute to load.
TELL_S: Final = 120.0
#: One that could not is not told again before.
AGAIN_S: Final = 600.0
_TELLERS: Final = 4
_MAX_WHY: Final = 300

log = logging.getLogger(__name__)

Tell = Callable[[str, int, Shape], None]


def tell_shape(host: str, port: int, shape: Shape, files: ClientFiles) -> None:
    """One order. Raises OSError without an answer, ProtocolError where the agent does not follow it."""
    body = json.dumps(shape.to_json()).encode()
    status, answer = request_agent("POST", PATH_SHAPE, host, port, files, timeout_s=TELL_S, body=body)
    if status == http.client.CONFLICT:
        return  # it loads, or leaves: the loop sees which, and tells it again
    if status != http.client.OK:
        raise ProtocolError(_why(status, answer))


def _why(status: int, answer: bytes) -> str:
    """In the agent's own words, where it has any."""
    try:
        message = str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the agent answered {status}"
    return "".join(one if one.isprintable() else " " for one in message)[:_MAX_WHY]


class ShapeOrders:
    """Tells many agents at once; one that is being told is not told again meanwhile."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._pool = ThreadPoolExecutor(_TELLERS, thread_name_prefix="shape")
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._failed: dict[str, tuple[float, str]] = {}

    def order(self, agents: Iterable[tuple[Address, Shape]]) -> None:
        """Have each be of that shape; returns at once."""
        for (agent, host, port), shape in agents:
            with self._lock:
                if agent in self._told:
                    continue
                self._told.add(agent)
            self._pool.submit(self._one, agent, host, port, shape)

    def in_hand(self) -> frozenset[str]:
        """Agents that are being told: that they are not ready is no fault of theirs."""
        with self._lock:
            return frozenset(self._told)

    def failures(self) -> Mapping[str, str]:
        """Agents that did not follow lately, and why."""
        now = self._clock()
        with self._lock:
            self._failed = {agent: why for agent, why in self._failed.items() if now - why[0] < AGAIN_S}
            return {agent: why for agent, (_, why) in self._failed.items()}

    def close(self) -> None:
        """Tell no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, agent: str, host: str, port: int, shape: Shape) -> None:
        why = ""
        try:
            self._tell(host, port, shape)
        except (OSError, ProtocolError) as error:
            why = str(error)[:_MAX_WHY] or type(error).__name__
            log.warning("agent %s did not take the shape %s: %s", agent, shape, why)
        except Exception as error:  # whatever it is, others must have their turn
            log.exception("agent %s could not be told its shape", agent)
            why = repr(error)[:_MAX_WHY]
        with self._lock:
            self._told.discard(agent)
            if why:
                self._failed[agent] = (self._clock(), why)
            else:
                self._failed.pop(agent, None)

"""Having agents measure themselves, over mutual TLS, in a thread: it takes seconds.

The agent takes itself out of rotation and comes back by itself, whatever becomes of us meanwhile. What it
answers is checked before it is believed.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.protocol import PATH_CALIBRATE, ProtocolError
from appliance.authority import ClientFiles
from appliance.control.ask import request_agent
from provisioning.errors import printable

log = logging.getLogger(__name__)

#: What it holds is finished first, then come some seconds of measuring, and loading in between.
MEASURE_S = 120.0

#: Beyond these a word is no measurement. An agent's own configuration accepts as much.
_MOST_WORKERS, _MOST_THREADS, _LARGEST_BATCH, _MOST_ADMITS = 256, 256, 1024, 100_000
_FASTEST, _SLOWEST_S = 1e9, 3600.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What an agent said, checked. `full_batch_size` and `full_rps` are 0 where an older one does not say."""

    workers: int
    threads: int
    batch_size: int
    capacity_rps: float
    default_rps: float
    tokens_per_s: float
    fixed_s: float
    per_token_s: float
    full_batch_size: int = 0
    full_rps: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a measurement ended: with figures, or with words why not."""

    agent: str
    measured: Measured | None
    error: str = ""


def fetch_measurement(host: str, port: int, files: ClientFiles) -> Measured:
    """Have an agent measure itself, and wait. Raises OSError, and ProtocolError where it gives no figures."""
    status, body = request_agent("POST", PATH_CALIBRATE, host, port, files, timeout_s=MEASURE_S)
    if status != 200:
        raise ProtocolError(_why(status, body))
    return parse_measured(body)


def parse_measured(body: bytes) -> Measured:
    """Check an agent's answer: what agents can be configured with, and speeds. Raises ProtocolError."""
    try:
        given = json.loads(body)
        measured = Measured(
            workers=_whole(given["workers"], _MOST_WORKERS),
            threads=_whole(given["threads"], _MOST_THREADS),
            batch_size=_whole(given["batch_size"], _LARGEST_BATCH),
            capacity_rps=_speed(given["capacity_rps"]),
            default_rps=_speed(given["default_rps"]),
            tokens_per_s=_speed(given["tokens_per_s"]),
            fixed_s=_seconds(given["fixed_s"]),
            per_token_s=_seconds(given["per_token_s"]),
            full_batch_size=_whole(given.get("full_batch_size", 0), _LARGEST_BATCH, least=0),
            full_rps=_speed(given.get("full_rps", 0.0)),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"measurement not understood: {error!r:.200}") from error
    batch_size = max(measured.batch_size, measured.full_batch_size)
    if (measured.workers + 1) * batch_size > _MOST_ADMITS:
        raise ProtocolError(f"{measured.workers} x batches of {batch_size} are more than an agent holds")
    if not measured.capacity_rps or not measured.fixed_s + measured.per_token_s:
        raise ProtocolError("it measured nothing")
    return measured


def _whole(value: Any, most: int, *, least: int = 1) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r:.40} is no whole number from {least} to {most}")
    return value


def _speed(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= _FASTEST:
        raise ValueError(f"{value!r:.40} is no speed")
    return round(float(value), 3)  # what two of them are to each other stays finite


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= _SLOWEST_S:
        raise ValueError(f"{value!r:.40} is no time of a batch")
    return float(value)


def _why(status: int, body: bytes) -> str:
    """The agent's own words, where it is an error of our shape."""
    if status == 404:
        return "its release cannot measure: upgrade the node"
    try:
        said: Mapping[str, Any] = json.loads(body)["error"]
        return printable(str(said["message"])[:300])
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"it answered {status}"


class Measurer:
    """Has one agent at a time measure itself; the outcome is there for a later tick."""

    def __init__(self, fetch: Callable[[str, int], Measured], *, longest_s: float = 2 * MEASURE_S) -> None:
        self._fetch = fetch
        self._longest_s = longest_s
        self._lock = threading.Lock()
        self._agent: str | None = None
        self._outcome: Outcome | None = None
        self._gives_up_at = math.inf

    @property
    def under_way(self) -> str | None:
        """The agent that measures itself now, or whose outcome nobody took yet."""
        return self._agent

    def begin(self, agent: str, host: str, port: int) -> None:
        """Start, unless one is under way; returns at once."""
        with self._lock:
            if self._agent is not None:
                return
            self._agent = agent
            self._gives_up_at = gives_up_at = time.monotonic() + self._longest_s
        given = (agent, host, port, gives_up_at)
        threading.Thread(target=self._run, args=given, name="measure", daemon=True).start()

    def take_outcome(self) -> Outcome | None:
        """How the last one ended, once. One whose answer comes byte by byte for too long has failed."""
        with self._lock:
            outcome, self._outcome = self._outcome, None
            if outcome is None and self._agent is not None and time.monotonic() > self._gives_up_at:
                outcome = Outcome(self._agent, None, f"no whole answer within {self._longest_s:.0f} s")
            if outcome is not None:
                self._agent = None
            return outcome

    def _run(self, agent: str, host: str, port: int, gives_up_at: float) -> None:
        try:
            outcome = Outcome(agent, self._fetch(host, port))
        except (OSError, ProtocolError) as error:
            outcome = Outcome(agent, None, str(error)[:300] or type(error).__name__)
        except Exception as error:  # whatever it is, the next one must have its turn
            log.exception("agent %s could not be measured", agent)
            outcome = Outcome(agent, None, repr(error)[:300])
        with self._lock:
            if time.monotonic() <= gives_up_at:
                self._outcome = outcome

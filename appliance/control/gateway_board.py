"""The newest word of each gateway, kept by one thread a gateway.

A `want` calls the loop at once, or soon where it tells of a queue. A gateway whose socket refuses is gone and
forgotten; one that is connected but says nothing is silent, which is something else.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from appliance.gateways import InnerMessage, find_sockets, read_messages
from appliance.policies.report import GatewayReport, GenerationEvent, WantEvent

#: A report that is older says nothing of now.
FRESH_S = 3.0
_SILENCE_S = 5.0
_LOOK_EVERY_S = 0.25
#: A held request that a gateway told of counts for so long; by then the gateway's report says it too.
_HELD_S = 3.0

log = logging.getLogger(__name__)

Read = Callable[..., Iterator[InnerMessage]]


@dataclass(frozen=True, slots=True)
class BoardView:
    """What is known of the gateways at one instant. `heard_since` is None where none is fresh."""

    reports: tuple[GatewayReport, ...]
    silent: tuple[str, ...]
    heard_since: float | None
    held: frozenset[str]


class GatewayBoard:
    """Thread-safe. Times are Unix seconds of this machine, given by the caller."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, tuple[float, GatewayReport]] = {}
        self._held: dict[str, float] = {}
        self._heard_since: float | None = None
        self._heard_at: float | None = None

    def hear(self, source: str, message: InnerMessage, now: float) -> bool:
        """Take in a message from the gateway at `source`; whether the loop should look at once."""
        with self._lock:
            if isinstance(message, GatewayReport):
                self._newest[source] = (now, message)
                # The clock may have been put back.
                if self._heard_at is None or not -1 <= now - self._heard_at <= FRESH_S:
                    self._heard_since = now
                self._heard_at = now
                return False
            if isinstance(message, WantEvent):
                if message.reason == "held":
                    self._held[message.deployment] = now
                return True
            return self._take_generation(source, message)

    def _take_generation(self, source: str, event: GenerationEvent) -> bool:
        if source in self._newest:
            at, report = self._newest[source]
            self._newest[source] = (at, replace(report, generation=event.generation))
        return False

    def lose(self, source: str) -> None:
        """The gateway at `source` is gone: it holds nothing any more."""
        with self._lock:
            self._newest.pop(source, None)

    def view(self, now: float) -> BoardView:
        """Everything as of `now`."""
        with self._lock:
            self._held = {name: at for name, at in self._held.items() if now - at < _HELD_S}
            fresh = tuple(report for at, report in self._newest.values() if now - at < FRESH_S)
            silent = tuple(report.gateway for at, report in self._newest.values() if now - at >= FRESH_S)
            return BoardView(fresh, silent, self._heard_since if fresh else None, frozenset(self._held))


class Listeners:
    """Threads that read every gateway's inner listener into a board."""

    def __init__(
        self,
        run_dir: Path,
        board: GatewayBoard,
        on_want: Callable[[], object],
        *,
        on_queue: Callable[[], object] | None = None,
        read: Read = read_messages,
    ) -> None:
        self._run_dir = run_dir
        self._board = board
        self._on_want, self._on_queue = on_want, on_queue or on_want
        self._read = read
        self._stop = threading.Event()
        self._threads: dict[Path, threading.Thread] = {}

    def run(self) -> None:
        """Look for gateways until `stop` is called; each new one gets its thread."""
        while not self._stop.is_set():
            for path in find_sockets(self._run_dir):
                if path not in self._threads or not self._threads[path].is_alive():
                    self._threads[path] = threading.Thread(
                        target=self._listen, args=(path,), name=f"listen-{path.stem}", daemon=True
                    )
                    self._threads[path].start()
            self._stop.wait(_LOOK_EVERY_S)

    def stop(self) -> None:
        """End the search; threads that wait for a gateway's word end with the process."""
        self._stop.set()

    def _listen(self, path: Path) -> None:
        """Follow one gateway until its connection ends; the search starts the next thread."""
        try:
            for message in self._read(path, silence_s=_SILENCE_S):
                if self._stop.is_set():
                    return
                if self._board.hear(path.stem, message, time.time()):
                    is_queue = isinstance(message, WantEvent) and message.reason == "queued"
                    (self._on_queue if is_queue else self._on_want)()
        except (ConnectionError, FileNotFoundError) as error:
            log.debug("gateway %s is gone: %s", path.stem, error)
            self._board.lose(path.stem)
        except (OSError, msgspec.DecodeError) as error:
            log.warning("gateway %s is not understood or silent: %s", path.stem, error)
        self._stop.wait(_LOOK_EVERY_S)

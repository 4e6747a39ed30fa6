"""One hub in the web process: reads the gateways, builds a snapshot a second, sends it to all viewers.

It runs only while somebody looks: the first viewer starts it, the last one ends it. Readers are
threads (one a gateway, as the inner listener is read blocking); the clock is a task on the web
server's loop, as the in-memory channel layer belongs to that loop.
"""

import asyncio
import json
import logging
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings

from appliance.fleet import REPORT_FRESH_S
from appliance.gateways import find_sockets, read_messages
from appliance.policies.report import GatewayReport
from dashboard.presenters import build_snapshot
from dashboard.rates import Trail, extend, measure
from dashboard.sources import read_overview_rows

GROUP = "overview"
MAX_VIEWERS = 200
PERIOD_S = 1.0
_SILENCE_S = 3.0
_RETRY_S = 0.5
_FIRST_REPORT_S = 0.5

logger = logging.getLogger(__name__)


class TooManyViewers(Exception):
    """The hub serves as many as it may."""


class GatewayReader:
    """A thread that keeps the trail of the gateway behind one inner socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trail: Trail = ()
        self.tried = threading.Event()  # whether it has heard something, or found nobody there
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"hub-{path.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; it does within the silence it bears."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with closing(read_messages(self.path, silence_s=_SILENCE_S)) as messages:
                    for message in messages:
                        if self._ended.is_set():
                            return
                        if isinstance(message, GatewayReport):
                            self.trail = extend(self.trail, message)
                            self.tried.set()
            except (OSError, msgspec.DecodeError) as error:
                logger.debug("gateway at %s: %s", self.path.name, error)
            self.tried.set()
            self._ended.wait(_RETRY_S)


class Hub:
    """Counts viewers and sends them snapshots. Used from the loop of the web server alone."""

    def __init__(self) -> None:
        self._viewers: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._readers: dict[Path, GatewayReader] = {}
        self._sequence = 0

    async def join(self, channel: str) -> None:
        """Add a viewer's channel; snapshots follow at once and then each second.

        Raises TooManyViewers.
        """
        if len(self._viewers) >= MAX_VIEWERS:
            raise TooManyViewers
        self._viewers.add(channel)
        await get_channel_layer().group_add(GROUP, channel)
        if self._task is None or self._task.done() or self._task.get_loop() is not asyncio.get_running_loop():
            self._task = asyncio.create_task(self._run())

    async def leave(self, channel: str) -> None:
        """Take a viewer's channel away; after the last one nothing is read any more."""
        self._viewers.discard(channel)
        await get_channel_layer().group_discard(GROUP, channel)
        if not self._viewers and self._task is not None:
            self._task.cancel()
            self._task = None
            for reader in self._readers.values():
                reader.stop()
            self._readers.clear()

    async def build(self) -> str:
        """The snapshot of this moment as JSON text, under the next sequence number."""
        await self._follow_sockets()
        now = time.time()
        rows = await database_sync_to_async(read_overview_rows)(now)
        trails = [reader.trail for reader in self._readers.values()]
        fresh = [trail for trail in trails if trail and now - trail[-1].at <= REPORT_FRESH_S]
        snapshot = build_snapshot(rows, [trail[-1] for trail in fresh], measure(fresh), now)
        self._sequence += 1
        return json.dumps({"seq": self._sequence, **snapshot}, separators=(",", ":"))

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            await self._send()
            await asyncio.sleep(max(0.05, PERIOD_S - (time.monotonic() - began)))

    async def _send(self) -> None:
        try:
            message: dict[str, Any] = {"type": "overview.snapshot", "text": await self.build()}
            await get_channel_layer().group_send(GROUP, message)
        except Exception:  # viewers see that snapshots stopped; the next second tries again
            logger.exception("no snapshot could be built")

    async def _follow_sockets(self) -> None:
        """A reader for each socket; a new one is given a moment to hear its gateway's first report."""
        present = set(find_sockets(settings.ENVIRONMENT.run_dir))
        for path in present - self._readers.keys():
            self._readers[path] = GatewayReader(path)
        for path in self._readers.keys() - present:
            self._readers.pop(path).stop()
        await asyncio.gather(
            *(asyncio.to_thread(r.tried.wait, _FIRST_REPORT_S) for r in self._readers.values())
        )


hub = Hub()

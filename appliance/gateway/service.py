"""A whole gateway but for its public port: routes, fleet, dispatcher, inner listener, and their clock."""

import asyncio
import logging
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time

from appliance.gateway.connection import ConnectionGuard, ConnectionLimits
from appliance.gateway.fleet import Fleet
from appliance.gateway.forward import Dispatcher
from appliance.gateway.inner import InnerListener
from appliance.gateway.limits import Keyring, MemoryBudget
from appliance.gateway.link import Credentials, Link, LinkTimings
from appliance.gateway.metrics import Scrape, report_agent, report_deployment
from appliance.gateway.routes import RouteFile, RoutingTable, watch_routes
from appliance.gateway.stats import GatewayStats
from appliance.gateway.watch import WATCH_S
from appliance.policies.report import GatewayReport, GenerationEvent, WantEvent

log = logging.getLogger(__name__)

TICK_S = 0.1
REPORT_S = 1.0


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """Bounds of a gateway. 16 MiB hold 2048 inputs of 512 long words each.

    `max_memory_bytes` bounds the bodies of all requests together, waiting ones included.
    """

    max_body_bytes: int = 16 * 1024 * 1024
    max_memory_bytes: int = 512 * 1024 * 1024
    open_metrics: bool = True
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    links: LinkTimings = field(default_factory=LinkTimings)


class Gateway:
    """Made inside the running loop. `start` it, serve `GatewayApp` on it, `close` it."""

    def __init__(
        self, name: str, routes: RouteFile, ca_dir: Path, limits: GatewayLimits | None = None
    ) -> None:
        self.name = name
        self.limits = limits or GatewayLimits()
        self.stats = GatewayStats()
        self.fleet = Fleet(self.stats)
        self.inner = InnerListener(self.report)
        self.dispatcher = Dispatcher(name, self.fleet, self.stats, self._want)
        self.keyring = Keyring()
        self.memory = MemoryBudget(self.limits.max_memory_bytes)
        self.guard = ConnectionGuard(self.limits.connections)
        self.scrape = Scrape(self.fleet, self.stats)
        self.stopping = False
        self._routes = routes
        self._started_at = time()
        self._tasks: list[asyncio.Task[None]] = []
        credentials = Credentials(ca_dir / "ca.pem", ca_dir / "gateway.pem", ca_dir / "gateway.key")
        self.fleet.connect = lambda route: Link(route, self.dispatcher, credentials, self.limits.links)

    async def start(self, inner_socket: socket.socket) -> None:
        """Take the routes there are, and begin to watch, to tick and to report."""
        await self.inner.start(inner_socket)
        table = self._routes.load_first()
        if table is not None:
            self._apply(table)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(watch_routes(self._routes, self._apply), name="routes"),
            loop.create_task(self._tick(), name="tick"),
            loop.create_task(self._watch(), name="watch"),
        ]

    async def close(self) -> None:
        """Let go of everything. Requests that are still here are answered with 503 first."""
        self.dispatcher.abandon_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.inner.send_report()
        self.inner.close()
        self.fleet.close()

    def not_ready_because(self) -> str | None:
        """Why no traffic should come here, None where it may."""
        if self.stopping:
            return "stopping"
        return None if self._routes.table else "no route snapshot yet"

    def report(self) -> GatewayReport:
        """Everything at this instant."""
        now = monotonic()
        table = self._routes.table
        return GatewayReport(
            gateway=self.name,
            pid=os.getpid(),
            started_at=self._started_at,
            at=time(),
            generation=table.generation if table else None,
            deployments=tuple(report_deployment(d, now) for d in self.fleet.deployments.values()),
            agents=tuple(report_agent(agent, now) for agent in self.fleet.agents.values()),
        )

    def _want(self, event: WantEvent) -> None:
        if event.reason == "queued":  # how many agents that asks for is decided by what is so now
            self.inner.send_report()
        self.inner.send_event(event)

    def _apply(self, table: RoutingTable) -> None:
        self.keyring.replace(table.keys, monotonic())
        self.dispatcher.apply(table)
        log.info("serving route snapshot %s/%d", table.generation.epoch, table.generation.number)
        self.inner.send_event(GenerationEvent(self.name, time(), table.generation))

    async def _tick(self) -> None:
        reported = monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = monotonic()
            try:
                self.dispatcher.tick(now)
                self.guard.sweep(now)
                if now - reported >= REPORT_S:
                    reported = now
                    self.inner.send_report()
            except Exception:
                log.exception("a tick failed")  # the next one must come all the same

    async def _watch(self) -> None:
        last = monotonic()
        while True:
            await asyncio.sleep(WATCH_S)
            now = monotonic()
            try:
                self.dispatcher.watch(now, paused_s=now - last - WATCH_S)
            except Exception:
                log.exception("a look at the agents failed")  # as above
            last = now

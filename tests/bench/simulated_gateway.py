"""A gateway that only reports: it reads routes as a real one does, and plays the load that changes.

`python -m tests.bench.simulated_gateway HOME`: until it is told to end.
"""

import math
import socket
import sys
import threading
import time
from dataclasses import dataclass, field, fields
from pathlib import Path

import msgspec

from appliance.inner_socket import bind_inner
from appliance.policies.report import (
    LATENCY_BUCKETS_S,
    AgentReport,
    DeploymentReport,
    GatewayReport,
    GenerationEvent,
    Histogram,
    LinkState,
    bucket_index,
)
from appliance.policies.snapshot import AgentRoute, RouteSnapshot, WantedRoute

#: How long an agent loads before it is ready, and how long one that leaves still has work.
LOAD_S, LEAVE_S = 2.0, 1.0
SERVICE_S = 0.5
#: Each deployment's concurrency swings about its mean by this part of it, once in so many seconds.
SWING, PERIOD_S = 0.15, 120.0
#: Mean concurrency of each deployment: what some 38 agents of 64 slots each are wanted for.
MEAN = 1850.0
#: Reports grow: what this version of them does not have is left out.
_FIELDS = frozenset(one.name for one in fields(DeploymentReport))
_LOOK_S = 0.05
_EVERY_S = 1.0


@dataclass(slots=True)
class _Counted:
    """A deployment's counters; `phase` shifts its swing against the others'."""

    phase: float
    accepted: float = 0.0
    concurrency_s: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))

    def concurrency(self, at: float) -> float:
        """Requests under way at a time."""
        return MEAN * (1 + SWING * math.sin(2 * math.pi * (at / PERIOD_S + self.phase)))


class SimulatedGateway:
    """Counters, agents as it sees them, and whoever listens."""

    def __init__(self, home: Path, now: float) -> None:
        self._routes_file = home / "routes.json"
        self._stamp = 0
        self._routes: RouteSnapshot | None = None
        self._since: dict[str, tuple[WantedRoute, float]] = {}
        self._counted: dict[str, _Counted] = {}
        self._began = self._at = now
        self._lock = threading.Lock()
        self._listeners: list[socket.socket] = []

    def listen(self, listener: socket.socket) -> None:
        """Take whoever connects, for ever."""
        listener.setblocking(True)
        while True:
            connection, _ = listener.accept()
            connection.settimeout(5.0)
            with self._lock:
                self._listeners.append(connection)

    def look(self, now: float) -> None:
        """Take newer routes, and say so."""
        try:
            stamp = self._routes_file.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self._routes = msgspec.json.decode(self._routes_file.read_bytes(), type=RouteSnapshot)
        first = not self._since
        seen = {}
        for agent in self._routes.agents:
            before = self._since.get(agent.id)
            same = before is not None and before[0] == agent.wanted
            seen[agent.id] = before if same and before else (agent.wanted, now - LOAD_S if first else now)
        self._since = seen
        self._tell(msgspec.json.encode(GenerationEvent("gateway-1", now, self._routes.generation)))

    def report(self, now: float) -> None:
        """A second has passed: count its requests, and tell."""
        routes = self._routes
        if routes is None:
            return
        own: dict[str, list[AgentRoute]] = {}
        for agent in routes.agents:
            own.setdefault(agent.deployment, []).append(agent)
        deployments, agents = [], []
        for number, route in enumerate(routes.deployments):
            counted = self._counted.setdefault(route.name, _Counted(number / len(routes.deployments)))
            there = own.get(route.name, [])
            deployments.append(self._count(route.name, counted, now))
            ready = sum(self._state(one, now) == "ready" for one in there)
            share = round(counted.concurrency(now) / max(1, ready))
            agents += [self._agent(one, share, now) for one in there]
        self._at = now
        whole = GatewayReport(
            "gateway-1", 1, self._began, now, routes.generation, tuple(deployments), tuple(agents)
        )
        self._tell(msgspec.json.encode(whole))

    def _count(self, name: str, counted: _Counted, now: float) -> DeploymentReport:
        span_s = now - self._at
        concurrency = counted.concurrency(now)
        counted.accepted += concurrency / SERVICE_S * span_s
        counted.concurrency_s += concurrency * span_s
        counted.buckets[bucket_index(SERVICE_S)] = int(counted.accepted)
        in_flight = round(concurrency)
        durations = Histogram(tuple(counted.buckets), counted.accepted * SERVICE_S)
        waits = Histogram((int(counted.accepted), *[0] * len(LATENCY_BUCKETS_S)), 0.0)
        known: dict[str, object] = {
            "name": name, "accepted": int(counted.accepted) + in_flight, "answered": int(counted.accepted),
            "failed": 0, "shed": 0, "cancelled": 0, "in_flight": in_flight, "queued": 0,
            "concurrency_s": counted.concurrency_s, "oldest_wait_s": 0.0,
            "tokens": int(counted.accepted) * 20, "duration": durations, "queue_wait": waits,
            "service_s": counted.accepted * SERVICE_S, "first_token": durations,
        }  # fmt: skip
        return DeploymentReport(**{key: known[key] for key in known if key in _FIELDS})  # type: ignore[arg-type]

    def _state(self, agent: AgentRoute, now: float) -> LinkState:
        wanted, since = self._since[agent.id]
        if wanted in ("draining", "parked"):
            return wanted
        return "ready" if now - since >= LOAD_S else "loading"

    def _agent(self, agent: AgentRoute, share: int, now: float) -> AgentReport:
        state, since = self._state(agent, now), self._since[agent.id][1]
        has = share if state == "ready" or (state == "draining" and now - since < LEAVE_S) else 0
        return AgentReport(
            id=agent.id, deployment=agent.deployment, node=agent.node, state=state, in_flight=has,
            sent=int(now), answered=int(now), failed=0, refused=0, load_age_s=0.5, executing=has, waiting=0,
            tokens_total=int(now) * 20, cpu_percent=50.0, node_cpu_percent=40.0, rss_bytes=150_000_000,
            node_available_bytes=8_000_000_000,
        )  # fmt: skip

    def _tell(self, line: bytes) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for one in listeners:
            try:
                one.sendall(line + b"\n")
            except OSError:
                with self._lock:
                    self._listeners.remove(one)


def main() -> None:
    """Report each second."""
    home = Path(sys.argv[1])
    gateway = SimulatedGateway(home, time.time())
    listener = bind_inner(home / "run", "gateway-1")
    threading.Thread(target=gateway.listen, args=(listener,), daemon=True).start()
    due = time.time() + _EVERY_S
    while True:
        time.sleep(_LOOK_S)
        now = time.time()
        gateway.look(now)
        if now >= due:
            gateway.report(now)
            due = max(due + _EVERY_S, now)


if __name__ == "__main__":
    main()

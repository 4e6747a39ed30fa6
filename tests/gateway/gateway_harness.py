"""A real gateway on a real port inside the test's loop, and a small HTTP client for it."""

import asyncio
import json
import socket
import time
from dataclasses import asdict
from hashlib import sha256
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from scripted_agent import ScriptedAgent

from appliance.gateway.routes import RouteFile
from appliance.gateway.server import build_server, serve
from appliance.gateway.service import Gateway, GatewayLimits
from appliance.inner_socket import bind_inner, connect_inner
from appliance.policies.snapshot import DeploymentRoute, Generation, KeyRoute, RouteSnapshot

KEY = "mw-test-key"
NAME = "gateway-1"


class Response(NamedTuple):
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json()["error"]


def deployment(**changes) -> DeploymentRoute:
    settings = {
        "name": "mini",
        "model": "minilm",
        "task": "embed",
        "revision": "r1",
        "created": 1700000000,
        "max_agents": 2,
        "deadline_s": 10.0,
    }
    return DeploymentRoute(**{**settings, **changes})


def key(text: str = KEY, **changes) -> KeyRoute:
    return KeyRoute(**{"sha256": sha256(text.encode()).hexdigest(), "name": text, "team": "t", **changes})


def embed_body(model: object = "mini", text: str = "hello") -> bytes:
    return json.dumps({"model": model, "input": text}).encode()


async def until(condition, timeout_s: float = 5.0):
    """Wait for a condition, which may be a coroutine function, with a bound."""
    end = time.monotonic() + timeout_s
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < end, f"not within {timeout_s} s: {condition}"
        await asyncio.sleep(0.01)


class Wire:
    """One client connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, piece: bytes):
        self.writer.write(piece)
        await self.writer.drain()

    async def receive(self) -> Response:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        first, *lines = head.decode().split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            if name:
                headers[name.lower()] = value
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Response(int(first.split()[1]), headers, body)

    async def at_end(self) -> bool:
        """Whether the gateway has closed the connection."""
        return await asyncio.wait_for(self.reader.read(), 10) == b""

    def close(self):
        self.writer.transport.abort()


def build_http(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    given = {"host": "gateway", "content-length": str(len(body)), **headers}
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in given.items() if value is not None),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class RunningGateway:
    """A gateway that serves, and what a test wants to do with it."""

    def __init__(self, home, limits: GatewayLimits | None = None, *, finish_s: float = 8.0):
        self.home = home
        self.limits = limits or GatewayLimits()
        self.finish_s = finish_s
        self.number = 0

    async def start(self):
        public = socket.create_server(("127.0.0.1", 0))
        self.port = public.getsockname()[1]
        run_dir = self.home / "run"
        inner = bind_inner(run_dir, NAME)
        kept = run_dir / f"{NAME}.routes.json"
        self.gateway = Gateway(
            NAME, RouteFile(self.home / "routes.json", kept), self.home / "ca", self.limits
        )
        self.server = build_server(self.gateway, finish_s=self.finish_s)
        self.task = asyncio.create_task(serve(self.gateway, self.server, public, inner))
        await until(lambda: self.server.started or self.task.done())
        return self

    async def stop(self):
        self.server.should_exit = True
        await asyncio.wait_for(self.task, 20)

    def publish(self, *agents, deployments=None, keys=None, epoch="first", number=None):
        """Write a route snapshot as the control plane does; each has the next number."""
        self.number = number if number is not None else self.number + 1
        snapshot = RouteSnapshot(
            generation=Generation(epoch, self.number),
            written_at=time.time(),
            deployments=tuple(deployments if deployments is not None else [deployment()]),
            agents=tuple(agent if not hasattr(agent, "route") else agent.route() for agent in agents),
            keys=tuple(keys if keys is not None else [key()]),
        )
        self.write_routes(json.dumps(asdict(snapshot)).encode())
        return snapshot.generation

    def write_routes(self, raw: bytes):
        fresh = self.home / "routes.new"
        fresh.write_bytes(raw)
        fresh.replace(self.home / "routes.json")

    @property
    def generation(self):
        table = self.gateway._routes.table
        return table.generation if table else None

    async def serve_by(self, *agents, **settings):
        """Publish, and wait until it is served and all its warm agents that live are ready."""
        generation = self.publish(*agents, **settings)
        await until(lambda: self.generation == generation)

    async def ready(self, *agents):
        await until(lambda: all(self.state(agent) == "ready" for agent in agents))

    def state(self, agent):
        found = self.gateway.fleet.agents.get(agent.id)
        return found.slots.link_state if found else None

    def stats(self, name="mini"):
        return self.gateway.fleet.deployments[name].stats

    async def until_accepted(self, count, name="mini"):
        """Wait until so many requests came in, and agents have read what could be sent to them."""
        await until(lambda: self.stats(name).accepted == count)
        await until(self._agents_have_all)

    def _agents_have_all(self):
        return all(
            not agent.link.up or (not agent.link._wire._out and _has_read(agent.slots))
            for agent in self.gateway.fleet.every_agent()
        )

    async def connect(self) -> Wire:
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, method="POST", path="/v1/embeddings", body=b"", text_key=KEY, **headers) -> Response:
        """One request on a connection of its own. A header set to None is not sent."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if text_key is not None:
            named.setdefault("authorization", f"Bearer {text_key}")
        if body:
            named.setdefault("content-type", "application/json")
        wire = await self.connect()
        try:
            await wire.send(build_http(method, path, named, body))
            return await wire.receive()
        finally:
            wire.close()

    async def embed(self, text="hello", **settings) -> Response:
        return await self.ask(body=embed_body(text=text), **settings)

    async def metrics(self) -> dict[str, float]:
        """Samples by name and label values: `name{a,b}`."""
        response = await self.ask("GET", "/metrics", text_key=None)
        assert response.status == 200
        samples = {}
        for family in text_string_to_metric_families(response.body.decode()):
            for sample in family.samples:
                labels = ",".join(sample.labels.values())
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    async def someone_waits(self):
        """Whether a request is queued, by the scrape."""
        return (await self.metrics())["millwright_queue_depth"] == 1

    async def inner(self):
        """A reader of the inner listener."""
        stream = connect_inner(self.home / "run", NAME)
        stream.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=stream)
        return InnerReader(reader, writer)

    async def assert_conserved(self):
        """Everything accepted has ended, is in flight or queued; and then nothing is left anywhere."""
        samples = await self.metrics()
        finished = sum(samples[f"millwright_finished_total{{{outcome}}}"] for outcome in
                       ("answered", "failed", "shed", "cancelled"))  # fmt: skip
        held = samples["millwright_in_flight"] + samples["millwright_queue_depth"]
        assert samples["millwright_accepted_total"] == finished + held
        fleet = self.gateway.fleet
        await until(lambda: fleet.active() == 0)
        assert fleet.calls_in_flight() == []
        assert fleet.calls_queued() == []
        assert [agent.slots.in_flight for agent in fleet.every_agent() if agent.slots.in_flight] == []
        assert all(d.stats.in_flight == 0 for d in fleet.deployments.values())
        await until(lambda: self.gateway.memory.held_bytes == 0)
        assert self.gateway.dispatcher._budget.under_way == 0


class InnerReader:
    """A reader of the inner listener's lines."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer

    async def line(self):
        """The next line, whatever it is."""
        async with asyncio.timeout(5):
            return json.loads(await self._reader.readline())

    async def next(self, kind: str, **fields):
        """The next line of this kind with these fields."""
        async with asyncio.timeout(5):
            while True:
                line = json.loads(await self._reader.readline())
                if line["kind"] == kind and all(line[name] == value for name, value in fields.items()):
                    return line

    def close(self):
        self._writer.transport.abort()


def _has_read(slots) -> bool:
    """Whether an agent has all that this gateway sent it; a frozen one never will, others cannot be asked."""
    agent = ScriptedAgent.known.get(slots.route.id)
    return agent is None or agent.frozen or len(agent.requests) >= slots.sent

"""An agent that does as it is told: real mutual TLS, real frames, no model."""

import asyncio
import datetime as dt
import itertools
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar
from weakref import WeakValueDictionary

from agents.protocol import (
    ALPN_LINK,
    PROTOCOL_VERSION,
    AgentState,
    Answer,
    Beat,
    FrameReader,
    Kind,
    LoadReport,
    Refusal,
    Request,
    build_answer,
    build_beat,
    build_frame,
    build_refusal,
    parse_pace,
    parse_request,
)
from appliance.policies.snapshot import AgentRoute
from provisioning.certificates import Authority, Issued


@dataclass(frozen=True)
class Hang:
    """Never answers."""


@dataclass(frozen=True)
class Die:
    """Cuts the connection without a word."""


@dataclass(frozen=True)
class Slowly:
    """Answers after a while, each request on its own."""

    seconds: float


HANG, DIE = Hang(), Die()

Act = Answer | Refusal | Hang | Die | Slowly
Script = Callable[[Request], Act]


def echo(request: Request) -> Answer:
    """Answers with what was asked, three tokens a time."""
    return Answer(200, 3, 0, 100, "application/json", request.body)


def fault(_request: Request) -> Answer:
    """Answers with 500 in the envelope."""
    body = json.dumps(
        {"error": {"message": "no", "type": "server_error", "param": None, "code": "server_error"}}
    )
    return Answer(500, 0, 0, 100, "application/json", body.encode())


def busy(_request: Request) -> Answer:
    """Answers at once that it is too busy."""
    return Answer(429, 0, 0, 100, "application/json", b'{"error": {"message": "busy"}}')


class ScriptedAgent:
    """Listens on a port of its own; `script` says what happens to each request.

    One that `beats` does so each 100 ms once it is told to, else it is as agents were before there were
    beats. A `frozen` one neither reads nor says anything.
    """

    #: All that are still held by somebody, by id.
    known: ClassVar[WeakValueDictionary[str, "ScriptedAgent"]] = WeakValueDictionary()
    _numbers = itertools.count(1)

    def __init__(
        self,
        authority: Authority,
        directory: Path,
        *,
        deployment: str = "mini",
        script: Script = echo,
        beats: bool = False,
    ):
        number = next(self._numbers)
        self.id = f"agent-{number}"
        self.known[self.id] = self
        self.deployment = deployment
        self.script = script
        self.state = AgentState.READY
        self.on_resume = AgentState.READY
        self.requests: list[Request] = []
        self.cancelled: list[int] = []
        self.resumes = 0
        self.port = 0
        self.heartbeat = True
        self.beats = beats
        self.beat = Beat(3, 1, 40, 90)
        self.paces: list[int] = []
        self.frozen = False
        self._issued = authority.issue_server(self.id, ["127.0.0.1"], dt.datetime.now(dt.UTC))
        self._context = _context(self._issued, authority, directory / self.id)
        self._server: asyncio.Server | None = None
        self._wires: set[_Wire] = set()

    async def start(self) -> "ScriptedAgent":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Wire(self), "127.0.0.1", self.port, ssl=self._context
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def kill(self):
        """As `kill -9` would: no more listening, every connection cut."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for wire in list(self._wires):
            wire.transport.abort()

    def freeze(self):
        """As SIGSTOP would, or a cable that is cut."""
        self.frozen = True

    def thaw(self):
        """What was sent to it meanwhile is read now."""
        self.frozen = False
        for wire in list(self._wires):
            unread, wire.unread = wire.unread, b""
            wire.data_received(unread)

    def set_state(self, state: AgentState):
        self.state = state
        for wire in self._wires:
            wire.send_load()

    def answer_hung(self):
        """Answer all that was left hanging."""
        self.answer_hung_with(echo)

    def answer_hung_with(self, script: Script):
        """Let a script say what all that was left hanging gets."""
        for wire in self._wires:
            wire.answer_hung(script)

    def refuse_hung(self):
        """Refuse all that was left hanging."""
        for wire in self._wires:
            hung, wire.hung = wire.hung, []
            for stream, _ in hung:
                wire.transport.write(build_refusal(stream, Refusal.FULL))

    @property
    def connections(self) -> int:
        return len(self._wires)

    def route(self, **changes) -> AgentRoute:
        route = AgentRoute(
            id=self.id,
            deployment=self.deployment,
            node="box",
            host="127.0.0.1",
            port=self.port,
            certificates=(self._issued.sha256,),
            wanted="warm",
            slots=4,
            ahead=2,
        )
        return replace(route, **changes)

    def load(self) -> LoadReport:
        return LoadReport(
            protocol=PROTOCOL_VERSION, agent=self.id, deployment=self.deployment, revision="r1",
            state=self.state, workers=1, batch_size=4, admits=6, executing=1, waiting=0,
            accepted_total=len(self.requests), answered_total=100, refused_total=0, sequences_total=0,
            tokens_total=7, body_bytes_total=0, busy_s_total=0.0, cpu_percent=12.5,
            node_cpu_percent=25.0, rss_bytes=1000, node_available_bytes=2000, uptime_s=1.0, beats=self.beats,
        )  # fmt: skip


class _Wire(asyncio.Protocol):
    def __init__(self, agent: ScriptedAgent):
        self.agent = agent
        self.reader = FrameReader()
        self.hung: list[tuple[int, Request]] = []
        self.beat = self.pulse = None
        self.unread = b""

    def connection_made(self, transport):
        self.transport = transport
        self.agent._wires.add(self)
        self._beat()

    def connection_lost(self, exc):
        self.agent._wires.discard(self)
        self.beat.cancel()
        if self.pulse:
            self.pulse.cancel()

    def _beat(self):
        if self.agent.heartbeat and not self.agent.frozen:
            self.send_load()
        self.beat = asyncio.get_running_loop().call_later(0.5, self._beat)

    def _pulse(self):
        if not self.agent.frozen:
            self.transport.write(build_beat(self.agent.beat))
        self.pulse = asyncio.get_running_loop().call_later(0.1, self._pulse)

    def send_load(self):
        self.transport.write(build_frame(Kind.LOAD, 0, self.agent.load().to_json()))

    def answer_hung(self, script):
        hung, self.hung = self.hung, []
        for stream, request in hung:
            self.transport.write(build_answer(stream, script(request)))

    def _answer_late(self, stream):
        for one, request in self.hung:
            if one == stream:
                self.hung.remove((stream, request))
                self.transport.write(build_answer(stream, echo(request)))
                return

    def data_received(self, piece):
        if self.agent.frozen:
            self.unread += piece
            return
        for kind, stream, payload in self.reader.feed(piece):
            if kind is Kind.REQUEST:
                self._act(stream, parse_request(payload))
            elif kind is Kind.CANCEL:
                self.agent.cancelled.append(stream)
                self.hung = [(s, r) for s, r in self.hung if s != stream]
            elif kind is Kind.PACE:
                assert self.agent.beats, "it would have broken off"
                self.agent.paces.append(parse_pace(payload))
                if self.pulse is None:
                    self._pulse()
            elif kind is Kind.RESUME:
                self.agent.resumes += 1
                self.agent.set_state(self.agent.on_resume)

    def _act(self, stream, request):
        self.agent.requests.append(request)
        act = self.agent.script(request)
        if isinstance(act, Answer):
            self.transport.write(build_answer(stream, act))
        elif isinstance(act, Refusal):
            self.transport.write(build_refusal(stream, act))
        elif isinstance(act, Slowly):
            self.hung.append((stream, request))
            asyncio.get_running_loop().call_later(act.seconds, self._answer_late, stream)
        elif isinstance(act, Hang):
            self.hung.append((stream, request))
        else:
            self.transport.abort()


def _context(issued: Issued, authority: Authority, directory: Path) -> ssl.SSLContext:
    directory.mkdir()
    for name, content in (
        ("cert.pem", issued.certificate_pem),
        ("key.pem", issued.key_pem),
        ("ca.pem", authority.certificate_pem),
    ):  # fmt: skip
        (directory / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    context.load_verify_locations(directory / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([ALPN_LINK, "http/1.1"])
    return context

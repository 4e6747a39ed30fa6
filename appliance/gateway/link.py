"""The gateway's end of the connection to one agent: kept up, checked, and written to sparingly."""

import asyncio
import hashlib
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Protocol, cast

from agents.protocol import (
    ALPN_LINK,
    PROTOCOL_VERSION,
    Answer,
    Beat,
    FrameReader,
    Kind,
    LoadReport,
    ProtocolError,
    Refusal,
    parse_answer,
    parse_beat,
    parse_refusal,
)
from appliance.policies.snapshot import AgentRoute

log = logging.getLogger(__name__)

#: What is read is taken out at once, so one buffer serves all links. Without one of ours each read would
#: allocate 256 KB and give it back: three system calls and a page fault for every answer.
_READ_BUFFER = memoryview(bytearray(256 * 1024))


@dataclass(frozen=True, slots=True)
class LinkTimings:
    """Bounds of a link, in seconds. The first `quick_attempts` follow each other `retry_s` apart."""

    connect_timeout_s: float = 2.0
    silent_s: float = 3.0
    retry_s: float = 0.05
    retry_max_s: float = 1.0
    quick_attempts: int = 40


class Credentials:
    """The TLS context with which this gateway opens agents, made anew when its files change."""

    def __init__(self, ca: Path, certificate: Path, key: Path) -> None:
        self._files = (ca, certificate, key)
        self._seen: tuple[int, ...] = ()
        self._context: ssl.SSLContext | None = None
        self._complaint = ""

    def context(self) -> ssl.SSLContext:
        """The context; the one before for as long as changed files cannot be used, half written perhaps.

        Raises OSError (ssl.SSLError is one) where there was none before.
        """
        try:
            seen = tuple(file.stat().st_mtime_ns for file in self._files)
            if self._context is None or seen != self._seen:
                self._context, self._seen = self._read(), seen
            self._complaint = ""
        except OSError as error:
            if self._context is None:
                raise
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("this gateway's certificate in use stays: %s", error)
        return self._context

    def _read(self) -> ssl.SSLContext:
        ca, certificate, key = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the certificate's digest in the snapshot says more than a name
        context.load_verify_locations(ca)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols([ALPN_LINK])
        return context


class LinkListener(Protocol):
    """Who is told what happens on links. All calls are synchronous and must not raise."""

    def link_spoke(self, link: "Link", load: LoadReport) -> None: ...

    def link_beat(self, link: "Link", beat: Beat) -> None: ...

    def link_answered(self, link: "Link", stream: int, answer: Answer) -> None: ...

    def link_refused(self, link: "Link", stream: int, reason: Refusal) -> None: ...

    def link_broke(self, link: "Link", why: str) -> None:
        """A link that had spoken is gone; a new one is on its way unless it was closed."""


class Link:
    """Keeps one connection to an agent, from `start` until `close`."""

    def __init__(
        self, route: AgentRoute, listener: LinkListener, credentials: Credentials, timings: LinkTimings
    ) -> None:
        self.route = route
        self._listener = listener
        self._credentials = credentials
        self._timings = timings
        self._wire: _Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._attempts = 0
        self._closing = False
        self._heard_at = 0.0
        self._complaint = ""

    def start(self) -> None:
        """Begin to connect; needs the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._keep(), name=f"link to {self.route.id}")

    def close(self) -> None:
        """End the connection and do not come back."""
        self._closing = True
        if self._wire is not None:
            self._wire.close()
        if self._task is not None:
            self._task.cancel()

    @property
    def up(self) -> bool:
        """Whether the agent is connected and has spoken."""
        return self._wire is not None and self._wire.spoken

    @property
    def beats(self) -> bool:
        """Whether the agent has spoken, and beats when it is told to."""
        return self._wire is not None and self._wire.beats

    @property
    def heard_at(self) -> float:
        """When something came from the agent last; without a connection, when it ended."""
        return self._heard_at if self._wire is None else self._wire.heard_at

    def send(self, frame: bytes, *, at_once: bool = False) -> None:
        """Write a frame, together with all others of this turn of the loop. Dropped where not `up`.

        `at_once`: the agent has nothing else to do, so it is not worth waiting for company.
        """
        if self._wire is not None:
            self._wire.send(frame, at_once=at_once)

    def hurry(self) -> None:
        """Somebody waits for this agent: try again soon, and often."""
        self._attempts = 0
        self._hurry.set()

    def check(self, now: float) -> None:
        """Break the connection off where the agent has been silent for too long."""
        wire = self._wire
        if wire is not None and now - wire.heard_at > self._timings.silent_s:
            wire.break_off(f"silent for {now - wire.heard_at:.1f} s")

    def forgive(self, paused_s: float, now: float) -> None:
        """This process itself stood still for so long: that is no silence of the agent."""
        if self._wire is not None:
            self._wire.heard_at = min(now, self._wire.heard_at + paused_s)

    async def _keep(self) -> None:
        while not self._closing:
            try:
                wire = await self._connect()
                await wire.gone
            except (OSError, TimeoutError, ProtocolError, ValueError) as error:  # no host name: the last
                self._complain(str(error) or type(error).__name__)
                if self._wire is not None:  # made in the very moment in which it was given up
                    self._wire.close()
            await self._pause()

    async def _connect(self) -> "_Wire":
        loop = asyncio.get_running_loop()
        timeout_s = self._timings.connect_timeout_s
        async with asyncio.timeout(timeout_s):
            _, wire = await loop.create_connection(
                lambda: _Wire(self),
                self.route.host,
                self.route.port,
                ssl=self._credentials.context(),
                ssl_handshake_timeout=timeout_s,
                ssl_shutdown_timeout=1.0,
            )
        return wire

    async def _pause(self) -> None:
        """Wait before the next attempt: evenly at first, for an agent that starts is there in a moment."""
        timings = self._timings
        over = self._attempts - timings.quick_attempts
        self._attempts += 1
        pause_s = timings.retry_s if over < 0 else min(timings.retry_max_s, timings.retry_s * 1.3**over)
        self._hurry.clear()
        try:
            async with asyncio.timeout(pause_s):
                await self._hurry.wait()
            await asyncio.sleep(timings.retry_s)
        except TimeoutError:
            pass

    def _complain(self, why: str) -> None:
        if why != self._complaint:  # the same trouble again and again is one line in the log
            self._complaint = why
            log.info("agent %s is not reached: %s", self.route.id, why[:300])

    # What the wire tells.

    def opened(self, wire: "_Wire") -> None:
        self._wire = wire

    def spoke(self, load: LoadReport) -> None:
        self._attempts = 0
        self._complaint = ""
        self._listener.link_spoke(self, load)

    def dispatch(self, kind: Kind, stream: int, payload: bytes) -> None:
        if not self.up:
            raise ProtocolError("its first frame is no load report")
        if kind is Kind.ANSWER:
            self._listener.link_answered(self, stream, parse_answer(payload))
        elif kind is Kind.BEAT:
            self._listener.link_beat(self, parse_beat(payload))
        elif kind is Kind.REFUSED:
            self._listener.link_refused(self, stream, parse_refusal(payload))
        else:
            raise ProtocolError(f"an agent does not send {kind.name}")

    def broke(self, wire: "_Wire", why: str) -> None:
        if self._wire is wire:
            self._wire, self._heard_at = None, wire.heard_at
        if wire.spoken:
            self._listener.link_broke(self, why)
        elif why:
            self._complain(why)


class _Wire(asyncio.BufferedProtocol):
    """One connection of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._out: list[bytes] = []
        self._why = ""
        self.spoken = self.beats = False
        self.heard_at = monotonic()
        self.gone: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        tls = self._transport.get_extra_info("ssl_object")
        shown = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
        named = self._link.route.certificates
        if shown not in named:
            self.break_off(f"it shows certificate {shown}, the snapshot names {', '.join(named) or 'none'}")
        elif tls.selected_alpn_protocol() != ALPN_LINK:
            self.break_off(f"it does not speak {ALPN_LINK}")
        else:
            self._link.opened(self)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return _READ_BUFFER

    def buffer_updated(self, size: int) -> None:
        if self._why:
            return
        self.heard_at = monotonic()
        try:
            for kind, stream, payload in self._reader.feed(_READ_BUFFER[:size]):
                if kind is Kind.LOAD:
                    self._hear_load(payload)
                else:
                    self._link.dispatch(kind, stream, payload)
        except ProtocolError as error:
            self.break_off(str(error))

    def _hear_load(self, payload: bytes) -> None:
        load = LoadReport.from_json(payload)
        if load.protocol != PROTOCOL_VERSION:
            raise ProtocolError(f"it speaks protocol {load.protocol}, this gateway {PROTOCOL_VERSION}")
        if load.agent != self._link.route.id:
            raise ProtocolError(f"it is agent {load.agent[:64]!r}")
        self.spoken, self.beats = True, load.beats
        self._link.spoke(load)

    def connection_lost(self, exc: Exception | None) -> None:
        why = self._why or (str(exc) if exc else "closed by the agent")
        self._transport = None
        self._link.broke(self, why)
        if not self.gone.done():
            self.gone.set_result(None)

    def send(self, frame: bytes, *, at_once: bool) -> None:
        if not self._out:
            if at_once and self._transport is not None:
                self._transport.write(frame)
                return
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._out) if len(self._out) > 1 else self._out[0])
        self._out.clear()

    def break_off(self, why: str) -> None:
        self._why = why
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        self._why = "closed"
        if self._transport is not None:
            self._transport.close()

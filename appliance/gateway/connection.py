"""One client's connection: uvicorn's protocol with the bounds that it lacks."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Protocol, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from appliance.gateway import errors
from appliance.gateway.errors import CLOSE, Header

log = logging.getLogger(__name__)

#: Under this name a request's scope holds its connection, in its state.
STATE_KEY: Final = "connection"

#: Connections over the bound are answered with 503; with so many more they are broken off.
_POLITE_REFUSALS: Final = 64


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of clients' connections. Headers and body have `slow_s` each, from their first byte."""

    max_connections: int = 8192
    slow_s: float = 10.0
    max_header_bytes: int = 64 * 1024
    max_discarded_bytes: int = 64 * 1024 * 1024


class HeadersTooLarge(errors.GatewayError):
    """The fields of a request's head are more than the limit."""


class ServesWhole(Protocol):
    """Who serves requests that need no task. `urls` are those it serves POSTs to, and their paths."""

    urls: Mapping[bytes, str]

    def serve_whole(
        self, connection: "GatewayConnection", path: str, fields: list[Header], body: bytes
    ) -> None:
        """Serve a request; its connection's `answer` is called once. Must not raise."""
        ...


class ConnectionGuard:
    """All open connections, the sweep that ends the slow ones, and who serves whole requests."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.connections: set[GatewayConnection] = set()
        self.whole: ServesWhole | None = None

    def sweep(self, now: float) -> None:
        """End what is overdue; to be called several times within `slow_s`."""
        slow_s = self.limits.slow_s
        for connection in list(self.connections):
            since = connection.reading_since
            if since is not None and now - since >= slow_s:
                connection.end_overdue()


class _Nobody:
    """Stands for the event that a task would wait for."""

    def set(self) -> None:
        """Nobody waits."""


class WholeCycle:
    """What stands for uvicorn's cycle while a request is served without a task of its own."""

    __slots__ = ("disconnected", "keep_alive", "path", "pieces", "response_complete")
    message_event = _Nobody()

    def __init__(self, path: str, *, keep_alive: bool) -> None:
        self.path = path
        self.keep_alive = keep_alive
        self.pieces: list[bytes] = []  # of the body: in one read may be thousands of chunks
        self.disconnected = self.response_complete = False


class GatewayConnection(HttpToolsProtocol):
    """A connection. `leave` is called once where the client goes before the answer is complete.

    A request that has come whole with one read is served at once where the guard knows by whom; others
    get a task each, which waits for their body within its bounds.

    A request that is answered before its body is read to the end keeps its connection: the rest
    is read and thrown away (up to a bound), for a client that still sends would lose an answer
    that is followed by a reset.
    """

    def __init__(
        self,
        guard: ConnectionGuard,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._guard = guard
        self._running: RequestResponseCycle | WholeCycle | None = None
        self._whole: WholeCycle | None = None  # begun, and so far whole
        self._in_headers = False
        self._declining = self._one_ended = False
        self._header_bytes = self._field_bytes = 0
        self._discarded_bytes = 0
        self.leave: Callable[[], None] | None = None
        self.body_overdue = False
        self.body_timeout_s = guard.limits.slow_s
        self.reading_since: float | None = monotonic()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        guard = self._guard
        over = len(guard.connections) - guard.limits.max_connections
        if over >= _POLITE_REFUSALS:
            transport.abort()
            return
        guard.connections.add(self)
        if over >= 0:
            self.app = _refuse_connection

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._guard.connections.discard(self)
        self.reading_since = None
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        leave, self.leave = self.leave, None
        if leave is not None:
            leave()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._one_ended = False
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            self._whole = None
            if isinstance(error.__context__, HeadersTooLarge):
                self._refuse_headers()
            else:
                self._answer_and_close(400, "this is no HTTP request that can be understood")
            return
        if self._whole is not None:
            self._give_task()
        if self._in_headers and not self._one_ended:  # all of it is head, perhaps of one endless field
            self._header_bytes += len(data)
            if self._header_bytes > self._guard.limits.max_header_bytes:
                self._refuse_headers()

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._decline_upgrade()
            else:
                return

    def _decline_upgrade(self) -> None:
        """Serve a request that offers another protocol as if it had not, as HTTP asks for.

        Java's client offers HTTP/2 with every first request. The parser stops behind such headers as
        if no body followed, so another one reads on, told only how the body is framed.
        """
        head = b"POST / HTTP/1.1\r\n"
        for name, value in self.headers:
            if name in (b"content-length", b"transfer-encoding"):
                head += b"%b: %b\r\n" % (name, value)
        self.parser = httptools.HttpRequestParser(self)
        self._declining = True
        self.parser.feed_data(head + b"\r\n")

    def end_overdue(self) -> None:
        """Headers or body took too long: 408 where the application waits for it, else just close."""
        cycle = self.cycle
        if self._in_headers or cycle is None or cycle.response_complete:
            self.transport.close()
        elif cycle is self._running:
            self.reading_since = None
            self.body_overdue = True
            cycle.message_event.set()

    async def respond(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Answer the request whose task is running, head and body in one write.

        It stands for two calls of ASGI's `send`, which cost a third of the gateway's time for a
        request. Names are in lower case; values must hold no control characters.
        """
        if self.flow.write_paused:
            await self.flow.drain()  # the client does not read what it has been sent
        cycle = self._running
        assert not isinstance(cycle, WholeCycle)
        if cycle is None or cycle.disconnected:
            return
        self._write(cycle, status, headers, body, head_only=cycle.scope["method"] == "HEAD")
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()

    def answer(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Answer the whole request that is served; as `respond`."""
        cycle = self._running
        if cycle is not None and not cycle.disconnected:
            self._write(cycle, status, headers, body, head_only=False)

    def _write(
        self,
        cycle: RequestResponseCycle | WholeCycle,
        status: int,
        headers: Sequence[Header],
        body: bytes,
        *,
        head_only: bool,
    ) -> None:
        parts = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if CLOSE in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"content-length: %d\r\n\r\n" % len(body), b"" if head_only else body)
        self.transport.write(b"".join(parts))
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    # What the parser tells.

    def on_message_begin(self) -> None:
        if self._declining:
            return
        self._unset_keepalive_if_required()  # set where the one before it in this read was answered at once
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self.reading_since = monotonic()
        self.body_overdue = False
        self._in_headers = True
        self._header_bytes = self._field_bytes = self._discarded_bytes = 0

    def on_url(self, url: bytes) -> None:
        if not self._declining:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # trailers come after the body: they must not stand for headers, nor pile up
            self._field_bytes += len(name) + len(value)
            if self._field_bytes > self._guard.limits.max_header_bytes:
                raise HeadersTooLarge
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._declining:
            self._declining = False
            return
        self._in_headers = False
        serves = self._guard.whole
        path = serves.urls.get(self.url) if serves is not None else None
        if path is not None and self._may_be_whole():
            self._whole = WholeCycle(path, keep_alive=self.parser.should_keep_alive())
            self.cycle = cast("Any", self._whole)
        else:
            self._begin_cycle()

    def _may_be_whole(self) -> bool:
        """Whether the request needs no task if the rest of it is here already."""
        cycle, parser = self.cycle, self.parser
        return (
            (cycle is None or cycle.response_complete)
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and not self.expect_100_continue
            and not parser.should_upgrade()
            and not self.flow.write_paused
            and self.app is self.config.loaded_app
        )

    def _begin_cycle(self) -> None:
        """Hand the request to uvicorn: a scope, a cycle, a task."""
        url, headers, expected = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expected
        self.scope["headers"] = headers
        self.scope["state"][STATE_KEY] = self
        super().on_headers_complete()

    def _give_task(self) -> None:
        """The rest of the body is on its way: a task waits for it."""
        whole, self._whole = self._whole, None
        assert whole is not None
        self.cycle = None  # type: ignore[assignment]  # as its base has it before the first request
        self._begin_cycle()
        if whole.pieces:
            super().on_body(b"".join(whole.pieces))

    def on_body(self, body: bytes) -> None:
        whole = self._whole
        if whole is not None:
            whole.pieces.append(body)
            return
        if self.cycle.response_complete:
            self._discarded_bytes += len(body)
            if self._discarded_bytes > self._guard.limits.max_discarded_bytes:
                self.transport.close()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # its body follows
        self._one_ended = True
        self.reading_since = None
        whole, self._whole = self._whole, None
        if whole is not None:
            self._running = whole
            assert self._guard.whole is not None
            pieces = whole.pieces
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._guard.whole.serve_whole(self, whole.path, self.headers, body)
            return
        if self.cycle is self._running:
            # A large body has paused the reading, and nobody asks for more: unread, a client that
            # leaves would not be noticed.
            self.flow.resume_reading()
        super().on_message_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # it does not read its answer: a close would wait for that
        else:
            super().timeout_keep_alive_handler()

    def _refuse_headers(self) -> None:
        limit_bytes = self._guard.limits.max_header_bytes
        self._answer_and_close(431, f"the headers are larger than {limit_bytes} bytes")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if self.reading_since is not None:
            self.reading_since = monotonic()  # a pipelined one was not read while it waited
        super()._start_asgi_task(cycle, app)

    def _answer_and_close(self, status: int, message: str) -> None:
        """Answer outside of the application: what came is no request that it could see."""
        self._in_headers = False
        body = errors.ApiError(status, message).body()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
            body
        )
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


async def _refuse_connection(_scope: Any, _receive: Any, send: Any) -> None:
    error = errors.too_many_connections()
    body = error.body()
    headers = [*error.headers(), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

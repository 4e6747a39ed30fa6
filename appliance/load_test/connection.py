"""One kept-alive HTTP/1.1 connection with at most one request under way.

Written on the transport itself: the generator shares its cores with what it measures, so a
request may cost it a few microseconds only.
"""

import asyncio
import ssl
from collections.abc import Awaitable
from time import perf_counter
from typing import Protocol

import httptools

from appliance.load_test.plan import Target


class ConnectFailed(Exception):
    """No connection was made; `cause` is the name under which the request is counted."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Listener(Protocol):
    """Who is told how a connection's requests end."""

    def answered(self, connection: "Connection", status: int) -> None: ...

    def lost(self, connection: "Connection", cause: str) -> None: ...


class Connection(asyncio.Protocol):
    """Tells its listener of each request exactly once `answered` or `lost`.

    `lost` is also told where the connection breaks while idle; `busy` is then False.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._cause = "closed"
        self.busy = False
        self.due_at = 0.0  # what the latency is counted from
        self.number = 0  # of the request
        self.used_at = perf_counter()
        self.alive = False
        self.reusable = True

    @property
    def served_by(self) -> str:
        """Who says to have made the last answer; '' where that is not looked at."""
        return ""

    def send(self, request: bytes, due_at: float, number: int) -> None:
        """Write the request `number`, due at `due_at`. The connection must be alive and not busy."""
        assert self._transport is not None
        self.busy = True
        self.due_at = due_at
        self.number = number
        self._transport.write(request)

    def close(self) -> None:
        """Close an idle connection; the listener is not told."""
        self.alive = False
        if self._transport is not None:
            self._transport.close()

    def give_up(self, cause: str) -> None:
        """Break the connection off; its request is lost for `cause`."""
        self._cause = cause
        if self._transport is not None:
            self._transport.abort()

    # asyncio tells these.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to send."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's is a Transport in all but name
        self.alive = True

    def data_received(self, piece: bytes) -> None:
        """Feed the parser, which calls `on_message_complete` at an answer's end."""
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserError:
            self.give_up("bad_answer")

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Tell the listener, unless the connection was closed by `close`."""
        if self.alive:
            self.alive = False
            self._listener.lost(self, self._cause)

    # httptools tells this.
    def on_message_complete(self) -> None:
        """An answer is whole."""
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue and the like: the answer itself follows
            return
        if not self.busy:
            self.give_up("bad_answer")
            return
        self.busy = False
        self.reusable = self._parser.should_keep_alive()
        self._listener.answered(self, status)


class AttentiveConnection(Connection):
    """One that reads an answer's headers too, which costs about a microsecond."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        self._served_by = b""

    @property
    def served_by(self) -> str:
        """The answer's `x-served-by`, '' without."""
        return self._served_by.decode("latin-1")

    def on_message_begin(self) -> None:
        """The next answer."""
        self._served_by = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of an answer."""
        if len(name) == 11 and name.lower() == b"x-served-by":
            self._served_by = value


async def open_connection(
    target: Target, listener: Listener, timeout_s: float, kind: type[Connection] = Connection
) -> Connection:
    """Connect, with TLS where the target has it. Raises ConnectFailed."""
    loop = asyncio.get_running_loop()
    connecting: Awaitable[tuple[object, Connection]] = loop.create_connection(
        lambda: kind(listener),
        target.host,
        target.port,
        ssl=target.context,
        server_hostname=target.host if target.context else None,
    )
    try:
        _, connection = await asyncio.wait_for(connecting, timeout_s)
    except TimeoutError:
        raise ConnectFailed("connect_timeout") from None
    except ConnectionRefusedError:
        raise ConnectFailed("refused") from None
    except (OSError, ssl.SSLError):
        raise ConnectFailed("connect_failed") from None
    return connection

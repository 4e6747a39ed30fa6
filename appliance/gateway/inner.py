"""The inner listener: a report each second and events at once, to each reader on the Unix socket."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import cast

import msgspec

from appliance.policies.report import GatewayReport, GenerationEvent, WantEvent

log = logging.getLogger(__name__)

MAX_READERS = 32
MAX_BUFFERED_BYTES = 1024 * 1024

_encoder = msgspec.json.Encoder()


class InnerListener:
    """Sends lines of JSON to all readers. One that does not keep up is dropped, and may come back."""

    def __init__(
        self, report: Callable[[], GatewayReport], max_buffered_bytes: int = MAX_BUFFERED_BYTES
    ) -> None:
        self._report = report
        self._max_buffered_bytes = max_buffered_bytes
        self._readers: set[_Reader] = set()
        self._server: asyncio.AbstractServer | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve readers on a bound Unix socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Reader(self), sock=listener)

    def close(self) -> None:
        """No more readers, and none of the present ones."""
        if self._server is not None:
            self._server.close()
        for reader in list(self._readers):
            reader.drop()

    def send_report(self) -> None:
        """Tell all readers how it stands."""
        if self._readers:
            self._broadcast(self._report())

    def send_event(self, event: WantEvent | GenerationEvent) -> None:
        """Tell all readers at once what happened."""
        self._broadcast(event)

    def joined(self, reader: "_Reader") -> None:
        if len(self._readers) >= MAX_READERS:
            reader.drop()
            return
        self._readers.add(reader)
        reader.write(_line(self._report()), self._max_buffered_bytes)

    def left(self, reader: "_Reader") -> None:
        self._readers.discard(reader)

    def _broadcast(self, what: GatewayReport | WantEvent | GenerationEvent) -> None:
        line = _line(what)
        for reader in list(self._readers):
            if not reader.write(line, self._max_buffered_bytes):
                log.warning("a reader of the inner listener does not keep up and is dropped")
                self._readers.discard(reader)


class _Reader(asyncio.Protocol):
    """One connection to the inner listener. What it sends is ignored."""

    def __init__(self, listener: InnerListener) -> None:
        self._listener = listener
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are no subclass of it
        self._listener.joined(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._listener.left(self)

    def write(self, line: bytes, max_buffered_bytes: int) -> bool:
        """Send a line; False where too much lies unread already, and the reader is dropped."""
        if self._transport is None or self._transport.get_write_buffer_size() > max_buffered_bytes:
            self.drop()
            return False
        self._transport.write(line)
        return True

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _line(what: GatewayReport | WantEvent | GenerationEvent) -> bytes:
    return _encoder.encode(what) + b"\n"

"""One kept-alive connection of the mixed load: it knows its request's kind, and reads error bodies."""

import asyncio
from typing import Any, Protocol

import httptools


class Listener(Protocol):
    """Who is told how a wire's requests end."""

    def answered(self, wire: "Wire", status: int) -> None: ...

    def lost(self, wire: "Wire", cause: str) -> None:
        """It broke, with a request under way or idle."""


class Wire(asyncio.Protocol):
    """At most one request is under way; `due_at` and `sent_at` are its times, `kind` what it is."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._cause = "closed"
        self.alive = self.busy = False
        self.reusable = True
        self.due_at = self.sent_at = self.used_at = 0.0
        self.kind: Any = None
        self.body = b""

    def send(self, request: bytes) -> None:
        """Write a request. The wire must be alive and not busy."""
        self.busy, self.body = True, b""
        self._transport.write(request)

    def close(self) -> None:
        """Close it; the listener is not told."""
        self.alive = False
        self._transport.close()

    def give_up(self, cause: str) -> None:
        """Break it off; its request is lost for `cause`."""
        self._cause = cause
        self._transport.abort()

    # asyncio tells these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.alive = transport, True

    def data_received(self, piece: bytes) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserError:
            self.give_up("bad_answer")

    def connection_lost(self, _error: Exception | None) -> None:
        if self.alive:
            self.alive = False
            self._listener.lost(self, self._cause)

    # httptools tells these.

    def on_body(self, piece: bytes) -> None:
        if self._parser.get_status_code() >= 400:
            self.body += piece

    def on_message_complete(self) -> None:
        if not self.busy:
            self.give_up("bad_answer")
            return
        self.busy = False
        self.reusable = self._parser.should_keep_alive()
        self._listener.answered(self, self._parser.get_status_code())

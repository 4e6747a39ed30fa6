"""The agent's side of a link: frames in, frames out, many requests at once over one connection."""

import asyncio
import logging
from typing import Any, Final

from agents.protocol import (
    Answer,
    FrameReader,
    Kind,
    LoadReport,
    ProtocolError,
    Refusal,
    build_answer,
    build_frame,
    build_refusal,
    parse_request,
)
from agents.service import AgentService, Ticket

logger = logging.getLogger(__name__)

#: Unsent bytes at which the link stops to read; it goes on when the other side has read most of them.
HIGH_WATER_BYTES: Final = 4 * 1024 * 1024


class LinkProtocol(asyncio.Protocol):
    """One gateway's connection.

    What is to be sent in one turn of the event loop is written at once. A gateway that does not
    read is not read from. A breach of the protocol closes this connection and no other.
    """

    def __init__(self, service: AgentService, connections: set[Any]) -> None:
        self._service = service
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._tickets: dict[int, Ticket] = {}
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._peer: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Speak first: the load report."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are no subclass
        transport.set_write_buffer_limits(HIGH_WATER_BYTES)  # type: ignore[attr-defined]  # as above
        self._peer = transport.get_extra_info("peername")
        self._connections.add(self)
        self._service.listeners.add(self.send_load)
        self.send_load(self._service.report())

    def connection_lost(self, _error: Exception | None) -> None:
        """The client of every request on this link has left."""
        self._transport = None
        self._connections.discard(self)
        self._service.listeners.discard(self.send_load)
        tickets, self._tickets = list(self._tickets.values()), {}
        for ticket in tickets:
            ticket.cancel()

    def eof_received(self) -> bool:
        """Half a connection is none."""
        return False

    def data_received(self, data: bytes) -> None:
        """Serve every frame that is complete."""
        try:
            for kind, stream, payload in self._reader.feed(data):
                self._serve(kind, stream, payload)
        except ProtocolError as error:
            logger.warning("link from %s closed: %s", self._peer, error)
            if self._transport is not None:
                self._transport.abort()

    def pause_writing(self) -> None:
        """The other side does not read: take no more from it."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The other side reads again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def shutdown(self) -> None:
        """Send what is left and close; the server calls this at its end."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def send_load(self, report: LoadReport) -> None:
        """Tell the other side how the agent is."""
        self._send(build_frame(Kind.LOAD, 0, report.to_json()))

    def _serve(self, kind: Kind, stream: int, payload: bytes) -> None:
        if kind is Kind.REQUEST:
            self._take(stream, payload)
        elif kind is Kind.CANCEL:
            ticket = self._tickets.pop(stream, None)
            if ticket is not None:  # else the answer is on its way already
                ticket.cancel()
        elif kind is Kind.RESUME:
            self._service.resume_soon()
        else:
            raise ProtocolError(f"{kind.name} frames come from agents only")

    def _take(self, stream: int, payload: bytes) -> None:
        if stream in self._tickets:
            raise ProtocolError(f"stream {stream} is in use")

        def reply(answer: Answer) -> None:
            self._tickets.pop(stream, None)
            self._send(build_answer(stream, answer))

        taken = self._service.submit(parse_request(payload), reply)
        if isinstance(taken, Refusal):
            self._send(build_refusal(stream, taken))
        elif not taken.settled:
            self._tickets[stream] = taken

    def _send(self, frame: bytes) -> None:
        if self._transport is None:
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(frame)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

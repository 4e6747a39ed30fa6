"""The agent's side of a link: frames in, frames out, many requests at once over one connection."""

import asyncio
import logging
from dataclasses import replace
from typing import Any, Final

from agents.batching import NEVER
from agents.errors import RequestError
from agents.protocol import (
    BUSY_BEAT_MS,
    MAX_FRAME_BYTES,
    Answer,
    FrameReader,
    Kind,
    LoadReport,
    ProtocolError,
    Refusal,
    build_answer,
    build_beat,
    build_frame,
    build_refusal,
    parse_pace,
    parse_request,
)
from agents.service import AgentService, Ticket

logger = logging.getLogger(__name__)

#: Unsent bytes at which the link stops to read; it goes on when the other side has read most of them.
HIGH_WATER_BYTES: Final = 4 * 1024 * 1024
BUSY_BEAT_S: Final = BUSY_BEAT_MS / 1000
#: A body over this fits into no frame.
MAX_ANSWER_BYTES: Final = MAX_FRAME_BYTES - 1024
#: What is read is taken out at once, so one buffer serves all links. Without one of ours each read would
#: allocate 256 KB and give it back: three system calls and a page fault for every request.
_READ_BUFFER: Final = memoryview(bytearray(256 * 1024))


class LinkProtocol(asyncio.BufferedProtocol):
    """One gateway's connection.

    What is to be sent in one turn of the event loop is written at once. A gateway that does not
    read is not read from. A breach of the protocol closes this connection and no other.
    Once told a pace it beats: a beat that is due goes with whatever is written, else alone.
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
        self._pace_s = 0.0  # 0: nobody has asked for beats
        self._beat_due = NEVER
        self._unread = False
        self._beat_timer: asyncio.TimerHandle | None = None

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
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        self._connections.discard(self)
        self._service.listeners.discard(self.send_load)
        tickets, self._tickets = list(self._tickets.values()), {}
        for ticket in tickets:
            ticket.cancel()

    def eof_received(self) -> bool:
        """Half a connection is none."""
        return False

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the next read goes."""
        return _READ_BUFFER

    def buffer_updated(self, size: int) -> None:
        """Serve every frame that is complete."""
        try:
            with self._service.turn:
                for kind, stream, payload in self._reader.feed(_READ_BUFFER[:size]):
                    self._serve(kind, stream, payload)
        except ProtocolError as error:
            logger.warning("link from %s closed: %s", self._peer, error)
            if self._transport is not None:
                self._transport.abort()

    def pause_writing(self) -> None:
        """The other side does not read: take no more from it."""
        self._unread = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The other side reads again."""
        self._unread = False
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
            self._service.model.resume_soon()
        elif kind is Kind.PACE:
            self._pace_s = parse_pace(payload) / 1000
            self._plan_beat(self._loop.time())
        else:
            raise ProtocolError(f"{kind.name} frames come from agents only")

    def _take(self, stream: int, payload: bytes) -> None:
        if stream in self._tickets:
            raise ProtocolError(f"stream {stream} is in use")

        def reply(answer: Answer) -> None:
            self._tickets.pop(stream, None)
            self._send(build_answer(stream, _sendable(answer)))

        taken = self._service.submit(parse_request(payload), reply)
        if isinstance(taken, Refusal):
            self._send(build_refusal(stream, taken))
        elif not taken.settled:
            if not self._tickets and self._pace_s > BUSY_BEAT_S:
                self._plan_beat(self._loop.time() + BUSY_BEAT_S)
            self._tickets[stream] = taken

    def _send(self, frame: bytes) -> None:
        if self._transport is None:
            return
        if not self._unsent:
            self._service.turn.put_off(self._flush)
        self._unsent.append(frame)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None and not self._transport.is_closing():
            now = self._loop.time()
            if now >= self._beat_due and not self._unread:
                unsent.append(build_beat(self._service.beat()))
                self._beat_due = now + (BUSY_BEAT_S if self._tickets else self._pace_s)
            self._transport.write(b"".join(unsent))

    def _plan_beat(self, due: float) -> None:
        """See to it that there is a beat by then."""
        self._beat_due = min(due, self._beat_due)
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        self._beat_timer = self._loop.call_at(self._beat_due, self._beat)

    def _beat(self) -> None:
        """A beat may be due, unless one went with an answer meanwhile."""
        now = self._loop.time()
        if now >= self._beat_due and self._transport is not None:
            self._beat_due = now + (BUSY_BEAT_S if self._tickets else self._pace_s)
            if not self._unread:
                self._send(build_beat(self._service.beat()))
        self._beat_timer = self._loop.call_at(self._beat_due, self._beat)


def _sendable(answer: Answer) -> Answer:
    """The answer, or that it is too large: the other side would break off the link, and ask another agent."""
    size = len(answer.body)
    if size <= MAX_ANSWER_BYTES:
        return answer
    error = RequestError(
        f"the answer has {size} bytes; at most {MAX_ANSWER_BYTES} can be sent: ask for less at once",
        code="answer_too_large",
    )
    return replace(answer, status=error.status, prompt_tokens=0, completion_tokens=0, body=error.to_body())

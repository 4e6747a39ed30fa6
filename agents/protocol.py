"""What a gateway and an agent say to each other. Standard library only.

A gateway keeps one connection to each agent: mutual TLS, ALPN `millwright/1`. On it both
sides send frames; many requests are under way at once, told apart by their stream number.
The same port answers plain HTTP (ALPN `http/1.1`) for direct use, tests and the control loop.

    frame   := length:u32 kind:u8 stream:u32 payload[length]        all big-endian
    REQUEST := deadline_ms:u32 path_len:u8 request_id_len:u8 path request_id body
    ANSWER  := status:u16 prompt_tokens:u32 completion_tokens:u32 processing_us:u32
               content_type_len:u8 content_type body
    REFUSED := reason:u8
    CANCEL, RESUME := (empty)
    LOAD    := load report, JSON (stream 0); the first frame of an agent is one
    BEAT    := executing:u16 waiting:u32 cpu_percent:u8 node_cpu_percent:u8 (stream 0)
    PACE    := interval_ms:u32 (stream 0)

An agent whose load report says `beats` sends a BEAT each `interval_ms` once a gateway has sent it
a PACE, and each BUSY_BEAT_MS while it has work of that gateway. Neither side sends these frames to one
that does not know them, so agents and gateways can be renewed in any order.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from enum import Enum, IntEnum
from typing import Final, NamedTuple

PROTOCOL_VERSION: Final = 1
ALPN_LINK: Final = "millwright/1"
ALPN_HTTP: Final = "http/1.1"

# Paths of an agent's HTTP side. The tasks' own paths (`/v1/embeddings`, ...) are the public API's.
PATH_EMBEDDINGS: Final = "/v1/embeddings"
PATH_HEALTH: Final = "/healthz"
PATH_READY: Final = "/readyz"
PATH_METRICS: Final = "/metrics"
PATH_LOAD: Final = "/load"
PATH_PARK: Final = "/park"
PATH_RESUME: Final = "/resume"
PATH_CALIBRATE: Final = "/calibrate"
PATH_SHAPE: Final = "/shape"

#: Which path serves a task: the gateway refuses others with 400, the agent with 404.
TASK_PATHS: Final = {"embed": PATH_EMBEDDINGS}

#: Names why an agent refused a request (its HTTP side; on a link the REFUSED frame says it).
HEADER_REFUSED: Final = "x-millwright-refused"
HEADER_REQUEST_ID: Final = "x-request-id"

#: The largest frame either side accepts; above it the connection is broken off.
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024

FRAME_HEADER: Final = struct.Struct("!IBI")
_REQUEST: Final = struct.Struct("!IBB")
_ANSWER: Final = struct.Struct("!HIIIB")
_BEAT: Final = struct.Struct("!HIBB")
_PACE: Final = struct.Struct("!I")

#: How often an agent with work beats, and the shortest interval a gateway may ask for.
BUSY_BEAT_MS: Final = 100


class Kind(IntEnum):
    """What a frame carries."""

    LOAD = 1
    REQUEST = 2
    ANSWER = 3
    REFUSED = 4
    CANCEL = 5
    RESUME = 6
    BEAT = 7
    PACE = 8


_KINDS: Final = {int(kind): kind for kind in Kind}


class Refusal(IntEnum):
    """Why an agent did not take a request. None of them is an error: the work goes elsewhere."""

    FULL = 1
    DRAINING = 2
    PARKED = 3
    LOADING = 4


class AgentState(str, Enum):  # StrEnum would need Python 3.11; nodes may have 3.10
    """What an agent says of itself."""

    LOADING = "loading"
    READY = "ready"
    PARKED = "parked"
    DRAINING = "draining"


class ProtocolError(Exception):
    """The other side sent what the protocol does not allow; the connection must be closed."""


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request on its way to an agent.

    `deadline_ms` is the time left when it was sent, 0 for none. `path` and `request_id` are at
    most 255 bytes.
    """

    deadline_ms: int
    path: str
    request_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """An agent's whole answer. `processing_us` runs from admission to the answer's last byte."""

    status: int
    prompt_tokens: int
    completion_tokens: int
    processing_us: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What an agent tells each second, and at once when its state changes.

    Totals only ever grow while the process lives, so a lost report loses nothing.
    `admits` is how many requests it holds at most, executing and waiting together. One that `beats`
    understands PACE. From `threads` on: what it runs with, and what it has learned from its own batches; one
    takes `fixed_s + per_token_s x tokens` (both 0: not known yet), in requests and tokens per second at most
    `capacity_rps` and `tokens_per_s`.
    """

    protocol: int
    agent: str
    deployment: str
    revision: str
    state: AgentState
    workers: int
    batch_size: int
    admits: int
    executing: int
    waiting: int
    accepted_total: int
    answered_total: int
    refused_total: int
    sequences_total: int
    tokens_total: int
    body_bytes_total: int
    busy_s_total: float
    cpu_percent: float
    node_cpu_percent: float
    rss_bytes: int
    node_available_bytes: int
    uptime_s: float
    beats: bool = False
    threads: int = 0
    engine: str = ""
    engine_version: str = ""
    batches_total: int = 0
    fixed_s: float = 0.0
    per_token_s: float = 0.0
    capacity_rps: float = 0.0
    tokens_per_s: float = 0.0

    def to_json(self) -> bytes:
        """The report as a JSON object with the names of the fields."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> "LoadReport":
        """Read a report; unknown names are ignored, so that a newer agent can say more.

        Raises ProtocolError where a name without a default is missing or the text is no JSON object.
        """
        try:
            given = json.loads(raw)
            known = {
                field.name: given[field.name]
                for field in fields(cls)
                if field.default is MISSING or field.name in given
            }
            known["state"] = AgentState(known["state"])
        except (ValueError, KeyError, TypeError) as error:
            raise ProtocolError(f"load report not understood: {error}") from error
        return cls(**known)


class Beat(NamedTuple):
    """What an agent tells ten times a second: requests, and percentages of all cores of its machine."""

    executing: int
    waiting: int
    cpu_percent: int
    node_cpu_percent: int


def build_frame(kind: Kind, stream: int, payload: bytes = b"") -> bytes:
    """One frame, ready to be written."""
    return FRAME_HEADER.pack(len(payload), kind, stream) + payload


def build_request(stream: int, request: Request) -> bytes:
    """A REQUEST frame. Raises ValueError where path or request id is longer than 255 bytes."""
    path, request_id = request.path.encode(), request.request_id.encode()
    if len(path) > 255 or len(request_id) > 255:
        raise ValueError("path and request id are at most 255 bytes each")
    head = _REQUEST.pack(request.deadline_ms, len(path), len(request_id))
    return build_frame(Kind.REQUEST, stream, b"".join((head, path, request_id, request.body)))


def build_answer(stream: int, answer: Answer) -> bytes:
    """An ANSWER frame."""
    content_type = answer.content_type.encode()
    head = _ANSWER.pack(
        answer.status, answer.prompt_tokens, answer.completion_tokens,
        min(answer.processing_us, 0xFFFF_FFFF), len(content_type),
    )  # fmt: skip
    return build_frame(Kind.ANSWER, stream, b"".join((head, content_type, answer.body)))


def build_refusal(stream: int, reason: Refusal) -> bytes:
    """A REFUSED frame."""
    return build_frame(Kind.REFUSED, stream, bytes((reason,)))


def build_beat(beat: Beat) -> bytes:
    """A BEAT frame; what is too large for its field is sent as the largest that fits."""
    executing, waiting, cpu, node_cpu = beat
    payload = _BEAT.pack(
        min(executing, 0xFFFF), min(waiting, 0xFFFF_FFFF),
        min(max(cpu, 0), 100), min(max(node_cpu, 0), 100),
    )  # fmt: skip
    return build_frame(Kind.BEAT, 0, payload)


def build_pace(interval_ms: int) -> bytes:
    """A PACE frame."""
    return build_frame(Kind.PACE, 0, _PACE.pack(interval_ms))


def parse_request(payload: bytes) -> Request:
    """The opposite of `build_request`, from a frame's payload. Raises ProtocolError."""
    try:
        deadline_ms, path_len, id_len = _REQUEST.unpack_from(payload)
        at = _REQUEST.size
        path = payload[at : at + path_len].decode()
        request_id = payload[at + path_len : at + path_len + id_len].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"request frame not understood: {error}") from error
    if len(payload) < at + path_len + id_len:
        raise ProtocolError("request frame ends early")
    return Request(deadline_ms, path, request_id, payload[at + path_len + id_len :])


def parse_answer(payload: bytes) -> Answer:
    """The opposite of `build_answer`, from a frame's payload. Raises ProtocolError."""
    try:
        status, prompt, completion, processing_us, type_len = _ANSWER.unpack_from(payload)
        content_type = payload[_ANSWER.size : _ANSWER.size + type_len].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"answer frame not understood: {error}") from error
    if len(payload) < _ANSWER.size + type_len:
        raise ProtocolError("answer frame ends early")
    body = payload[_ANSWER.size + type_len :]
    return Answer(status, prompt, completion, processing_us, content_type, body)


def parse_refusal(payload: bytes) -> Refusal:
    """The reason in a REFUSED frame's payload. Raises ProtocolError."""
    try:
        return Refusal(payload[0])
    except (IndexError, ValueError) as error:
        raise ProtocolError(f"refusal not understood: {payload[:16]!r}") from error


def parse_beat(payload: bytes) -> Beat:
    """The opposite of `build_beat`, from a frame's payload. Raises ProtocolError."""
    try:
        return Beat(*_BEAT.unpack(payload))
    except struct.error as error:
        raise ProtocolError(f"beat not understood: {payload[:16]!r}") from error


def parse_pace(payload: bytes) -> int:
    """The interval in a PACE frame's payload, at least BUSY_BEAT_MS. Raises ProtocolError."""
    try:
        (interval_ms,) = _PACE.unpack(payload)
    except struct.error as error:
        raise ProtocolError(f"pace not understood: {payload[:16]!r}") from error
    return max(int(interval_ms), BUSY_BEAT_MS)


class FrameReader:
    """Cuts a stream of bytes into frames, whatever the pieces it arrives in."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._max_frame_bytes = max_frame_bytes

    def feed(self, piece: bytes | memoryview) -> Iterator[tuple[Kind, int, bytes]]:
        """Yield (kind, stream, payload) of each frame that `piece` completes.

        Raises ProtocolError on an unknown kind or a frame over the limit; nothing may be fed
        after that.
        """
        buffer = self._buffer
        buffer += piece
        at, size = 0, FRAME_HEADER.size
        try:
            while len(buffer) - at >= size:
                length, kind, stream = FRAME_HEADER.unpack_from(buffer, at)
                if length > self._max_frame_bytes:
                    raise ProtocolError(
                        f"frame of {length} bytes; at most {self._max_frame_bytes} are accepted"
                    )
                known_kind = _KINDS.get(kind)
                if known_kind is None:
                    raise ProtocolError(f"frame of unknown kind {kind}")
                end = at + size + length
                if len(buffer) < end:
                    break
                payload = bytes(buffer[at + size : end])
                at = end
                yield known_kind, stream, payload
        finally:
            del buffer[:at]

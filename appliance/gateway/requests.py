"""What the gateway reads of a request: some headers, and `model` of the body. The rest passes through."""

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any, Final, Protocol

import msgspec

from appliance.gateway import errors
from appliance.gateway.errors import ApiError
from appliance.gateway.limits import MemoryBudget
from appliance.gateway.wait_queue import HIGH, LOW, NORMAL

Headers = Mapping[bytes, bytes]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]

_VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_MAX_DEADLINE_MS: Final = 24 * 3600 * 1000
_MAX_SESSION_BYTES: Final = 256
_PRIORITIES: Final = {b"high": HIGH, b"normal": NORMAL, b"low": LOW}


class _Head(msgspec.Struct):
    """A type that is not met is told before anything is made of it: 16 MB of lists would take a second."""

    model: str | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Head)


class BodySource(Protocol):
    """The connection that a body comes from: it knows when the body is overdue."""

    body_overdue: bool
    body_timeout_s: float


class RequestIds:
    """Makes request ids that no other gateway process makes."""

    def __init__(self) -> None:
        self._prefix = f"req-{os.urandom(8).hex()}-"
        self._numbers = count(1)

    def choose(self, given: bytes | None) -> str:
        """The client's own id where it is valid (1 to 128 of A-Z a-z 0-9 . _ -), else a new one."""
        if given is not None and _VALID_REQUEST_ID.fullmatch(given):
            return given.decode()
        return f"{self._prefix}{next(self._numbers):x}"


def check_content_type(headers: Headers) -> None:
    """Raises ApiError 415 where a content type is given that is not JSON."""
    given = headers.get(b"content-type")
    if given is None or given == b"application/json":
        return
    if given.split(b";", 1)[0].strip().lower() != b"application/json":
        raise errors.wrong_content_type(given.decode("latin-1"))


def read_deadline_s(headers: Headers, most_s: float) -> float:
    """Seconds until the request is worth nothing: what the client says, at most the deployment's."""
    given = headers.get(b"x-deadline-ms")
    if given is None:
        return most_s
    if not (given.isdigit() and len(given) < 12 and 1 <= int(given) <= _MAX_DEADLINE_MS):
        raise errors.bad_request(
            f"x-deadline-ms is {given[:50].decode('latin-1')!r}: "
            f"a number from 1 to {_MAX_DEADLINE_MS} is accepted",
            "x-deadline-ms",
        )
    return min(most_s, int(given) / 1000)


def read_priority(headers: Headers) -> int:
    """The class that the request waits in: what the client says, else normal. Raises ApiError 400."""
    given = headers.get(b"x-priority")
    if given is None:
        return NORMAL
    priority = _PRIORITIES.get(given)
    if priority is None:
        raise errors.bad_request(
            f"x-priority is {given[:50].decode('latin-1')!r}: high, normal or low is accepted", "x-priority"
        )
    return priority


def read_session(headers: Headers) -> bytes | None:
    """The session that the request belongs to, None where it names none. Raises ApiError 400."""
    given = headers.get(b"x-session")
    if given is not None and not 1 <= len(given) <= _MAX_SESSION_BYTES:
        raise errors.bad_request(
            f"x-session has {len(given)} bytes: 1 to {_MAX_SESSION_BYTES} are accepted", "x-session"
        )
    return given


async def read_body(
    headers: Headers, receive: Receive, source: BodySource, limit_bytes: int, budget: MemoryBudget
) -> bytes | None:
    """The whole body, None where the client left. The caller gives its bytes back to the budget.

    Raises ApiError: 413 over the limit (before the first byte, where the length is given), 408
    where it is overdue, 429 where the memory for bodies is used up.
    """
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and int(length) > limit_bytes:
        raise errors.body_too_large(limit_bytes)
    pieces: list[bytes] = []
    size = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            piece = message["body"]
            if size + len(piece) > limit_bytes:
                raise errors.body_too_large(limit_bytes)
            if not budget.take(len(piece)):
                raise errors.overloaded("the memory for requests is used up")
            size += len(piece)
            pieces.append(piece)
            if not message["more_body"]:
                size = 0  # the caller holds them now, and gives them back
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if source.body_overdue:
                raise errors.body_too_late(source.body_timeout_s)
    finally:
        budget.give_back(size)
    return None


def read_model(body: bytes) -> str:
    """The `model` of a body. Raises ApiError 400 naming what is wrong with it."""
    try:
        if not body.isascii():
            body.decode()
        head = _decoder.decode(body)
    except UnicodeDecodeError as error:
        raise errors.bad_request(
            f"the body is not valid UTF-8: {error.reason} at byte {error.start}"
        ) from None
    except msgspec.ValidationError as error:
        kind = _NOT_A_NAME.search(str(error))
        if kind is None:
            raise errors.bad_request("the body must be a JSON object") from None
        raise _bad_model(_JSON_KINDS.get(kind[1], kind[1])) from None
    except msgspec.DecodeError as error:
        raise errors.bad_request(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise errors.bad_request("the body is nested too deeply") from None
    model = head.model
    if model is msgspec.UNSET:
        raise errors.bad_request("'model' is missing: it names what GET /v1/models lists", "model")
    if not model:
        raise _bad_model("an empty string")
    return model


_NOT_A_NAME: Final = re.compile(r"got `(\w+)` - at `\$\.model`")
_JSON_KINDS: Final = {
    "bool": "a boolean", "int": "a number", "float": "a number", "array": "a list", "object": "an object",
    "null": "null",
}  # fmt: skip


def _bad_model(kind: str) -> ApiError:
    return errors.bad_request(f"'model' must be a non-empty string, not {kind}", "model")

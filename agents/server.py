"""The agent's HTTP side, plain ASGI: the API for direct use, probes, metrics, and the appliance's orders."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final

from agents.calibrate import Stopped
from agents.errors import BadTransition, ModelError, RequestError, too_large
from agents.load import render_metrics
from agents.protocol import (
    HEADER_REFUSED,
    HEADER_REQUEST_ID,
    PATH_CALIBRATE,
    PATH_HEALTH,
    PATH_LOAD,
    PATH_METRICS,
    PATH_PARK,
    PATH_READY,
    PATH_RESUME,
    PATH_SHAPE,
    AgentState,
    Answer,
    Refusal,
    Request,
)
from agents.service import JSON, MAX_BODY_BYTES, AgentService
from agents.shape import MAX_BODY_BYTES as MAX_SHAPE_BYTES
from agents.shape import parse_shape

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
HEADER_DEADLINE: Final = b"x-deadline-ms"
MAX_DEADLINE_MS: Final = 24 * 3600 * 1000


class ClientLeft(Exception):
    """The client closed its connection before its answer."""


class HttpSide:
    """Serves one `AgentService` over HTTP."""

    def __init__(self, service: AgentService) -> None:
        self._service = service
        self._own: dict[tuple[str, str], Callable[[], Awaitable[tuple[int, str, bytes]]]] = {
            ("GET", PATH_HEALTH): self._health,
            ("GET", PATH_READY): self._ready,
            ("GET", PATH_METRICS): self._metrics,
            ("GET", PATH_LOAD): self._load,
            ("POST", PATH_PARK): self._park,
            ("POST", PATH_RESUME): self._resume,
            ("POST", PATH_CALIBRATE): self._calibrate,
        }

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request; faults are answers too."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        try:
            status, content_type, body, more = await self._respond(scope, headers, receive)
        except ClientLeft:
            return
        except RequestError as error:
            status, content_type, body, more = error.status, JSON, error.to_body(), []
        except Exception:
            logger.exception("a request failed")
            fault = RequestError("the agent failed on this request", status=500, kind="server_error")
            status, content_type, body, more = 500, JSON, fault.to_body(), []
        request_id = headers.get(HEADER_REQUEST_ID.encode())
        if request_id is not None:
            more.append((HEADER_REQUEST_ID.encode(), request_id))
        start = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            *more,
        ]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body})

    async def _respond(
        self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[int, str, bytes, list[Header]]:
        method, path = scope["method"], scope["path"]
        own = self._own.get((method, path))
        if own is not None:
            return *(await own()), []
        if (method, path) == ("POST", PATH_SHAPE):
            return *(await self._shape(await _read_body(receive, headers, MAX_SHAPE_BYTES))), []
        allowed = [known for known, at in self._own if at == path] or ["POST"]
        if method not in allowed:
            raise RequestError(f"{path[:200]} takes {allowed[0]}, not {method}", status=405)
        body = await _read_body(receive, headers, MAX_BODY_BYTES)
        deadline_ms = _deadline_ms(headers)
        request = Request(deadline_ms, path, "", body)
        return await self._infer(request, receive)

    async def _infer(self, request: Request, receive: Receive) -> tuple[int, str, bytes, list[Header]]:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        taken = self._service.submit(request, lambda answer: _settle(answered, answer))
        if isinstance(taken, Refusal):
            return _refused(taken)
        left = asyncio.ensure_future(_wait_until_left(receive))
        either: set[asyncio.Future[Any]] = {answered, left}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                raise ClientLeft
        finally:
            left.cancel()
            taken.cancel()
        answer = answered.result()
        processing_ms = str(answer.processing_us // 1000).encode()
        return answer.status, answer.content_type, answer.body, [(b"openai-processing-ms", processing_ms)]

    async def _health(self) -> tuple[int, str, bytes]:
        return 200, JSON, b'{"status":"ok"}'

    async def _ready(self) -> tuple[int, str, bytes]:
        state = self._service.state
        return (200 if state is AgentState.READY else 503), JSON, _state_body(state)

    async def _metrics(self) -> tuple[int, str, bytes]:
        service = self._service
        text = render_metrics(service.report(), service.admission.refused_totals, service.counters)
        return 200, METRICS_TYPE, text.encode()

    async def _load(self) -> tuple[int, str, bytes]:
        return 200, JSON, self._service.report().to_json()

    async def _park(self) -> tuple[int, str, bytes]:
        return await self._change(self._service.model.park)

    async def _resume(self) -> tuple[int, str, bytes]:
        return await self._change(self._service.model.resume)

    async def _calibrate(self) -> tuple[int, str, bytes]:
        """Takes seconds: out of rotation until it is done, then one document of what was measured."""
        try:
            measured = await self._service.model.calibrate()
        except BadTransition as error:
            raise RequestError(str(error), status=409, code="bad_state") from error
        except (ModelError, Stopped) as error:
            raise RequestError(str(error), status=503, kind="server_error", code="not_measured") from error
        return 200, JSON, json.dumps(measured.to_json()).encode()

    async def _shape(self, body: bytes) -> tuple[int, str, bytes]:
        """The batch size at once; else as long as loading takes, out of rotation, whether or not we wait."""
        shape = parse_shape(body)
        try:
            return await self._change(partial(self._service.model.reshape, shape))
        except ModelError as error:
            raise RequestError(str(error), status=500, kind="server_error", code="not_loaded") from error

    async def _change(self, change: Callable[[], Awaitable[None]]) -> tuple[int, str, bytes]:
        try:
            await change()
        except BadTransition as error:
            raise RequestError(str(error), status=409, code="bad_state") from error
        return 200, JSON, _state_body(self._service.state)


def _settle(answered: "asyncio.Future[Answer]", answer: Answer) -> None:
    if not answered.done():
        answered.set_result(answer)


async def _read_body(receive: Receive, headers: dict[bytes, bytes], most: int) -> bytes:
    """The whole body. Raises RequestError where it is over the limit, ClientLeft."""
    said = headers.get(b"content-length", b"0")
    if said.isdigit() and int(said) > most:
        raise too_large(int(said), most)
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise too_large(size, most)
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)


async def _wait_until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _deadline_ms(headers: dict[bytes, bytes]) -> int:
    text = headers.get(HEADER_DEADLINE)
    if text is None:
        return 0
    if not text.isdigit() or not 1 <= int(text) <= MAX_DEADLINE_MS:
        raise RequestError(
            f"x-deadline-ms is {text[:40]!r}; 1 to {MAX_DEADLINE_MS} is accepted", param="x-deadline-ms"
        )
    return int(text)


def _refused(refusal: Refusal) -> tuple[int, str, bytes, list[Header]]:
    reason = refusal.name.lower()
    header = (HEADER_REFUSED.encode(), reason.encode())
    if refusal is Refusal.FULL:
        error = RequestError(
            "this agent is full; try again", status=429, kind="rate_limit_error", code="overloaded"
        )
    else:
        code = "model_loading" if refusal is Refusal.LOADING else "no_capacity"
        error = RequestError(f"this agent is {reason}", status=503, kind="server_error", code=code)
    return error.status, JSON, error.to_body(), [header, (b"retry-after", b"1")]


def _state_body(state: AgentState) -> bytes:
    return json.dumps({"state": state.value}).encode()

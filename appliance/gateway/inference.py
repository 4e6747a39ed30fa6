"""Inference requests: from headers and body to a call, and from its outcome to the answer.

A request that has come whole with one read is served at once and without a task (`serve_whole`); others come
through the ASGI application, which waits for their body (`serve`).
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Final, NamedTuple, Protocol

from agents.protocol import TASK_PATHS
from appliance.gateway import errors
from appliance.gateway.cache import DETERMINISTIC, build_key
from appliance.gateway.calls import Awaited, Call, ClientLeft, Deployment, Outcome
from appliance.gateway.connection import GatewayConnection
from appliance.gateway.errors import ApiError, Header
from appliance.gateway.limits import Key
from appliance.gateway.requests import (
    Headers,
    Receive,
    RequestIds,
    check_content_type,
    read_body,
    read_deadline_s,
    read_model,
    read_priority,
    read_session,
)
from appliance.gateway.service import Gateway
from appliance.gateway.stats import CODE_CLIENT_LEFT
from appliance.policies.snapshot import DeploymentRoute

log = logging.getLogger(__name__)

TASKS: Final = {path: task for task, path in TASK_PATHS.items()}


class Reply(NamedTuple):
    """What is sent to the client, but for the headers that every answer has."""

    status: int
    headers: Sequence[Header]
    body: bytes


class Inference:
    """What the application and the connections ask for inference requests."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.request_ids = RequestIds()
        self.urls: Mapping[bytes, str] = {path.encode(): path for path in TASKS}

    def authorize(self, headers: Headers, scope: str) -> Key:
        """The key of a request. Raises ApiError 401, or 403 where it is not for this."""
        authorization = headers.get(b"authorization")
        key = self._gateway.keyring.find(authorization)
        if key is None:
            if authorization is None:
                raise errors.bad_key("no API key: send it as 'Authorization: Bearer KEY'")
            raise errors.bad_key("this API key is not known; make one with create_key")
        if not key.may(scope):
            raise errors.missing_scope(scope)
        return key

    def find(self, model: str) -> Deployment:
        """The deployment that clients call so. Raises ApiError 404."""
        deployment = self._gateway.fleet.deployments.get(model)
        if deployment is None or not deployment.route.accepting:
            raise errors.unknown_model(model)
        return deployment

    def serve_whole(
        self, connection: GatewayConnection, path: str, fields: list[Header], body: bytes
    ) -> None:
        """Serve a POST to a task's path whose body is here; it is answered sooner or later, or now."""
        headers = dict(fields)
        whole = WholeRequest(self, connection, path, self.request_ids.choose(headers.get(b"x-request-id")))
        try:
            key = self.authorize(headers, "inference")
            check_content_type(headers)
            whole.hold(body, self._gateway)
            call = self._build_call(whole, key, headers, body, whole)
            connection.leave = partial(self._gateway.dispatcher.leave, call)
            self._gateway.dispatcher.submit(call, monotonic())
        except ApiError as error:
            whole.answer(refusal(error))
        except Exception:  # a fault of ours is an answer too
            log.exception("request %s failed", whole.request_id)
            if not whole.done():
                whole.answer(refusal(errors.server_error()))

    async def serve(
        self, connection: GatewayConnection, asked: "AsgiRequest", headers: Headers, receive: Receive
    ) -> Reply | None:
        """Check a request step by step, cheapest and safest first, and have it served.

        None where the client has left. Raises ApiError.
        """
        status = 500
        try:
            reply = await self._serve(connection, asked, headers, receive)
            status = CODE_CLIENT_LEFT if reply is None else reply.status
        except ApiError as error:
            status = error.status
            raise
        else:
            return reply
        finally:
            self.count(asked, status)

    async def _serve(
        self, connection: GatewayConnection, asked: "AsgiRequest", headers: Headers, receive: Receive
    ) -> Reply | None:
        if asked.method != "POST":
            raise errors.wrong_method(asked.method, "POST")
        gateway, dispatcher = self._gateway, self._gateway.dispatcher
        key = self.authorize(headers, "inference")
        check_content_type(headers)
        body = await read_body(headers, receive, connection, gateway.limits.max_body_bytes, gateway.memory)
        if body is None:
            return None
        try:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            call = self._build_call(asked, key, headers, body, future)
            dispatcher.submit(call, monotonic())
            connection.leave = partial(dispatcher.leave, call)
            try:
                outcome = await future
            finally:
                connection.leave = None
                dispatcher.leave(call)  # counts only where this task was cancelled
        finally:
            gateway.memory.give_back(len(body))
        return to_reply(outcome, asked.rate)

    def count(self, asked: "Asked", status: int) -> None:
        """Count an answer by its HTTP status."""
        self._gateway.stats.count_code(asked.deployment, TASKS[asked.path], status)

    def _build_call(self, asked: "Asked", key: Key, headers: Headers, body: bytes, outcome: Awaited) -> Call:
        """The call for a request; `asked` is told its deployment and rate. Raises ApiError."""
        deployment = self._find_for(read_model(body), TASKS[asked.path])
        route = deployment.route
        asked.deployment = route.name
        deadline_s = read_deadline_s(headers, route.deadline_s)
        priority = read_priority(headers)
        session = read_session(headers)
        if key.bucket is not None:
            asked.rate = self._take_rate(key, deployment)
        return Call(
            deployment,
            path=asked.path,
            request_id=asked.request_id,
            body=body,
            deadline_s=deadline_s,
            outcome=outcome,
            key=key.route.sha256,
            priority=priority,
            cache_key=_cache_key(route, key, asked.path, headers, body) if route.cache_bytes else None,
            session=session if route.sticky else None,
        )

    def _find_for(self, model: str, task: str) -> Deployment:
        deployment = self.find(model)
        if deployment.route.task != task:
            right = TASK_PATHS.get(deployment.route.task, "another path")
            raise errors.bad_request(
                f"the model {model!r} is for the task {deployment.route.task!r}: use {right}", "model"
            )
        return deployment

    def _take_rate(self, key: Key, deployment: Deployment) -> tuple[Header, ...]:
        """Take one of the key's requests per minute. Raises ApiError 429; returns what to tell the client."""
        assert key.bucket is not None
        now = monotonic()
        verdict = key.bucket.take(now)
        told = (
            (b"x-ratelimit-limit-requests", b"%d" % key.bucket.rpm),
            (b"x-ratelimit-remaining-requests", b"%d" % verdict.remaining),
            (b"x-ratelimit-reset-requests", b"%dms" % round(verdict.reset_s * 1000)),
        )
        if not verdict.allowed:
            self._gateway.dispatcher.shed(deployment, now)
            raise errors.rate_limited(key.bucket.rpm, verdict.wait_s, told)
        return told


class Asked(Protocol):
    """A request as it becomes known: `deployment` is '' until it is, `rate` tells the client of its key's."""

    path: str
    request_id: str
    deployment: str
    rate: tuple[Header, ...]


class AsgiRequest:
    """A request that came through the application."""

    __slots__ = ("deployment", "method", "path", "rate", "request_id")

    def __init__(self, method: str, path: str, request_id: str) -> None:
        self.method, self.path, self.request_id = method, path, request_id
        self.deployment = ""
        self.rate: tuple[Header, ...] = ()


class WholeRequest:
    """A request that is served without a task: the dispatcher sets its outcome, and that answers it."""

    __slots__ = (
        "_body",
        "_connection",
        "_done",
        "_gateway",
        "_inference",
        "_started",
        "deployment",
        "path",
        "rate",
        "request_id",
    )

    def __init__(
        self, inference: Inference, connection: GatewayConnection, path: str, request_id: str
    ) -> None:
        self._started = monotonic()
        self._inference, self._connection = inference, connection
        self.path, self.request_id = path, request_id
        self.deployment = ""
        self.rate: tuple[Header, ...] = ()
        self._gateway: Gateway | None = None
        self._body = b""
        self._done = False

    def hold(self, body: bytes, gateway: Gateway) -> None:
        """Count its body into the memory for requests. Raises ApiError 413 or 429."""
        if len(body) > gateway.limits.max_body_bytes:
            raise errors.body_too_large(gateway.limits.max_body_bytes)
        if not gateway.memory.take(len(body)):
            raise errors.overloaded("the memory for requests is used up")
        self._gateway, self._body = gateway, body

    def done(self) -> bool:
        """Whether it was answered, or its client has left."""
        return self._done

    def set_result(self, outcome: Outcome) -> None:
        """The dispatcher is done with it. Raises nothing: it has other calls to care for."""
        try:
            self.answer(to_reply(outcome, self.rate))
        except Exception:  # the dispatcher has other calls to care for
            log.exception("request %s could not be answered", self.request_id)
            self._connection.transport.abort()  # its client would wait for ever

    def answer(self, reply: Reply | None) -> None:
        """Send the answer, None where the client has left."""
        self._done = True
        if self._gateway is not None:
            self._gateway.memory.give_back(len(self._body))
            self._body = b""
        self._connection.leave = None
        self._inference.count(self, CODE_CLIENT_LEFT if reply is None else reply.status)
        if reply is not None:
            status, fields, body = reply
            self._connection.answer(status, (*fields, *trace(self.request_id, self._started)), body)


def trace(request_id: str, started: float) -> tuple[Header, Header]:
    """The headers that every answer has. `started` is in monotonic seconds."""
    return (
        (b"x-request-id", request_id.encode()),
        (b"openai-processing-ms", b"%d" % round((monotonic() - started) * 1000)),
    )


def refusal(error: ApiError) -> Reply:
    """The answer to a request that is refused."""
    return Reply(error.status, error.headers(), error.body())


def to_reply(outcome: Outcome, rate: tuple[Header, ...]) -> Reply | None:
    """The answer that an outcome stands for, None where the client has left."""
    if isinstance(outcome, ClientLeft):
        return None
    if isinstance(outcome, ApiError):
        return Reply(outcome.status, [*outcome.headers(), *rate], outcome.body())
    answer = outcome.answer
    if not 200 <= answer.status <= 599:
        return refusal(errors.server_error())  # HTTP has no such answer
    content_type = answer.content_type if answer.content_type.isprintable() else "application/octet-stream"
    return Reply(
        answer.status,
        (
            (b"content-type", content_type.encode("latin-1", "replace")),
            (b"x-served-by", outcome.served_by),
            *rate,
        ),
        answer.body,
    )


def _cache_key(route: DeploymentRoute, key: Key, path: str, headers: Headers, body: bytes) -> bytes | None:
    """What the request may share its answer by, None where it may not."""
    if route.task not in DETERMINISTIC or headers.get(b"x-no-cache", b"0") not in (b"0", b"false"):
        return None
    # Keys without a team have nothing to do with each other. No team's name is as long as a digest.
    team = "" if route.cache_shared else key.route.team or key.route.sha256
    return build_key(route.revision, path, team, body)

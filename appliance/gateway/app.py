"""The ASGI application: from a request to what the dispatcher needs, and its outcome to an answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Final, NamedTuple

import msgspec

from agents.protocol import TASK_PATHS
from appliance.gateway import errors
from appliance.gateway.cache import DETERMINISTIC, build_key
from appliance.gateway.calls import Call, ClientLeft, Deployment, Outcome
from appliance.gateway.connection import STATE_KEY, GatewayConnection
from appliance.gateway.errors import ApiError, Header
from appliance.gateway.limits import Key
from appliance.gateway.metrics import CONTENT_TYPE
from appliance.gateway.requests import (
    Headers,
    RequestIds,
    check_content_type,
    read_body,
    read_deadline_s,
    read_model,
    read_priority,
)
from appliance.gateway.service import Gateway
from appliance.gateway.stats import CODE_CLIENT_LEFT
from appliance.policies.snapshot import DeploymentRoute

log = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_TASKS: Final = {path: task for task, path in TASK_PATHS.items()}
_MODELS: Final = "/v1/models"
_JSON: Final[Header] = (b"content-type", b"application/json")


class Reply(NamedTuple):
    """What is sent to the client, but for the headers that every answer has."""

    status: int
    headers: list[Header]
    body: bytes


class Asked(NamedTuple):
    """A request as the handlers see it."""

    scope: Scope
    receive: Receive
    headers: Headers
    connection: GatewayConnection
    request_id: str


class GatewayApp:
    """Answers clients. Served by `GatewayConnection` only: it tells when a client leaves."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._request_ids = RequestIds()
        self._pages: dict[str, Callable[[Asked], Reply]] = {
            "/healthz": lambda _: Reply(200, [_JSON], b'{"status":"ok"}'),
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            _MODELS: self._models,
        }

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        """Handle one request."""
        connection: GatewayConnection = scope["state"][STATE_KEY]
        started = monotonic()
        headers: Headers = dict(scope["headers"])
        request_id = self._request_ids.choose(headers.get(b"x-request-id"))
        asked = Asked(scope, receive, headers, connection, request_id)
        try:
            reply = await self._reply(asked)
        except ApiError as error:
            reply = _refusal(error)
        except Exception:
            log.exception("request %s failed", request_id)
            reply = _refusal(errors.server_error())
        if reply is None:
            return
        status, fields, body = reply
        fields += (
            (b"x-request-id", request_id.encode()),
            (b"openai-processing-ms", b"%d" % round((monotonic() - started) * 1000)),
        )
        await connection.respond(status, fields, body)

    async def _reply(self, asked: Asked) -> Reply | None:
        """The answer to any request, None where the client has left."""
        path = asked.scope["path"]
        task = _TASKS.get(path)
        if task is not None:
            return await self._count_inference(task, asked)
        page = self._pages.get(path)
        if page is None and path.startswith(_MODELS + "/"):
            page = self._model
        if page is None:
            raise errors.unknown_path(path)
        if asked.scope["method"] not in ("GET", "HEAD"):
            raise errors.wrong_method(asked.scope["method"], "GET")
        return page(asked)

    # Inference.

    async def _count_inference(self, task: str, asked: Asked) -> Reply | None:
        named: list[Deployment] = []
        status = 500
        try:
            reply = await self._infer(task, asked, named)
            status = CODE_CLIENT_LEFT if reply is None else reply.status
        except ApiError as error:
            status = error.status
            raise
        else:
            return reply
        finally:
            name = named[0].route.name if named else ""
            self._gateway.stats.count_code(name, task, status)

    async def _infer(self, task: str, asked: Asked, named: list[Deployment]) -> Reply | None:
        """Check a request step by step, cheapest and safest first, and have it served.

        The deployment is put into `named` as soon as it is known.
        """
        if asked.scope["method"] != "POST":
            raise errors.wrong_method(asked.scope["method"], "POST")
        gateway, headers = self._gateway, asked.headers
        key = self._key(headers, "inference")
        check_content_type(headers)
        body = await read_body(
            headers, asked.receive, asked.connection, gateway.limits.max_body_bytes, gateway.memory
        )
        if body is None:
            return None
        try:
            deployment = self._find(read_model(body), task)
            named.append(deployment)
            deadline_s = read_deadline_s(headers, deployment.route.deadline_s)
            priority = read_priority(headers)
            rate = self._rate(key, deployment)
            call = Call(
                deployment,
                path=asked.scope["path"],
                request_id=asked.request_id,
                body=body,
                deadline_s=deadline_s,
                outcome=asyncio.get_running_loop().create_future(),
                key=key.route.sha256,
                priority=priority,
                cache_key=_cache_key(deployment.route, key, asked, body),
            )
            outcome = await self._serve(call, asked.connection)
        finally:
            gateway.memory.give_back(len(body))
        return _to_reply(outcome, rate)

    def _find(self, model: str, task: str) -> Deployment:
        deployment = self._accepting(model)
        if deployment.route.task != task:
            right = TASK_PATHS.get(deployment.route.task, "another path")
            raise errors.bad_request(
                f"the model {model!r} is for the task {deployment.route.task!r}: use {right}", "model"
            )
        return deployment

    def _rate(self, key: Key, deployment: Deployment) -> tuple[Header, ...]:
        """Take one of the key's requests per minute. Raises ApiError 429; returns what to tell the client."""
        if key.bucket is None:
            return ()
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

    async def _serve(self, call: Call, connection: GatewayConnection) -> Outcome:
        dispatcher = self._gateway.dispatcher
        dispatcher.submit(call, monotonic())
        connection.leave = lambda: dispatcher.leave(call)
        try:
            return await call.outcome
        finally:
            connection.leave = None
            dispatcher.leave(call)  # counts only where this task was cancelled

    def _key(self, headers: Headers, scope: str) -> Key:
        authorization = headers.get(b"authorization")
        key = self._gateway.keyring.find(authorization)
        if key is None:
            if authorization is None:
                raise errors.bad_key("no API key: send it as 'Authorization: Bearer KEY'")
            raise errors.bad_key("this API key is not known; make one with create_key")
        if not key.may(scope):
            raise errors.missing_scope(scope)
        return key

    # The other pages.

    def _readyz(self, _asked: Asked) -> Reply:
        missing = self._gateway.not_ready_because()
        if missing:
            return Reply(503, [_JSON], msgspec.json.encode({"status": missing}))
        return Reply(200, [_JSON], b'{"status":"ok"}')

    def _metrics(self, asked: Asked) -> Reply:
        if not self._gateway.limits.open_metrics:
            self._key(asked.headers, "metrics")
        return Reply(200, [(b"content-type", CONTENT_TYPE)], self._gateway.scrape.render())

    def _models(self, asked: Asked) -> Reply:
        self._key(asked.headers, "inference")
        deployments = self._gateway.fleet.deployments.values()
        found = [_describe(one) for one in deployments if one.route.accepting]
        return Reply(200, [_JSON], msgspec.json.encode({"object": "list", "data": found}))

    def _model(self, asked: Asked) -> Reply:
        self._key(asked.headers, "inference")
        name = asked.scope["path"][len(_MODELS) + 1 :]
        return Reply(200, [_JSON], msgspec.json.encode(_describe(self._accepting(name))))

    def _accepting(self, name: str) -> Deployment:
        deployment = self._gateway.fleet.deployments.get(name)
        if deployment is None or not deployment.route.accepting:
            raise errors.unknown_model(name)
        return deployment


def _describe(deployment: Deployment) -> dict[str, object]:
    route = deployment.route
    return {"id": route.name, "object": "model", "created": route.created, "owned_by": "millwright"}


def _cache_key(route: DeploymentRoute, key: Key, asked: Asked, body: bytes) -> bytes | None:
    """What the request may share its answer by, None where it may not."""
    if not route.cache_bytes or route.task not in DETERMINISTIC:
        return None
    if asked.headers.get(b"x-no-cache", b"0") not in (b"0", b"false"):
        return None
    team = "" if route.cache_shared else key.route.team
    return build_key(route.revision, asked.scope["path"], team, body)


def _refusal(error: ApiError) -> Reply:
    return Reply(error.status, error.headers(), error.body())


def _to_reply(outcome: Outcome, rate: tuple[Header, ...]) -> Reply | None:
    if isinstance(outcome, ClientLeft):
        return None
    if isinstance(outcome, ApiError):
        return Reply(outcome.status, [*outcome.headers(), *rate], outcome.body())
    answer = outcome.answer
    content_type = answer.content_type if answer.content_type.isprintable() else "application/octet-stream"
    headers = [
        (b"content-type", content_type.encode("latin-1", "replace")),
        (b"x-served-by", outcome.served_by),
        *rate,
    ]
    return Reply(answer.status, headers, answer.body)

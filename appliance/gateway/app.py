"""The ASGI application: inference requests whose body is on its way, and all other pages."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Final, NamedTuple

import msgspec

from appliance.gateway import errors
from appliance.gateway.calls import Deployment
from appliance.gateway.connection import STATE_KEY, GatewayConnection
from appliance.gateway.errors import ApiError, Header
from appliance.gateway.inference import TASKS, AsgiRequest, Inference, Reply, refusal, trace
from appliance.gateway.metrics import CONTENT_TYPE
from appliance.gateway.requests import Headers
from appliance.gateway.service import Gateway

log = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_MODELS: Final = "/v1/models"
_JSON: Final[Header] = (b"content-type", b"application/json")


class Asked(NamedTuple):
    """A request as the handlers see it."""

    scope: Scope
    receive: Receive
    headers: Headers
    connection: GatewayConnection
    request_id: str


class GatewayApp:
    """Answers clients. Served by `GatewayConnection` only: it tells when a client leaves."""

    def __init__(self, gateway: Gateway, inference: Inference) -> None:
        self._gateway = gateway
        self._inference = inference
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
        request_id = self._inference.request_ids.choose(headers.get(b"x-request-id"))
        try:
            reply = await self._reply(Asked(scope, receive, headers, connection, request_id))
        except ApiError as error:
            reply = refusal(error)
        except Exception:
            log.exception("request %s failed", request_id)
            reply = refusal(errors.server_error())
        if reply is not None:
            status, fields, body = reply
            await connection.respond(status, (*fields, *trace(request_id, started)), body)

    async def _reply(self, asked: Asked) -> Reply | None:
        """The answer to any request, None where the client has left."""
        path, method = asked.scope["path"], asked.scope["method"]
        if path in TASKS:
            request = AsgiRequest(method, path, asked.request_id)
            return await self._inference.serve(asked.connection, request, asked.headers, asked.receive)
        page = self._pages.get(path)
        if page is None and path.startswith(_MODELS + "/"):
            page = self._model
        if page is None:
            raise errors.unknown_path(path)
        if method not in ("GET", "HEAD"):
            raise errors.wrong_method(method, "GET")
        return page(asked)

    def _readyz(self, _asked: Asked) -> Reply:
        missing = self._gateway.not_ready_because()
        if missing:
            return Reply(503, [_JSON], msgspec.json.encode({"status": missing}))
        return Reply(200, [_JSON], b'{"status":"ok"}')

    def _metrics(self, asked: Asked) -> Reply:
        if not self._gateway.limits.open_metrics:
            self._inference.authorize(asked.headers, "metrics")
        return Reply(200, [(b"content-type", CONTENT_TYPE)], self._gateway.scrape.render())

    def _models(self, asked: Asked) -> Reply:
        self._inference.authorize(asked.headers, "inference")
        deployments = self._gateway.fleet.deployments.values()
        found = [_describe(one) for one in deployments if one.route.accepting]
        return Reply(200, [_JSON], msgspec.json.encode({"object": "list", "data": found}))

    def _model(self, asked: Asked) -> Reply:
        self._inference.authorize(asked.headers, "inference")
        name = asked.scope["path"][len(_MODELS) + 1 :]
        return Reply(200, [_JSON], msgspec.json.encode(_describe(self._inference.find(name))))


def _describe(deployment: Deployment) -> dict[str, object]:
    route = deployment.route
    return {"id": route.name, "object": "model", "created": route.created, "owned_by": "millwright"}

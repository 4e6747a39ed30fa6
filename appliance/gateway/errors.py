"""Answers that are not an agent's: the error envelope of the public API, and what fills it."""

from typing import Final

import msgspec

Header = tuple[bytes, bytes]

#: Tells the client that the connection ends with this answer.
CLOSE: Final[Header] = (b"connection", b"close")

_INVALID: Final = "invalid_request_error"
_SERVER: Final = "server_error"


class GatewayError(Exception):
    """Everything that the gateway raises on purpose."""


class ApiError(GatewayError):
    """A request that is answered with `{"error": {...}}`.

    `retry_after_s` (at most 60: clients ignore longer ones) and `should_retry` tell a client's
    SDK what to do; both are left unsaid where None.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = _INVALID,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        headers: tuple[Header, ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry
        self.extra_headers = headers

    def body(self) -> bytes:
        """The envelope as JSON."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    def headers(self) -> list[Header]:
        """All headers but those every answer has."""
        headers = [(b"content-type", b"application/json"), *self.extra_headers]
        if self.retry_after_s is not None:
            whole_s = max(1, min(60, -int(-self.retry_after_s // 1)))
            milliseconds = max(1, min(60_000, round(self.retry_after_s * 1000)))
            headers.append((b"retry-after", b"%d" % whole_s))
            headers.append((b"retry-after-ms", b"%d" % milliseconds))
        if self.should_retry is not None:
            headers.append((b"x-should-retry", b"true" if self.should_retry else b"false"))
        return headers


def bad_request(message: str, param: str | None = None) -> ApiError:
    """400: the body or a header is not what the API takes."""
    return ApiError(400, message, param=param)


def bad_key(message: str) -> ApiError:
    """401: no key, or one that is not known (any more)."""
    return ApiError(401, message, code="invalid_api_key", headers=((b"www-authenticate", b"Bearer"),))


def missing_scope(scope: str) -> ApiError:
    """403: the key is known, but not for this."""
    message = f"this API key lacks the scope {scope!r}; make one with create_key --scope {scope}"
    return ApiError(403, message, code="insufficient_scope")


def unknown_path(path: str) -> ApiError:
    """404 for a path that the gateway does not serve."""
    return ApiError(404, f"there is no {path[:200]!r} here; inference is under /v1/", code="not_found")


def unknown_model(model: str) -> ApiError:
    """404 for a model that no deployment has."""
    message = f"the model {model[:200]!r} does not exist; GET /v1/models lists those there are"
    return ApiError(404, message, code="model_not_found", param="model")


def wrong_method(method: str, allowed: str) -> ApiError:
    """405, naming what is allowed."""
    message = f"{method[:20]} is not allowed here; use {allowed}"
    return ApiError(405, message, code="method_not_allowed", headers=((b"allow", allowed.encode()),))


def body_too_late(timeout_s: float) -> ApiError:
    """408: the body did not arrive in time. The connection is closed after it."""
    message = f"the request's body did not arrive within {timeout_s:g} s"
    return ApiError(408, message, code="request_timeout", should_retry=False, headers=(CLOSE,))


def body_too_large(limit_bytes: int) -> ApiError:
    """413, naming the bound."""
    message = f"the request's body is larger than {limit_bytes} bytes, the most that is accepted"
    return ApiError(413, message, code="request_too_large", should_retry=False)


def wrong_content_type(given: str) -> ApiError:
    """415, naming what is accepted."""
    message = f"content-type {given[:100]!r} is not supported; send application/json"
    return ApiError(415, message, code="unsupported_media_type")


def rate_limited(rpm: int, wait_s: float, headers: tuple[Header, ...]) -> ApiError:
    """429: the key's requests per minute are used up."""
    return ApiError(
        429,
        f"this API key may make {rpm} requests per minute; the next is possible in {wait_s:.1f} s",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after_s=wait_s,
        should_retry=True,
        headers=headers,
    )


def overloaded(message: str, retry_after_s: float = 1.0) -> ApiError:
    """429: a bound of the gateway is reached; the same request may pass when it is tried again."""
    return ApiError(
        429, message, kind="overloaded_error", code="overloaded",
        retry_after_s=retry_after_s, should_retry=True,
    )  # fmt: skip


def server_error() -> ApiError:
    """500: a fault on our side; what it was stands in the log under the request's id."""
    message = "the request failed on our side; quote its x-request-id when you report it"
    return ApiError(500, message, kind=_SERVER, code="server_error")


def agents_broke(times: int) -> ApiError:
    """500: every agent that had the request lost its connection; it may be what breaks them."""
    message = f"the connection to an agent broke {times} times while it had this request"
    return ApiError(500, message, kind=_SERVER, code="server_error", should_retry=False)


def no_capacity(model: str, waited_s: float) -> ApiError:
    """503: no agent of the deployment became ready before the deadline."""
    return ApiError(
        503,
        f"no agent of {model!r} was ready within {waited_s:.1f} s",
        kind=_SERVER,
        code="no_capacity",
        retry_after_s=5.0,
        should_retry=True,
    )


def stopping() -> ApiError:
    """503: this gateway is going away and could not finish the request in time."""
    return ApiError(
        503,
        "this gateway is stopping",
        kind=_SERVER,
        code="no_capacity",
        retry_after_s=1.0,
        should_retry=True,
        headers=(CLOSE,),
    )


def too_many_connections() -> ApiError:
    """503: the bound on open connections is reached."""
    return ApiError(
        503,
        "too many connections are open",
        kind=_SERVER,
        code="overloaded",
        retry_after_s=1.0,
        should_retry=True,
        headers=(CLOSE,),
    )


def deadline_exceeded(deadline_s: float) -> ApiError:
    """504: agents there are, but none answered in time."""
    message = f"no answer within the request's deadline of {deadline_s:g} s"
    return ApiError(504, message, kind=_SERVER, code="deadline_exceeded", should_retry=False)

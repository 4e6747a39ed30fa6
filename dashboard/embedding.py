"""Asks the local gateway for embeddings, as any client would: over its REST API, with a key.

The key is called `playground`. It is made at first use in this process and kept in memory alone;
that of an earlier process is revoked then.
"""

import http.client
import json
import math
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from appliance.environment import Environment
from appliance.errors import VerbError
from appliance.gateways import wait_for_generation
from appliance.keys import create_key, revoke_key
from appliance.models import ApiKey

KEY_NAME = "playground"
_KEY_TEAM = "dashboard"
_ACTOR = "dashboard"
_DEADLINE_S = 30.0
_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class EmbeddingError(Exception):
    """No answer; the message tells people why and what to do."""


class _KeyRefused(EmbeddingError):
    """The gateway does not know the key."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two texts' embeddings beside each other. Times in milliseconds, `engine_ms` where it was told."""

    similarity: float
    tokens: int
    dimensions: int
    took_ms: float
    engine_ms: float | None
    served_by: str


def compare(deployment: str, first: str, second: str) -> Comparison:
    """Embed two texts in one request and take the cosine of the angle between them.

    Raises EmbeddingError.
    """
    try:
        return _compare(deployment, first, second, _key.get())
    except _KeyRefused:  # revoked by somebody, or the gateway has not seen it yet
        return _compare(deployment, first, second, _key.renew())


def _compare(deployment: str, first: str, second: str, key: str) -> Comparison:
    began = time.perf_counter()
    body = {"model": deployment, "input": [first, second], "encoding_format": "float"}
    answer, headers = _post(settings.ENVIRONMENT, "/v1/embeddings", body, key)
    took_ms = (time.perf_counter() - began) * 1000
    try:
        one, two = (entry["embedding"] for entry in sorted(answer["data"], key=lambda entry: entry["index"]))
        similarity, tokens = cosine(one, two), int(answer["usage"]["prompt_tokens"])
    except (KeyError, TypeError, ValueError) as error:
        raise EmbeddingError(f"The gateway's answer is not understood ({error}).") from error
    engine_ms = headers.get("openai-processing-ms", "")
    return Comparison(
        similarity, tokens, len(one), took_ms, float(engine_ms) if _is_number(engine_ms) else None,
        headers.get("x-served-by", ""),
    )  # fmt: skip


def cosine(one: list[float], two: list[float]) -> float:
    """The cosine of two vectors, -1 to 1. Raises ValueError where they do not compare."""
    length = math.hypot(*one) * math.hypot(*two)
    if not length:
        raise ValueError("a vector without length")
    product = sum(a * b for a, b in zip(one, two, strict=True))
    return max(-1.0, min(1.0, product / length))


class _Key:
    """The one key of this process."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._secret: str | None = None

    def get(self) -> str:
        with self._turn:
            if self._secret is None:
                self._secret = _make_key()
            return self._secret

    def renew(self) -> str:
        with self._turn:
            self._secret = _make_key()
            return self._secret


_key = _Key()


def _make_key() -> str:
    live = ApiKey.objects.filter(name=KEY_NAME, revoked_at__isnull=True).first()
    if live is not None and live.team != _KEY_TEAM:
        raise EmbeddingError(
            f"A key named {KEY_NAME!r} exists that is not the playground's own: revoke it under API keys."
        )
    try:
        if live is not None:
            revoke_key(KEY_NAME, actor=_ACTOR)
        created = create_key(KEY_NAME, team=_KEY_TEAM, actor=_ACTOR)
    except VerbError as error:
        raise EmbeddingError(f"The playground's key could not be made: {error}.") from error
    wait_for_generation(settings.ENVIRONMENT.run_dir, created.generation, timeout_s=5.0)
    return created.secret


def _post(
    environment: Environment, path: str, body: dict[str, Any], key: str
) -> tuple[dict[str, Any], dict[str, str]]:
    connection = _connection(environment)
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "x-deadline-ms": str(int(_DEADLINE_S * 1000)),
    }
    try:
        connection.request("POST", path, json.dumps(body).encode(), headers)
        response = connection.getresponse()
        raw = response.read(_MAX_ANSWER_BYTES)
        told = {name.lower(): value for name, value in response.getheaders()}
    except (OSError, http.client.HTTPException) as error:
        raise EmbeddingError(
            f"The gateway does not answer on port {environment.gateway_port} "
            f"({error or type(error).__name__}). Is `manage.py up` running?"
        ) from error
    finally:
        connection.close()
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = {}
    if response.status != http.HTTPStatus.OK:
        raise _explain(response.status, answer if isinstance(answer, dict) else {})
    return answer, told


def _connection(environment: Environment) -> http.client.HTTPConnection:
    where = (environment.reachable_host, environment.gateway_port)
    timeout_s = _DEADLINE_S + 5.0
    if environment.tls_certificate is None:
        return http.client.HTTPConnection(*where, timeout=timeout_s)
    # The appliance's own certificate is what we must be shown, whatever names and issuer it has.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(environment.tls_certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return http.client.HTTPSConnection(*where, timeout=timeout_s, context=context)


_IN_WORDS = {
    "model_not_found": "The gateway does not serve that deployment (any more).",
    "model_loading": "The model is still loading. Try again in a moment.",
    "no_capacity": "No agent could take the request in time: the deployment has none that is ready.",
    "overloaded": "The deployment's queue is full. Try again when load has gone down.",
    "deadline_exceeded": f"No answer within {_DEADLINE_S:.0f} s: too much load, or no agent that is ready.",
    "context_length_exceeded": "A text is too long for this model.",
}


def _explain(status: int, answer: dict[str, Any]) -> EmbeddingError:
    error = answer.get("error")
    told = error if isinstance(error, dict) else {}
    code, message = str(told.get("code") or ""), str(told.get("message") or "")[:300]
    if status == http.HTTPStatus.UNAUTHORIZED:
        return _KeyRefused("The gateway refuses the playground's key: it does not follow the control plane.")
    words = _IN_WORDS.get(code, "The gateway refused the request.")
    return EmbeddingError(f"{words} ({message or f'status {status}'})")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

"""How a refusal looks: always `{"error": {"message", "code", "hint"}}`, and never a secret in it."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from django.core.exceptions import RequestDataTooBig
from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse
from ninja.errors import AuthenticationError, HttpError, ValidationError
from pydantic import BaseModel

from appliance.enrolling import EnrolmentRefused
from appliance.errors import Conflict, VerbError

log = logging.getLogger(__name__)

#: What stands in these fields is never shown again, in whatever way it was wrong.
SECRET_FIELDS: Final = frozenset({"password", "private_key"})
_MAX_MESSAGE = 1000
_MAX_VALUE = 80
_MAX_MISTAKES = 10

_CODES: Final = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    411: "length_required",
    413: "too_large",
    415: "unsupported_media_type",
    500: "internal",
    502: "unreachable",
    503: "unavailable",
}
_WORDS: Final = {
    400: "the request is not understood",
    401: "no valid credential was given",
    403: "this is not allowed",
    404: "there is nothing at this path",
    405: "this path does not know that method",
    500: "the appliance failed to answer; its log says why",
}
_HINTS: Final = {
    401: "send `Authorization: Bearer KEY` with a key made by `create_key NAME --scope manage`, or log in",
    404: "/api/docs lists all paths",
    405: "the Allow header lists those it knows",
}


class Problem(BaseModel):
    """What went wrong: one line, a word for programs, and what to do (may be empty)."""

    message: str
    code: str
    hint: str


class ErrorAnswer(BaseModel):
    """Every refusal."""

    error: Problem


class ApiError(Exception):
    """Ends a request with this answer."""

    def __init__(self, status: int, message: str = "", *, code: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.hint = status, code, hint


def refusal(status: int, message: str = "", *, code: str = "", hint: str = "") -> JsonResponse:
    """The answer; what is left out is said in the words that go with the status."""
    error = Problem(
        message=(message or _WORDS.get(status, "the request was refused"))[:_MAX_MESSAGE],
        code=code or _CODES.get(status, "refused"),
        hint=(hint or _HINTS.get(status, ""))[:_MAX_MESSAGE],
    )
    answer = JsonResponse({"error": error.model_dump()}, status=status)
    if status == 401:
        answer["WWW-Authenticate"] = "Bearer"
    return answer


def answer_exception(request: HttpRequest, error: Exception) -> JsonResponse:
    """The refusal for whatever an operation raised."""
    match error:
        case ApiError():
            return refusal(error.status, str(error), code=error.code, hint=error.hint)
        case EnrolmentRefused():
            return refusal(409, str(error), code="" if error.code == "refused" else error.code)
        case VerbError():
            return refusal(409 if isinstance(error, Conflict) else 400, str(error))
        case ValidationError():
            return refusal(400, "; ".join(map(str, error.errors)))
        case AuthenticationError():
            return refusal(401)
        case _:
            return _answer_failure(error)


def _answer_failure(error: Exception) -> JsonResponse:
    match error:
        case HttpError():
            return refusal(error.status_code, str(error))
        case RequestDataTooBig():
            return refusal(413, "the body is too large")
        case DatabaseError():
            log.error("the database cannot be used: %s", error)
            return refusal(503, "the database cannot be used now", hint="try again; else see to the disk")
        case _:
            log.error("an operation failed", exc_info=error)
            return refusal(500)


def describe_mistakes(mistakes: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Each mistake that pydantic found, given with where it was (body, query, path), in one line."""
    return [_describe(source, mistake) for source, mistake in mistakes][:_MAX_MISTAKES]


def _describe(source: str, mistake: Mapping[str, Any]) -> str:
    where = [str(part) for part in mistake["loc"]]
    field = ".".join(where[1:] if source == "body" else where) or source
    field = "".join(letter if letter.isprintable() else " " for letter in field[:_MAX_VALUE])
    said = str(mistake["msg"])
    accepted = said[:1].lower() + said[1:]
    value = _shown(mistake, where)
    return f"{field}: {value} is not accepted: {accepted}" if value else f"{field}: {accepted}"


def _shown(mistake: Mapping[str, Any], where: list[str]) -> str:
    """The value in question; '' for what is missing, large, or may hold a secret."""
    given = mistake.get("input")
    if mistake["type"] in ("missing", "extra_forbidden") or not isinstance(given, str | int | float | bool):
        return ""
    if len(where) < 2 and mistake["type"] == "model_type":
        return ""
    return "" if SECRET_FIELDS.intersection(where) else ascii(given)[:_MAX_VALUE]

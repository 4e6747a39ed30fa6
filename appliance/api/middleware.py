"""What surrounds every request under `/api/`: bounds on bodies, and JSON also where Django would say HTML."""

from collections.abc import Awaitable, Callable
from typing import Final

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from appliance.api.errors import refusal

#: A private key of 64 KiB, doubled by escapes, fits with all else.
MAX_BODY_BYTES: Final = 256 * 1024
_JSON: Final = "application/json"

GetResponse = Callable[[HttpRequest], HttpResponseBase]


@sync_and_async_middleware
def json_alone(get_response: GetResponse) -> Callable[[HttpRequest], object]:
    """Refuse bodies that are not bounded JSON, and put every error under `/api/` in the one shape."""
    if iscoroutinefunction(get_response):
        answers: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = get_response

        async def surround_later(request: HttpRequest) -> HttpResponseBase:
            if not _is_ours(request):
                return await answers(request)
            return _finish(_refuse_body(request) or await answers(request))

        return surround_later

    def surround(request: HttpRequest) -> HttpResponseBase:
        if not _is_ours(request):
            return get_response(request)
        return _finish(_refuse_body(request) or get_response(request))

    return surround


def _is_ours(request: HttpRequest) -> bool:
    return request.path_info == "/api" or request.path_info.startswith("/api/")


def _refuse_body(request: HttpRequest) -> HttpResponseBase | None:
    length = request.META.get("CONTENT_LENGTH") or ""
    if not length and "Transfer-Encoding" in request.headers:
        return refusal(411, "a body without Content-Length is not accepted")
    if length and not (length.isascii() and length.isdigit() and len(length) < 16):
        return refusal(400, "Content-Length is no number")
    if int(length or 0) > MAX_BODY_BYTES:
        return refusal(413, f"a body of {length} bytes is not accepted: at most {MAX_BODY_BYTES} are")
    if int(length or 0) and request.content_type != _JSON:
        return refusal(415, f"Content-Type {str(request.content_type)[:80]!r} is not accepted: {_JSON} is")
    return None


def _finish(response: HttpResponseBase) -> HttpResponseBase:
    """Nothing is kept by caches; an error that is not JSON yet is told anew."""
    if response.status_code >= 400 and not response.get("Content-Type", "").startswith(_JSON):
        told = refusal(response.status_code)
        if response.has_header("Allow"):
            told["Allow"] = response["Allow"]
        response.close()
        response = told
    response["Cache-Control"] = "no-store"
    return response

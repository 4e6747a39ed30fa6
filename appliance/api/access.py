"""Who may do what: an API key of scope `manage` acts as an operator, a logged-in person by their role."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.http import HttpRequest
from ninja.security import HttpBearer
from ninja.security.base import AuthBase
from ninja.utils import check_csrf

from appliance.api.errors import ApiError
from appliance.keys import MANAGE
from appliance.models import ApiKey

#: For people who administer alone: no key has it.
ADMINISTER: Final = "auth.change_user"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; `actor` is what the audit log calls them."""

    actor: str


class ApiRequest(HttpRequest):
    """A request that was let in."""

    auth: Caller


class ApiKeyHeader(HttpBearer):
    """`Authorization: Bearer KEY`, the key being a live one of scope `manage`."""

    def __init__(self, permission: str) -> None:
        super().__init__()
        self.permission = permission

    def authenticate(self, _request: HttpRequest, token: str) -> Caller:
        """Raises ApiError where the key does not open this."""
        digest = hashlib.sha256(token.encode(errors="replace")).hexdigest()
        key = ApiKey.objects.filter(sha256=digest, revoked_at__isnull=True).first()
        if key is None:
            raise ApiError(401, "this API key is unknown or revoked", code="invalid_api_key")
        if MANAGE not in key.scopes:
            raise ApiError(
                403,
                f"this API key lacks the scope {MANAGE!r}",
                code="insufficient_scope",
                hint=f"make one with create_key NAME --scope {MANAGE}",
            )
        if self.permission == ADMINISTER:
            raise ApiError(403, "no API key may do this", hint="log in as somebody who administers")
        return Caller(f"key:{key.name}")


class Session(AuthBase):
    """The session of a person who is logged in; what changes something needs the CSRF token too."""

    openapi_type = "apiKey"
    openapi_in = "cookie"
    openapi_name = settings.SESSION_COOKIE_NAME
    csrf = True  # asked by ninja: its page then has a token to send

    def __init__(self, permission: str) -> None:
        super().__init__()
        self.permission = permission

    def __call__(self, request: HttpRequest) -> Caller | None:
        """None for a stranger. Raises ApiError for a person who may not do this."""
        if not request.user.is_authenticated:
            return None
        if check_csrf(request) is not None:
            raise ApiError(
                403,
                "the CSRF token is missing or wrong",
                code="csrf",
                hint="send the csrftoken cookie's value as X-CSRFToken, or use an API key",
            )
        if not (request.user.is_staff and request.user.has_perm(self.permission)):
            raise ApiError(403, "your role may not do this", hint="ask somebody who administers")
        return Caller(request.user.get_username())


def needs(permission: str) -> Sequence[Callable[[HttpRequest], Caller | None]]:
    """What lets a caller with this permission in, by key or by session."""
    return [ApiKeyHeader(permission), Session(permission)]

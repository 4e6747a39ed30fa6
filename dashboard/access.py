"""Who may see and do what: the one place that the pages, the websocket and the admin ask."""

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import add_never_cache_headers

VIEW_PERMISSION = "appliance.view_deployment"

View = Callable[..., HttpResponseBase]


def may_look(user: Any) -> bool:
    """Whether a user (also an anonymous one) may see the overview and use the playground."""
    return bool(user.is_active and user.is_staff and user.has_perm(VIEW_PERMISSION))


def is_partial(request: HttpRequest) -> bool:
    """Whether a page that is already open asks for a part of itself."""
    return request.headers.get("HX-Request") == "true"


def needs(permission: str) -> Callable[[View], View]:
    """Guard a page: strangers are sent to log in, who may not is refused, and no answer is kept anywhere."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                if is_partial(request):
                    return HttpResponse(headers={"HX-Redirect": f"/?{urlencode({'next': request.path})}"})
                return redirect_to_login(request.path, "/")
            if not (may_look(request.user) and request.user.has_perm(permission)):
                raise PermissionDenied
            response = view(request, *args, **kwargs)
            add_never_cache_headers(response)
            return response

        return guarded

    return decorate

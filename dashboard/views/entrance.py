"""Coming in and going out."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.utils.cache import add_never_cache_headers
from django.views import View

from dashboard.forms.entrance import ThrottledLoginForm


class EntranceView(LoginView):
    """The log-in page at `/`."""

    authentication_form = ThrottledLoginForm
    template_name = "dashboard/login.html"
    redirect_authenticated_user = False

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """With what the theme's templates expect."""
        return {
            **super().get_context_data(**kwargs),
            **admin.site.each_context(self.request),
            "title": "Log in",
        }


class AdminLoginView(View):
    """Sends whoever the admin sends to log in to the one log-in page, and back afterwards."""

    def dispatch(self, request: HttpRequest, *_: Any, **__: Any) -> HttpResponse:
        query = urlencode({"next": request.GET.get("next", "/")})
        response = HttpResponseRedirect(f"/?{query}")
        add_never_cache_headers(response)
        return response


class LeaveView(LogoutView):
    """Logs out and shows the log-in page. POST alone."""

    next_page = "/"


def enter(request: HttpRequest) -> HttpResponseBase:
    """The log-in page, for another view to show in its place."""
    return EntranceView.as_view()(request)

"""Where the control plane's pages are."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from appliance.api.app import api


def health(_request: HttpRequest) -> HttpResponse:
    """Tell that the process answers."""
    return HttpResponse("ok\n", content_type="text/plain")


urlpatterns = [
    path("healthz", health),
    path("", include("dashboard.urls")),
    path("admin/", admin.site.urls),
    path("api/", api.urls),
]

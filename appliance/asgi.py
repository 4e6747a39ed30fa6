"""The control plane as one ASGI application: static files, pages and websockets."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, WebsocketDenier
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "appliance.settings")
_pages = get_asgi_application()  # sets Django up; what follows needs the app registry

from django.conf import settings  # noqa: E402 - after Django is set up
from django.contrib.staticfiles.finders import get_finders  # noqa: E402 - after Django is set up
from django.urls import re_path  # noqa: E402 - after Django is set up
from servestatic import ServeStaticASGI  # noqa: E402 - after Django is set up

from dashboard.routing import websocket_urlpatterns  # noqa: E402 - after Django is set up


def _with_static_files(pages: object) -> ServeStaticASGI:
    """Serve the applications' static files from where they lie; the first finder's file wins."""
    static = ServeStaticASGI(pages, allow_all_origins=False, max_age=300)
    storages = [storage for finder in get_finders() for storage in getattr(finder, "storages", {}).values()]
    for storage in reversed(storages):  # later directories take the place of earlier ones
        static.add_files(storage.location, prefix=settings.STATIC_URL)
    return static


#: Last: a path that leads nowhere is refused; the router would raise, and fill the log for strangers.
_nowhere = re_path("", WebsocketDenier.as_asgi())

application = ProtocolTypeRouter(
    {
        "http": _with_static_files(_pages),
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter([*websocket_urlpatterns, _nowhere]))
        ),
    }
)

"""Where the websockets are."""

from django.urls import path

from dashboard.consumers import OverviewConsumer

websocket_urlpatterns = [path("ws/overview/", OverviewConsumer.as_asgi())]

"""The control plane's wiring."""

import pytest
from channels.testing import WebsocketCommunicator

from appliance.asgi import application

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("path", ["/ws/", "/ws/nowhere/", "/", "/ws/overview/more"])
async def test_unknown_websocket_is_refused(path):
    """A path that leads nowhere is refused like any other, and raises nothing."""
    headers = [(b"host", b"localhost"), (b"origin", b"http://localhost")]
    socket = WebsocketCommunicator(application, path, headers=headers)
    connected, _ = await socket.connect(timeout=5)
    assert not connected
    await socket.disconnect()

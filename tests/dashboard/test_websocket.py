"""The websocket behind the overview."""

import asyncio
import json

import pytest
from channels.testing import WebsocketCommunicator
from dashboard_builders import ScriptedGateway
from django.conf import settings
from django.contrib.sessions.models import Session

from appliance.asgi import application
from dashboard import consumers, hub

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])
HOST = (b"host", b"localhost")


def connect(client=None, origin=b"http://localhost"):
    headers = [HOST, (b"origin", origin)]
    if client is not None:
        cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
        headers.append((b"cookie", cookie.encode()))
    return WebsocketCommunicator(application, "/ws/overview/", headers=headers)


@pytest.fixture
def gateway():
    scripted = ScriptedGateway(settings.ENVIRONMENT.run_dir, period_s=0.2)
    yield scripted
    scripted.close()


async def receive(socket):
    return json.loads(await socket.receive_from(timeout=5))


@pytest.mark.slow
async def test_snapshots_follow_each_other(viewer, deployment, gateway):
    """The current one comes at once, then one a second, whole and numbered upwards."""
    socket = connect(viewer)
    assert (await socket.connect())[0]
    snapshots = [await receive(socket) for _ in range(4)]
    assert len({snapshot["seq"] for snapshot in snapshots}) == 4
    assert all(set(snapshot["tables"]) == set(snapshots[0]["tables"]) for snapshot in snapshots)
    assert snapshots[0]["tables"]["agents"][0]["cells"]["answered"] != "–"  # noqa: RUF001 - a dash
    assert 20 < snapshots[-1]["numbers"]["rps"] < 60
    assert 0 < snapshots[-1]["numbers"]["p50_ms"] < 10
    await socket.disconnect()


async def test_the_hub_runs_while_somebody_looks(viewer, deployment, gateway):
    """It starts with the first viewer and stops reading after the last."""
    first, second = connect(viewer), connect(viewer)
    for socket in (first, second):
        await socket.connect()
        await receive(socket)
    readers = list(hub.hub._readers.values())
    assert len(readers) == 1
    await first.disconnect()
    assert hub.hub._task is not None
    await second.disconnect()
    assert hub.hub._task is None
    assert hub.hub._readers == {}
    await asyncio.to_thread(readers[0]._thread.join, 5)
    assert not readers[0]._thread.is_alive()


@pytest.fixture
def charlie(log_in):
    return log_in("charlie")


async def test_outsiders_are_refused(charlie):
    """Neither strangers nor accounts without a role get a snapshot."""
    for client in (None, charlie):
        assert (await connect(client).connect())[0] is False


async def test_foreign_pages_are_refused(viewer):
    """A page of another site cannot listen in with its visitor's cookie."""
    socket = connect(viewer, origin=b"https://elsewhere.example")
    assert (await socket.connect())[0] is False


async def test_logging_out_ends_it(viewer, deployment, monkeypatch):
    """A viewer whose session is gone gets no more."""
    monkeypatch.setattr(consumers, "_RECHECK_S", 0.0)
    socket = connect(viewer)
    await socket.connect()
    await receive(socket)
    await asyncio.to_thread(Session.objects.all().delete)
    while (message := await socket.receive_output(timeout=5))["type"] == "websocket.send":
        pass
    assert message["code"] == 4403
    await socket.disconnect()


async def test_viewers_are_bounded(viewer, deployment, monkeypatch):
    """One more than it serves is told to come back later."""
    monkeypatch.setattr(hub, "MAX_VIEWERS", 1)
    first, second = connect(viewer), connect(viewer)
    assert (await first.connect())[0]
    assert await second.connect() == (False, 1013)
    await first.disconnect()


async def test_it_takes_nothing_in(viewer, deployment):
    """A viewer that speaks is shown out."""
    socket = connect(viewer)
    await socket.connect()
    await receive(socket)
    await socket.send_to("hello")
    while (message := await socket.receive_output(timeout=5))["type"] == "websocket.send":
        pass
    assert message["type"] == "websocket.close"
    await socket.disconnect()

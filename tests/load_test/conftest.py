"""Fixtures of the load generator's tests."""

from collections.abc import AsyncIterator

import pytest
from scripted_server import ScriptedServer


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """A server on a free port of the loopback, ended after the test."""
    scripted = ScriptedServer()
    await scripted.start()
    yield scripted
    await scripted.stop()

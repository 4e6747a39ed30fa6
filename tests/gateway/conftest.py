"""Fixtures of the gateway's tests: an authority, agents on demand, and a gateway that must balance."""

import asyncio
import datetime as dt

import pytest
import uvicorn.server
import uvloop
from gateway_harness import RunningGateway
from scripted_agent import ScriptedAgent

from provisioning.certificates import create_authority


def pytest_asyncio_loop_factories(config, item):
    """The loop that the gateway runs on in production."""
    return {"uvloop": uvloop.new_event_loop}


class _Prompt:
    """asyncio as uvicorn's server sees it: its looks every 0.1 s, and its pause at the end, are short."""

    def __getattr__(self, name):
        return getattr(asyncio, name)

    async def sleep(self, delay_s):
        await asyncio.sleep(min(delay_s, 0.01))


@pytest.fixture(scope="session", autouse=True)
def _prompt_stops():
    """Three hundred gateways stop; none waits for uvicorn's next look."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.server, "asyncio", _Prompt())
        yield


@pytest.fixture(scope="session")
def authority():
    return create_authority(dt.datetime.now(dt.UTC))


@pytest.fixture(scope="session")
def client_certificate(authority):
    return authority.issue_client("gateway-1", dt.datetime.now(dt.UTC))


@pytest.fixture
def home(tmp_path, authority, client_certificate):
    """A state directory with the files that a gateway opens agents with."""
    ca_dir = tmp_path / "ca"
    ca_dir.mkdir()
    (ca_dir / "ca.pem").write_bytes(authority.certificate_pem)
    (ca_dir / "gateway.pem").write_bytes(client_certificate.certificate_pem)
    (ca_dir / "gateway.key").write_bytes(client_certificate.key_pem)
    return tmp_path


@pytest.fixture
async def make_agent(authority, tmp_path):
    """Start scripted agents; they are ended with the test."""
    agents = []

    async def make(**settings):
        agent = ScriptedAgent(authority, tmp_path, **settings)
        agents.append(agent)
        return await agent.start()

    yield make
    for agent in agents:
        agent.kill()


@pytest.fixture
async def make_gateway(home, make_agent):
    """Start gateways; each must balance at the end of the test. Agents outlive them."""
    started = []

    async def make(limits=None, **settings):
        gateway = await RunningGateway(home, limits, **settings).start()
        started.append(gateway)
        return gateway

    yield make
    for gateway in started:
        if not gateway.task.done():
            try:
                await gateway.assert_conserved()
            finally:
                await gateway.stop()


@pytest.fixture
async def gateway(make_gateway):
    return await make_gateway()

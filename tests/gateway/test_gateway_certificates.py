"""Certificates that change while a gateway serves: those of agents, and its own."""

import asyncio
import datetime as dt
import hashlib
import ssl

import pytest
from gateway_harness import until
from scripted_agent import HANG, echo

from appliance.gateway.link import Credentials


@pytest.fixture
def renew(authority, tmp_path):
    """Gives an agent a new certificate, which new connections are shown; returns its digest."""

    def renew(agent):
        issued = authority.issue_server(agent.id, ["127.0.0.1"], dt.datetime.now(dt.UTC))
        pair = tmp_path / f"{agent.id}-renewed.pem"
        pair.write_bytes(issued.certificate_pem + issued.key_pem)
        agent._context.load_cert_chain(pair)
        return issued.sha256

    return renew


def cut(agent):
    """Have the gateway connect anew."""
    for wire in list(agent._wires):
        wire.transport.abort()


async def test_a_renewal_cuts_no_link(gateway, make_agent, renew):
    """Through all lists of a renewal the one link stays, and what is under way is answered."""
    agent = await make_agent(script=lambda _request: HANG)
    (old,) = agent.route().certificates
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    (wire,) = agent._wires
    asked = asyncio.ensure_future(gateway.embed())
    await until(lambda: agent.requests)
    new = renew(agent)
    for listed in [(old, new), (new,)]:
        await gateway.serve_by(agent.route(certificates=listed))
        assert gateway.state(agent) == "ready"
    agent.answer_hung()
    assert (await asked).status == 200
    assert set(agent._wires) == {wire}


async def test_while_it_is_renewed_an_agent_may_show_either(gateway, make_agent, renew):
    """An agent that loads its new certificate sooner or later is connected to all the time."""
    agent = await make_agent(script=echo)
    (old,) = agent.route().certificates
    await gateway.serve_by(agent.route(certificates=(old, "f" * 64)))
    assert (await gateway.embed()).status == 200
    new = renew(agent)
    cut(agent)
    assert (await gateway.embed(x_deadline_ms="300")).status == 503
    await gateway.serve_by(agent.route(certificates=(old, new)))
    assert (await gateway.embed()).status == 200


async def test_a_certificate_that_is_no_longer_listed_opens_nothing(gateway, make_agent):
    """After a renewal is confirmed, who has the old key is sent not one frame."""
    agent = await make_agent(script=echo)
    await gateway.serve_by(agent)
    assert (await gateway.embed()).status == 200
    await gateway.serve_by(agent.route(certificates=("f" * 64,)))
    cut(agent)
    await until(lambda: gateway.state(agent) == "connecting")
    assert (await gateway.embed(x_deadline_ms="300")).status == 503
    assert len(agent.requests) == 1


async def test_a_removed_agent_cannot_stand_in_for_another(gateway, make_agent):
    """Its certificate comes from our authority still; at another agent's address it is refused."""
    removed, present = await make_agent(script=echo), await make_agent(script=echo)
    await gateway.serve_by(removed, present)
    await gateway.ready(removed, present)
    await gateway.serve_by(present)
    await until(lambda: removed.connections == 0)
    present.kill()
    await until(lambda: gateway.state(present) == "connecting")
    await gateway.serve_by(present.route(port=removed.port))
    assert (await gateway.embed(x_deadline_ms="300")).status == 503
    assert removed.requests == []


@pytest.fixture
def files(home):
    """The gateway's authority, certificate and key."""
    return [home / "ca" / name for name in ("ca.pem", "gateway.pem", "gateway.key")]


def test_own_certificate_that_is_half_written_is_not_used(files, authority, caplog):
    """Between the writing of key and certificate the context before serves on, and one line says so."""
    _, certificate, key = files
    credentials = Credentials(*files)
    before = credentials.context()
    assert credentials.context() is before
    issued = authority.issue_client("gateway", dt.datetime.now(dt.UTC))
    key.write_bytes(issued.key_pem)
    assert [credentials.context() for _ in range(3)] == [before] * 3
    assert caplog.text.count("in use stays") == 1
    certificate.write_bytes(issued.certificate_pem)
    renewed = credentials.context()
    assert renewed is not before
    assert credentials.context() is renewed
    certificate.unlink()
    assert credentials.context() is renewed


def test_without_a_certificate_there_is_no_context(files):
    """At the start there is none to fall back on."""
    files[2].write_bytes(b"?")
    with pytest.raises(ssl.SSLError):
        Credentials(*files).context()


async def test_a_renewed_gateway_shows_its_new_certificate(gateway, make_agent, files, authority):
    """The next connection does; the one that is open goes on."""
    agent = await make_agent(script=echo)
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    issued = authority.issue_client("gateway", dt.datetime.now(dt.UTC))
    files[2].write_bytes(issued.key_pem)
    files[1].write_bytes(issued.certificate_pem)
    assert (await gateway.embed()).status == 200
    cut(agent)
    assert (await gateway.embed()).status == 200
    (wire,) = agent._wires
    shown = wire.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert hashlib.sha256(shown).hexdigest() == issued.sha256

"""A certificate that is renewed under a serving agent, and who is let in by which."""

import asyncio
import datetime as dt
import hashlib
import itertools
import ssl

import pytest
from agent_builders import Link, close_writer, fetch, wait_for

import agents.tls
from agents.config import TlsFiles
from agents.errors import BadConfig
from agents.protocol import ALPN_HTTP, ALPN_LINK, AgentState
from agents.tls import ServerTls

BODY = {"model": "tiny", "input": "the fox"}


@pytest.fixture
def issue(pki):
    """Issues certificates for an agent on this machine."""
    return lambda: pki.authority.issue_server("agent", ["127.0.0.1"], dt.datetime.now(dt.UTC))


@pytest.fixture
def files(pki, tmp_path, issue):
    """An agent's own files, which the test may change."""
    files = TlsFiles(pki.ca, tmp_path / "cert.pem", tmp_path / "key.pem")
    replace_pair(files, issue())
    return files


def replace_pair(files, issued):
    """As a node writes them: one file after the other, each in one step."""
    replace_file(files.key, issued.key_pem)
    replace_file(files.certificate, issued.certificate_pem)


def replace_file(path, content):
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def shake_hands(tls, client):
    """A TLS 1.3 handshake in memory; what the client was shown (SHA-256 of the DER)."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.context.wrap_bio(to_server, to_client, server_side=True)
    ours = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for side in (ours, server, ours, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    ours.write(b"x")
    assert server.read(1) == b"x"
    return hashlib.sha256(ours.getpeercert(binary_form=True)).hexdigest(), server.selected_alpn_protocol()


def digest_of(path):
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(path.read_text())).hexdigest()


@pytest.mark.parametrize("alpn", [ALPN_HTTP, ALPN_LINK])
def test_new_handshakes_show_the_new_certificate(pki, files, issue, alpn, caplog):
    """Nothing changes until the files do; then the next handshake shows what they hold, said once."""
    tls, client = ServerTls(files), pki.context(pki.client, alpn)
    assert shake_hands(tls, client) == (digest_of(files.certificate), alpn)
    caplog.set_level("INFO")
    tls.look()
    assert caplog.messages == []
    renewed = issue()
    replace_pair(files, renewed)
    tls.look()
    tls.look()
    assert shake_hands(tls, client) == (renewed.sha256, alpn)
    assert len(caplog.messages) == 1
    assert "renewed" in caplog.text


@pytest.mark.parametrize("shown", ["none", "server's", "stranger's"])
def test_strangers_stay_strangers_after_a_renewal(pki, files, issue, shown):
    """A renewed agent asks for the same certificates as before: an agent's own kind opens none."""
    certificate = {"none": None, "server's": pki.server, "stranger's": pki.stranger}[shown]
    tls = ServerTls(files)
    replace_pair(files, issue())
    tls.look()
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        shake_hands(tls, pki.context(certificate, ALPN_LINK))


@pytest.mark.parametrize("damage", ["key first", "certificate cut", "empty", "missing", "nonsense"])
def test_half_a_pair_is_not_taken(pki, files, issue, damage, caplog):
    """Whatever is wrong with the files the old pair serves on, and one line says so."""
    tls, client = ServerTls(files), pki.context(pki.client, ALPN_LINK)
    before, renewed = digest_of(files.certificate), issue()
    replace_file(files.key, renewed.key_pem)
    if damage == "missing":
        files.certificate.unlink()
    elif damage != "key first":
        cut = {"certificate cut": renewed.certificate_pem[:200], "empty": b"", "nonsense": b"?"}[damage]
        files.certificate.write_bytes(cut)
    for _ in range(3):
        tls.look()
        assert shake_hands(tls, client)[0] == before
    assert len(caplog.messages) == 1
    assert "in use stays" in caplog.text
    replace_pair(files, renewed)
    tls.look()
    assert shake_hands(tls, client)[0] == renewed.sha256


def test_a_pair_that_comes_back_is_no_trouble(pki, files, issue, caplog):
    """Files that could not be used and are put right are taken, with the same certificate or another."""
    tls, client = ServerTls(files), pki.context(pki.client, ALPN_LINK)
    kept = files.certificate.read_bytes()
    replace_file(files.certificate, issue().certificate_pem)
    tls.look()
    replace_file(files.certificate, kept)
    tls.look()
    assert shake_hands(tls, client)[0] == digest_of(files.certificate)
    replace_file(files.certificate, issue().certificate_pem)
    tls.look()
    assert caplog.text.count("in use stays") == 2


def test_files_that_change_while_they_are_read_are_read_again(pki, files, issue, monkeypatch):
    """A pair that is replaced while an agent starts is not missed."""
    renewed, create = issue(), agents.tls._create_context

    def create_and_replace(given):
        context = create(given)
        replace_pair(files, renewed)
        return context

    with monkeypatch.context() as patched:
        patched.setattr(agents.tls, "_create_context", create_and_replace)
        tls = ServerTls(files)
    tls.look()
    assert shake_hands(tls, pki.context(pki.client, ALPN_LINK))[0] == renewed.sha256


def test_a_pair_that_cannot_be_used_at_the_start_is_refused(files, issue):
    """At the start there is no older one to fall back on."""
    replace_file(files.key, issue().key_pem)
    with pytest.raises(BadConfig, match=r"tls\.key"):
        ServerTls(files)


async def shown_by(port, context):
    """The digest of the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return hashlib.sha256(der).hexdigest()
    finally:
        await close_writer(writer)


@pytest.mark.slow
async def test_renewed_under_requests(start_agent, pki, files, issue):
    """Two renewals of a serving process: all is answered, old links live on, new ones see the new."""
    tls = {"ca": str(files.ca), "certificate": str(files.certificate), "key": str(files.key)}
    agent = start_agent(tls=tls, fake_service_ms=20, admits=64)
    port, context = await agent.port(), pki.context(pki.client)
    done = asyncio.Event()
    statuses: list[int] = []

    async def keep_asking(link):
        while not done.is_set():
            statuses.append((await link.ask(BODY)).status)

    async def keep_connecting():
        while not done.is_set():
            statuses.append((await fetch(port, context, "GET", "/healthz"))[0])

    async with await Link.connect(port, pki) as old, await Link.connect(port, pki) as second:
        await old.wait_state(AgentState.READY)
        await second.wait_state(AgentState.READY)
        asking = [asyncio.ensure_future(work) for work in (keep_asking(old), keep_asking(second))]
        asking.append(asyncio.ensure_future(keep_connecting()))
        for count in itertools.count(1):
            renewed = issue()
            replace_file(files.key, renewed.key_pem)
            await wait_for(lambda n=count: agent.log.read_text().count("in use stays") == n)
            replace_file(files.certificate, renewed.certificate_pem)
            await wait_for(lambda n=count: agent.log.read_text().count("was renewed") == n)
            assert await shown_by(port, context) == renewed.sha256
            if count == 2:
                break
        before = len(statuses)
        await wait_for(lambda: len(statuses) > before + 20)
        done.set()
        await asyncio.gather(*asking)
        assert not old.closed
        async with await Link.connect(port, pki) as new:
            await new.wait_state(AgentState.READY)
            assert (await new.ask(BODY)).status == (await old.ask(BODY)).status == 200
    assert set(statuses) == {200}
    agent.process.terminate()
    assert await asyncio.to_thread(agent.exit_code) == 0

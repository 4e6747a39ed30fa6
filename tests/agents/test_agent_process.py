"""The real process on a real port: mutual TLS, both protocols, and every way it ends."""

import asyncio
import json
import signal
import socket
import ssl

import psutil
import pytest
from agent_builders import AgentProcess, Link, build_model, close_writer, fetch, infer_alone, wait_for

from agents.protocol import (
    ALPN_HTTP,
    ALPN_LINK,
    PATH_LOAD,
    AgentState,
    Answer,
    Kind,
    LoadReport,
    Refusal,
    build_frame,
)

pytestmark = pytest.mark.slow

BODY = {"model": "tiny", "input": "the fox"}


async def test_link(start_agent, pki, model_dir):
    """The first frame is the load report; requests of one connection are answered as they finish."""
    agent = start_agent(engine="ctranslate2", model_dir=str(model_dir))
    async with await Link.connect(await agent.port(), pki) as link:
        await link.wait_state(AgentState.READY)
        answers = await asyncio.gather(*(link.ask(BODY | {"input": "fox " * (n + 1)}) for n in range(10)))
        assert link.kinds[0] is Kind.LOAD
        assert [answer.prompt_tokens for answer in answers] == [n + 3 for n in range(10)]
        vector = json.loads(answers[1].body)["data"][0]["embedding"]
        alone = infer_alone(model_dir, [2, 8, 8, 3])
        assert sum(a * b for a, b in zip(vector, alone, strict=True)) == pytest.approx(1, abs=1e-3)
        assert all(0 < answer.processing_us < 30_000_000 for answer in answers)
        reports = len(link.loads)
        await wait_for(lambda: len(link.loads) >= reports + 2)
        last = link.loads[-1]
        assert (last.accepted_total, last.answered_total, last.waiting, last.executing) == (10, 10, 0, 0)
        assert last.rss_bytes > 1_000_000
        assert last.node_available_bytes > 0
        assert last.busy_s_total > 0


async def test_http(start_agent, pki, model_dir):
    """Without the link's ALPN the same port speaks HTTP: the API, probes, load and metrics."""
    agent = start_agent(engine="ctranslate2", model_dir=str(model_dir))
    port, context = await agent.port(), pki.context(pki.client)

    async def ask(method, path, body=b"", **headers):
        return await fetch(port, context, method, path, body, **headers)

    assert (await ask("GET", "/healthz"))[0] == 200
    async with asyncio.timeout(30):
        while (await ask("GET", "/readyz"))[0] != 200:
            pass
    status, headers, raw = await ask("POST", "/v1/embeddings", json.dumps(BODY).encode(), x_request_id="r-1")
    assert (status, headers["x-request-id"], headers["content-type"]) == (200, "r-1", "application/json")
    assert json.loads(raw)["usage"]["prompt_tokens"] == 4
    report = LoadReport.from_json((await ask("GET", "/load"))[2])
    assert (report.state, report.answered_total, report.tokens_total) == (AgentState.READY, 1, 4)
    text = (await ask("GET", "/metrics"))[2].decode()
    assert 'millwright_agent_tokens_total{agent="tiny-000001",deployment="tiny"} 4' in text
    assert 'millwright_agent_state{agent="tiny-000001",deployment="tiny",state="ready"} 1' in text
    for line in text.splitlines():
        name = line.split()[2] if line.startswith("#") else line.split("{")[0]
        assert f"# HELP {name} " in text
        assert f"# TYPE {name} " in text
    statuses = {
        "broken": (await ask("POST", "/v1/embeddings", b"{"))[0],
        "unknown path": (await ask("POST", "/v1/nothing", b"{}"))[0],
        "wrong method": (await ask("GET", "/v1/embeddings"))[0],
        "park by GET": (await ask("GET", "/park"))[0],
        "deadline": (await ask("POST", "/v1/embeddings", json.dumps(BODY).encode(), x_deadline_ms="x"))[0],
        "too large": (await ask("POST", "/v1/embeddings", b" " * (17 << 20)))[0],
    }
    assert statuses == {
        "broken": 400,
        "unknown path": 404,
        "wrong method": 405,
        "park by GET": 405,
        "deadline": 400,
        "too large": 413,
    }


async def knock(port: int, context: ssl.SSLContext) -> str:
    """How a connection ends that sends a request: by an alert, closed without a byte, or answered."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except ssl.SSLError:
        return "alert"
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        return "answered" if await asyncio.wait_for(reader.read(1), 30) else "closed"
    except ssl.SSLError:
        return "alert"
    except ConnectionError:
        return "closed"
    finally:
        await close_writer(writer)


@pytest.mark.parametrize("shown", ["none", "server's", "stranger's"])
@pytest.mark.parametrize("alpn", [ALPN_HTTP, ALPN_LINK])
async def test_strangers_get_a_tls_alert(start_agent, pki, shown, alpn):
    """No certificate, an agent's own kind, or another authority's: nothing but an alert."""
    certificate = {"none": None, "server's": pki.server, "stranger's": pki.stranger}[shown]
    port = await start_agent().port()
    assert await knock(port, pki.context(certificate, alpn)) in ("alert", "closed")
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)


async def test_plain_text_gets_nothing(start_agent, pki):
    """Who does not speak TLS is not spoken to."""
    port = await start_agent().port()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"HTTP" not in await asyncio.wait_for(reader.read(), 30)
    await close_writer(writer)


async def test_answers_of_a_batch_are_one_write(start_agent, pki):
    """Eight requests that wait together are computed together, and come back together."""
    port = await start_agent(workers=1, batch_size=8, admits=16, fake_service_ms=1000).port()
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        first = link.start(BODY)[1]  # the worker is at it while the eight arrive
        context = pki.context(pki.client, ALPN_HTTP)
        while json.loads((await fetch(port, context, "GET", PATH_LOAD))[2])["executing"] != 1:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0)
        await asyncio.gather(first, *(link.start(BODY)[1] for _ in range(8)))
        answers = [[kind for kind, _ in read].count(Kind.ANSWER) for read in link.reads]
        assert max(answers) == 8


async def test_full_refuses(start_agent, pki):
    """What is over the bound is refused on the link, and by header over HTTP."""
    port = await start_agent(workers=1, batch_size=1, admits=2, fake_service_ms=2000).port()
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        held = [link.start(BODY)[1] for _ in range(2)]
        assert await link.ask(BODY) is Refusal.FULL
        context = pki.context(pki.client)
        status, headers, raw = await fetch(port, context, "POST", "/v1/embeddings", json.dumps(BODY).encode())
        assert (status, headers["x-millwright-refused"]) == (429, "full")
        assert json.loads(raw)["error"]["code"] == "overloaded"
        assert [answer.status for answer in await asyncio.gather(*held)] == [200, 200]


async def test_cancel_and_leaving_free_the_place(start_agent, pki):
    """CANCEL, a broken link and a client of HTTP that leaves: none is computed nor held on to."""
    port = await start_agent(workers=1, batch_size=1, admits=4, fake_service_ms=400).port()
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        first = link.start(BODY)[1]
        stream, cancelled = link.start(BODY)
        link.send(Kind.CANCEL, stream)
        link.send(Kind.CANCEL, 999)
        async with await Link.connect(port, pki) as other:
            other.start(BODY)
            await wait_for(lambda: bool(other.loads))
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=pki.context(pki.client))
        raw = json.dumps(BODY).encode()
        writer.write(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(raw) + raw
        )
        await writer.drain()
        await close_writer(writer)
        assert (await first).status == 200
        assert isinstance(await link.ask(BODY), Answer)
        await wait_for(lambda: link.loads[-1].answered_total == 2)
        last = link.loads[-1]
        assert not cancelled.done()
        assert (last.sequences_total, last.executing, last.waiting) == (2, 0, 0)
        assert last.accepted_total in (4, 5)  # the HTTP client may have left before it was heard


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\x00\x00\x00\x02\x02\x00\x00\x00\x01ab", id="no request"),
        pytest.param(build_frame(Kind.LOAD, 0, b"{}"), id="an agent's frame"),
        pytest.param(b"\xff" * 64, id="too long"),
    ],
)
async def test_garbage_closes_its_connection_only(start_agent, pki, garbage):
    """A breach of the protocol costs its own connection, nobody else's."""
    port = await start_agent(workers=1, fake_service_ms=300).port()
    async with await Link.connect(port, pki) as good, await Link.connect(port, pki) as bad:
        await good.wait_state(AgentState.READY)
        answer = good.start(BODY)[1]
        bad.write(garbage)
        await wait_for(lambda: bad.closed)
        assert (await answer).status == 200
        assert not good.closed
        await wait_for(lambda: good.loads[-1].waiting == good.loads[-1].executing == 0)


async def test_a_stream_in_use_is_a_breach(start_agent, pki):
    """Two requests of one number would have one answer: the link is closed, their work forgotten."""
    port = await start_agent(workers=1, fake_service_ms=300).port()
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        link.start(BODY)
        link._stream -= 1
        link.start(BODY)
        await wait_for(lambda: link.closed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("sigint_ignored", [False, True])
async def test_drain(start_agent, pki, number, sigint_ignored):
    """Told to stop: says so at once, refuses new work, answers what it holds, exits 0."""
    agent = start_agent(workers=1, batch_size=1, fake_service_ms=500, sigint_ignored=sigint_ignored)
    async with await Link.connect(await agent.port(), pki) as link:
        await link.wait_state(AgentState.READY)
        held = [link.start(BODY)[1] for _ in range(3)]
        await asyncio.sleep(0.05)  # they are on their way
        agent.process.send_signal(number)
        await link.wait_state(AgentState.DRAINING)
        assert await link.ask(BODY) is Refusal.DRAINING
        assert [answer.status for answer in await asyncio.gather(*held)] == [200, 200, 200]
        await wait_for(lambda: link.closed)
    assert await asyncio.to_thread(agent.exit_code) == 0


async def test_second_signal_ends_at_once(start_agent, pki):
    """Whoever insists does not wait for requests in flight."""
    agent = start_agent(workers=1, batch_size=1, fake_service_ms=1500, admits=20)
    async with await Link.connect(await agent.port(), pki) as link:
        await link.wait_state(AgentState.READY)
        held = [link.start(BODY)[1] for _ in range(20)]
        await wait_for(lambda: bool(link.loads) and link.loads[-1].waiting > 10)
        agent.process.terminate()
        await link.wait_state(AgentState.DRAINING)
        agent.process.terminate()
        assert await asyncio.to_thread(agent.exit_code) == 1
        assert not held[-1].done()
    assert "cut short" in agent.log.read_text()


async def test_park_and_resume(start_agent, pki, model_dir):
    """Parked over HTTP, resumed by a frame or over HTTP; in between it refuses, and weighs less."""
    agent = start_agent(engine="ctranslate2", model_dir=str(model_dir))
    port, context = await agent.port(), pki.context(pki.client)
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        before = (await link.ask(BODY)).body
        assert (await fetch(port, context, "POST", "/park"))[2] == b'{"state": "parked"}'
        await link.wait_state(AgentState.PARKED)
        assert await link.ask(BODY) is Refusal.PARKED
        assert (await fetch(port, context, "GET", "/readyz"))[0] == 503
        link.send(Kind.RESUME)
        await link.wait_state(AgentState.READY)
        assert (await link.ask(BODY)).body == before
        await fetch(port, context, "POST", "/park")
        assert (await fetch(port, context, "POST", "/resume"))[2] == b'{"state": "ready"}'
        assert (await link.ask(BODY)).body == before
        await fetch(port, context, "POST", "/park")
        agent.process.terminate()
    assert await asyncio.to_thread(agent.exit_code) == 0


async def test_memory_returns_when_parked(start_agent, pki, tmp_path):
    """Parking gives the weights' memory back to the machine; resuming takes it again."""
    folder = build_model(tmp_path / "large", positions=500_000)
    weights = (folder / "model.bin").stat().st_size
    assert weights > 60_000_000
    agent = start_agent(engine="ctranslate2", model_dir=str(folder))
    port, context = await agent.port(), pki.context(pki.client)
    process = psutil.Process(agent.process.pid)
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        loaded = process.memory_info().rss
        await fetch(port, context, "POST", "/park")
        parked = process.memory_info().rss
        await fetch(port, context, "POST", "/resume")
        resumed = process.memory_info().rss
    assert parked < loaded - 0.8 * weights
    assert resumed > parked + 0.8 * weights


async def test_told_to_stop_while_loading(start_agent, model_dir):
    """Whoever is told to stop before it serves has nothing to drain."""
    agent = start_agent(engine="ctranslate2", model_dir=str(model_dir))
    await agent.port()
    agent.process.terminate()
    assert await asyncio.to_thread(agent.exit_code) == 0


async def last_line(agent: AgentProcess) -> str:
    await asyncio.to_thread(agent.exit_code)
    return agent.lines[-1]


async def test_exit_codes(start_agent, pki, tmp_path):
    """Each reason not to start has its code, and is the last line of the log."""
    bad = start_agent(workers=0)
    no_certificate = start_agent(tls=pki.tls | {"key": str(tmp_path / "none")})
    no_model = start_agent(engine="ctranslate2", model_dir=str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        no_port = start_agent(port=taken.getsockname()[1])
        assert "'workers' is 0" in await last_line(bad)
        assert "tls.key" in await last_line(no_certificate)
        assert "manifest.json" in await last_line(no_model)
        assert f"port {taken.getsockname()[1]}" in await last_line(no_port)
    codes = [agent.exit_code() for agent in (bad, no_certificate, no_model, no_port)]
    assert codes == [2, 2, 3, 4]

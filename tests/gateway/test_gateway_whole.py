"""A request that has come whole is served at once, without a task; what the client sees is the same."""

import asyncio
from dataclasses import replace

import pytest
from gateway_harness import KEY, build_http, deployment, embed_body, until
from scripted_agent import HANG, echo

from appliance.gateway.connection import GatewayConnection
from appliance.gateway.service import GatewayLimits

HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "x-request-id": "one"}


def request(body=None, *, method="POST", path="/v1/embeddings", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return build_http(method, path, {**HEADERS, **named}, embed_body() if body is None else body)


async def answers(gateway, *pieces, count=1):
    """What a connection answers to these pieces, sent one after the other."""
    wire = await gateway.connect()
    try:
        for piece in pieces:
            await wire.send(piece)
            await asyncio.sleep(0.01)  # so that each is read alone
        return [await wire.receive() for _ in range(count)]
    finally:
        wire.close()


def tasks_of(gateway):
    return len(gateway.server.server_state.tasks)


def seen(response):
    """An answer without what time changes."""
    unlike = {"date", "openai-processing-ms", "x-ratelimit-reset-requests"}
    headers = {name: value for name, value in response.headers.items() if name not in unlike}
    return response.status, headers, response.body


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request(authorization="Bearer nobody"),
        request(authorization=None),
        request(content_type="text/plain"),
        request(b"{"),
        request(embed_body("nothing")),
        request(x_priority="urgent"),
        request(x_deadline_ms="0"),
        request(connection="close"),
    ],
    ids=["fine", "bad key", "no key", "type", "json", "model", "priority", "deadline", "close"],
)
async def test_whole_and_in_pieces_is_the_same(gateway, make_agent, asked):
    """The answer does not tell in how many pieces the request came."""
    agent = await make_agent()
    await gateway.serve_by(agent)
    [whole] = await answers(gateway, asked)
    [pieces] = await answers(gateway, asked[:-7], asked[-7:])
    assert seen(whole) == seen(pieces)
    assert list(gateway.gateway.stats.codes.values()) == [2]


async def test_no_task_waits_with_a_whole_request(gateway, make_agent):
    """While an agent computes a whole request has no task; one in pieces has."""
    agent = await make_agent(script=lambda _: HANG)
    await gateway.serve_by(agent)
    whole, pieces = await gateway.connect(), await gateway.connect()
    await whole.send(request())
    await gateway.until_accepted(1)
    assert tasks_of(gateway) == 0
    await pieces.send(request()[:-7])
    await until(lambda: tasks_of(gateway) == 1)
    await pieces.send(request()[-7:])
    await gateway.until_accepted(2)
    await until(lambda: len(agent.requests) == 2)
    agent.answer_hung_with(echo)
    assert [(await wire.receive()).status for wire in (whole, pieces)] == [200, 200]
    whole.close()
    pieces.close()
    await until(lambda: tasks_of(gateway) == 0)


async def test_pipelined_whole_requests_are_answered_in_turn(gateway, make_agent):
    """Three in one write, one of them a page: the second waits for the first."""
    agent = await make_agent()
    await gateway.serve_by(agent)
    first, last = embed_body(text="first"), embed_body(text="last")
    sent = request(first) + request(b"", method="GET", path="/healthz") + request(last)
    found = await answers(gateway, sent, count=3)
    assert [one.body for one in found] == [first, b'{"status":"ok"}', last]


async def test_client_of_a_whole_request_leaves(gateway, make_agent):
    """Its slot and its memory are free at once, and it is counted as cancelled."""
    agent = await make_agent(script=lambda _: HANG)
    await gateway.serve_by(agent)
    wire = await gateway.connect()
    await wire.send(request())
    await gateway.until_accepted(1)
    assert gateway.gateway.memory.held_bytes == len(embed_body())
    wire.close()
    await until(lambda: gateway.stats().cancelled == 1)
    assert gateway.gateway.memory.held_bytes == 0
    counted = gateway.gateway.stats.codes
    assert counted == {("mini", "embed", 499): 1}


async def test_memory_bounds_whole_requests_too(make_gateway, make_agent):
    """What would not fit is refused, and what is answered makes room."""
    gateway = await make_gateway(GatewayLimits(max_memory_bytes=100))
    agent = await make_agent(script=lambda _: HANG)
    await gateway.serve_by(agent)
    held = await gateway.connect()  # its body leaves no room for another
    await held.send(request(embed_body(text="x" * 30)))
    await gateway.until_accepted(1)
    [refused] = await answers(gateway, request(embed_body(text="y" * 30)))
    assert (refused.status, refused.error["code"]) == (429, "overloaded")
    await until(lambda: len(agent.requests) == 1)
    agent.script = echo
    agent.answer_hung()
    assert (await held.receive()).status == 200
    held.close()
    [served] = await answers(gateway, request(embed_body(text="y" * 30)))
    assert served.status == 200


async def test_fault_of_the_gateway_is_one_answer(gateway, make_agent, monkeypatch):
    """A fault while a whole request is begun is a 500, and the connection serves on."""
    agent = await make_agent()
    await gateway.serve_by(agent, deployments=[deployment()])
    wire = await gateway.connect()
    with monkeypatch.context() as broken:
        broken.setattr(gateway.gateway.dispatcher, "submit", lambda call, now: 1 / 0)
        await wire.send(request())
        failed = await wire.receive()
    assert (failed.status, failed.error["type"]) == (500, "server_error")
    assert "division" not in failed.body.decode()
    await wire.send(request())
    assert (await wire.receive()).status == 200
    wire.close()


async def test_an_answer_that_http_does_not_have_is_a_fault(gateway, make_agent):
    """Whatever status an agent gives, the client is answered."""
    agent = await make_agent()
    await gateway.serve_by(agent)
    for status in (0, 101, 700):
        agent.script = lambda asked, status=status: replace(echo(asked), status=status)
        [failed] = await answers(gateway, request())
        assert (failed.status, failed.error["code"]) == (500, "server_error")


async def test_an_answer_that_cannot_be_sent_ends_the_connection(gateway, make_agent, monkeypatch):
    """The client does not wait for ever."""
    agent = await make_agent()
    await gateway.serve_by(agent)
    wire = await gateway.connect()
    with monkeypatch.context() as broken:
        broken.setattr(GatewayConnection, "answer", lambda *_: 1 / 0)
        await wire.send(request())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.receive()
    wire.close()


async def test_a_request_behind_one_answered_at_once_is_not_idle(gateway, make_agent):
    """The first is refused and begins the time of an idle connection; the second, of one read, ends it."""
    agent = await make_agent(script=lambda _: HANG)
    await gateway.serve_by(agent)
    wire = await gateway.connect()
    await wire.send(request(authorization="Bearer nobody") + request())
    assert (await wire.receive()).status == 401
    await gateway.until_accepted(1)
    (connection,) = gateway.gateway.guard.connections
    assert connection.timeout_keep_alive_task is None
    await until(lambda: len(agent.requests) == 1)
    agent.answer_hung()
    assert (await wire.receive()).status == 200
    assert connection.timeout_keep_alive_task is not None
    wire.close()


async def test_chunks_that_come_with_one_read_are_one_body(gateway, make_agent):
    """However many there are."""
    agent = await make_agent()
    await gateway.serve_by(agent)
    body = embed_body(text="x" * 3000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    asked = build_http(
        "POST", "/v1/embeddings", {**HEADERS, "content-length": None, "transfer-encoding": "chunked"}
    )
    [whole] = await answers(gateway, asked + chunks)
    assert (whole.status, whole.body) == (200, body)


@pytest.mark.parametrize(
    ("asked", "ends"),
    [
        (request().replace(b"HTTP/1.1", b"HTTP/1.0"), True),
        (request(expect="100-continue"), False),
        (request(connection="Upgrade, HTTP2-Settings", upgrade="h2c"), False),
    ],
    ids=["HTTP/1.0", "expects a word", "offers another protocol"],
)
async def test_what_needs_more_care_is_served_all_the_same(gateway, make_agent, asked, ends):
    """By a task, whole or not."""
    agent = await make_agent()
    await gateway.serve_by(agent)
    wire = await gateway.connect()
    await wire.send(asked)
    served = await wire.receive()
    if served.status == 100:
        served = await wire.receive()
    assert served.status == 200
    if ends:
        assert await wire.at_end()
    else:
        await wire.send(request())
        assert (await wire.receive()).status == 200
    wire.close()


async def test_a_stop_lets_a_whole_request_finish(gateway, make_agent):
    """The answer comes, and with it the end of the connection."""
    agent = await make_agent(script=lambda _: HANG)
    await gateway.serve_by(agent)
    wire = await gateway.connect()
    await wire.send(request())
    await gateway.until_accepted(1)
    gateway.server.should_exit = True
    await until(lambda: gateway.gateway.stopping)
    await until(lambda: len(agent.requests) == 1)
    agent.answer_hung()
    served = await wire.receive()
    assert (served.status, served.headers["connection"]) == (200, "close")
    assert await wire.at_end()
    wire.close()
    await asyncio.wait_for(gateway.task, 20)
    assert gateway.gateway.memory.held_bytes == 0

"""What clients may get wrong: each with its status and code, in the envelope, and nothing leaks."""

import asyncio
import json

import pytest
from gateway_harness import KEY, build_http, deployment, embed_body, key, until

from appliance.gateway.connection import ConnectionLimits
from appliance.gateway.service import GatewayLimits

GOOD = embed_body()

BAD_REQUESTS = [
    # id, request, status, code, param, words of the message
    ("no key", {"text_key": None, "body": GOOD}, 401, "invalid_api_key", None, "Bearer"),
    ("wrong key", {"text_key": "nobody", "body": GOOD}, 401, "invalid_api_key", None, "not known"),
    ("no bearer", {"authorization": KEY, "body": GOOD}, 401, "invalid_api_key", None, "not known"),
    ("unknown model", {"body": embed_body("maxi")}, 404, "model_not_found", "model", "maxi"),
    ("model missing", {"body": b'{"input":"x"}'}, 400, None, "model", "missing"),
    ("model a number", {"body": embed_body(7)}, 400, None, "model", "a number"),
    ("model a list", {"body": embed_body(["mini"])}, 400, None, "model", "a list"),
    ("model null", {"body": embed_body(None)}, 400, None, "model", "null"),
    ("model a boolean", {"body": embed_body(True)}, 400, None, "model", "a boolean"),
    ("model empty", {"body": embed_body("")}, 400, None, "model", "empty"),
    ("body a list", {"body": b"[1]"}, 400, None, None, "JSON object"),
    ("body a string", {"body": b'"mini"'}, 400, None, None, "JSON object"),
    ("broken JSON", {"body": b'{"model": "mini", "input": '}, 400, None, None, "JSON"),
    ("broken JSON behind the model", {"body": b'{"model": "mini", "input": [1,}'}, 400, None, None, "JSON"),
    ("text behind the JSON", {"body": GOOD + b"x"}, 400, None, None, "JSON"),
    ("broken UTF-8", {"body": b'{"model": "mini", "input": "\xff\xfe"}'}, 400, None, None, "UTF-8"),
    ("empty body", {"body": b""}, 400, None, None, "JSON"),
    ("a form", {"body": GOOD, "content_type": "application/x-www-form-urlencoded"},
     415, "unsupported_media_type", None, "application/json"),
    ("deadline a word", {"body": GOOD, "x_deadline_ms": "soon"}, 400, None, "x-deadline-ms", "soon"),
    ("deadline zero", {"body": GOOD, "x_deadline_ms": "0"}, 400, None, "x-deadline-ms", "0"),
    ("priority unknown", {"body": GOOD, "x_priority": "urgent"}, 400, None, "x-priority", "urgent"),
    ("deadline negative", {"body": GOOD, "x_deadline_ms": "-5"}, 400, None, "x-deadline-ms", "-5"),
    ("GET", {"method": "GET"}, 405, "method_not_allowed", None, "POST"),
    ("POST to models", {"path": "/v1/models"}, 405, "method_not_allowed", None, "GET"),
    ("unknown path", {"path": "/v2/embeddings"}, 404, "not_found", None, "/v2/embeddings"),
    ("root", {"method": "GET", "path": "/"}, 404, "not_found", None, "/v1/"),
    ("other task", {"body": embed_body("tagger")}, 400, None, "model", "classify"),
]  # fmt: skip


@pytest.fixture
async def served(gateway, make_agent):
    agent = await make_agent()
    await gateway.serve_by(agent, deployments=[deployment(), deployment(name="tagger", task="classify")])
    await gateway.ready(agent)
    return gateway, agent


@pytest.mark.parametrize(
    ("request_", "wanted"), [pytest.param(row[1], row[2:], id=row[0]) for row in BAD_REQUESTS]
)
async def test_bad_request_is_answered_in_the_envelope(served, request_, wanted):
    """Status, code and param are those of the API; the message names value or remedy; no agent is asked."""
    gateway, agent = served
    status, code, param, words = wanted
    response = await gateway.ask(**request_)
    assert response.status == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert set(response.error) == {"message", "type", "param", "code"}
    assert response.error["type"] == "invalid_request_error"
    assert (response.error["code"], response.error["param"]) == (code, param)
    assert words in response.error["message"]
    assert agent.requests == []
    assert gateway.stats().accepted == 0
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "given",
    ["", "a" * 129, "with space", "semi;colon", "émile"],
    ids=["empty", "long", "space", "sign", "accent"],
)
async def test_invalid_request_id_is_replaced(served, given):
    """An id that is not 1 to 128 of A-Z a-z 0-9 . _ - is not echoed."""
    gateway, _ = served
    response = await gateway.embed(x_request_id=given)
    assert response.status == 200
    assert response.headers["x-request-id"].startswith("req-")


async def test_body_over_the_bound_is_refused_before_it_is_sent(served):
    """A length over the bound gets 413 at once, naming the bound; nothing of the body is awaited."""
    gateway, _ = served
    wire = await gateway.connect()
    headers = {
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "content-length": "52428800",
    }
    await wire.send(build_http("POST", "/v1/embeddings", headers))
    response = await wire.receive()
    assert (response.status, response.error["code"]) == (413, "request_too_large")
    assert str(16 * 1024 * 1024) in response.error["message"]
    wire.close()


async def test_client_that_sends_a_huge_body_still_gets_its_413(served):
    """50 MB are thrown away as they come, so that the answer is not lost to a reset."""
    gateway, _ = served
    wire = await gateway.connect()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    await wire.send(build_http("POST", "/v1/embeddings", headers, b"x" * 50_000_000))
    assert (await wire.receive()).status == 413
    await wire.send(build_http("GET", "/healthz", {}))
    assert (await wire.receive()).status == 200
    assert gateway.gateway.memory.held_bytes == 0
    wire.close()


async def test_chunked_body_over_the_bound_is_refused(make_gateway, make_agent):
    """Without a length the bound holds as the pieces come."""
    gateway = await make_gateway(GatewayLimits(max_body_bytes=1000))
    await gateway.serve_by(await make_agent())
    wire = await gateway.connect()
    headers = {
        "authorization": f"Bearer {KEY}", "content-type": "application/json",
        "content-length": None, "transfer-encoding": "chunked",
    }  # fmt: skip
    await wire.send(build_http("POST", "/v1/embeddings", headers))
    await wire.send(b"1f4\r\n" + b"x" * 500 + b"\r\n")
    await wire.send(b"1f5\r\n" + b"x" * 501 + b"\r\n")
    response = await wire.receive()
    assert response.status == 413
    assert "1000 bytes" in response.error["message"]
    wire.close()


async def test_memory_for_bodies_is_bounded(make_gateway, make_agent):
    """Bodies that would pass the bound together are refused with 429."""
    gateway = await make_gateway(GatewayLimits(max_memory_bytes=1000))
    await gateway.serve_by(await make_agent())
    response = await gateway.embed("x" * 2000)
    assert (response.status, response.error["code"]) == (429, "overloaded")
    assert (await gateway.embed("x")).status in (200, 503)


@pytest.fixture
async def impatient(make_gateway, make_agent):
    limits = GatewayLimits(connections=ConnectionLimits(max_connections=3, slow_s=0.3, max_header_bytes=2000))
    gateway = await make_gateway(limits)
    agent = await make_agent()
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    return gateway


@pytest.mark.parametrize(
    "piece", [b"", b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nx-slow: "], ids=["none", "some"]
)
async def test_slow_headers_close_the_connection(impatient, piece):
    """Who does not complete the headers in time is cut off."""
    wire = await impatient.connect()
    await wire.send(piece)
    assert await wire.at_end()
    wire.close()


async def test_slow_body_gets_408(impatient):
    """Where the application was reached it says why, then the connection closes."""
    wire = await impatient.connect()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "content-length": "100"}
    await wire.send(build_http("POST", "/v1/embeddings", headers, b'{"model"'))
    response = await wire.receive()
    assert (response.status, response.headers["connection"]) == (408, "close")
    assert "0.3 s" in response.error["message"]
    assert await wire.at_end()
    assert impatient.gateway.memory.held_bytes == 0
    wire.close()


async def test_a_working_connection_outlives_the_bound_on_slowness(impatient):
    """Idle between two requests is not slow."""
    wire = await impatient.connect()
    for _ in range(2):
        await wire.send(build_http("GET", "/healthz", {}))
        assert (await wire.receive()).status == 200
        await until_swept(impatient)
    wire.close()


async def until_swept(gateway):
    """Until the guard has looked at all connections at a time that lies over the bound."""
    import time  # noqa: PLC0415 - for this one look ahead

    gateway.gateway.guard.sweep(time.monotonic() + 60)


async def test_headers_are_bounded(impatient):
    """Endless headers get 431."""
    wire = await impatient.connect()
    await wire.send(b"GET /healthz HTTP/1.1\r\nx-long: " + b"a" * 3000)
    response = await wire.receive()
    assert response.status == 431
    assert "2000 bytes" in response.error["message"]
    assert await wire.at_end()
    wire.close()


async def test_what_is_no_http_gets_400_in_the_envelope(impatient):
    """Also where no application can be reached."""
    wire = await impatient.connect()
    await wire.send(b"\x16\x03\x01 hello\r\n\r\n")
    response = await wire.receive()
    assert response.status == 400
    assert response.error["type"] == "invalid_request_error"
    wire.close()


async def test_open_connections_are_bounded(impatient):
    """Over the bound a connection is told so, and the others go on."""
    held = [await impatient.connect() for _ in range(3)]
    await until(lambda: len(impatient.gateway.guard.connections) == 3)
    response = await impatient.embed()
    assert (response.status, response.error["code"]) == (503, "overloaded")
    for wire in held:
        wire.close()
    await until(lambda: not impatient.gateway.guard.connections)
    assert (await impatient.embed()).status == 200


async def test_key_without_the_scope_is_refused(served):
    """A key for metrics opens no model."""
    gateway, agent = served
    await gateway.serve_by(agent, keys=[key("m", scopes=("metrics",))])
    response = await gateway.embed(text_key="m")
    assert (response.status, response.error["code"]) == (403, "insufficient_scope")


async def test_internal_fault_is_a_500_without_a_trace(served, monkeypatch):
    """Neither page nor traceback leaves the house."""
    gateway, _ = served

    def fail(_call, _now):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(gateway.gateway.dispatcher, "submit", fail)
    response = await gateway.embed(x_request_id="find-me")
    assert (response.status, response.error["code"]) == (500, "server_error")
    assert b"secret" not in response.body
    assert response.headers["x-request-id"] == "find-me"


async def test_every_refusal_is_counted_by_its_code(served):
    """The scrape tells 401 from 404; a model that exists is named."""
    gateway, _ = served
    await gateway.ask(body=GOOD, text_key="nobody")
    await gateway.ask(body=embed_body("maxi"))
    await gateway.ask(body=GOOD)
    samples = await gateway.metrics()
    assert samples["millwright_requests_total{401,,embed}"] == 1
    assert samples["millwright_requests_total{404,,embed}"] == 1
    assert samples["millwright_requests_total{200,mini,embed}"] == 1
    assert json.loads(GOOD)["model"] == "mini"


async def test_trailers_are_no_headers(served):
    """What follows a body in pieces neither stands for a header nor ends the connection."""
    gateway, _ = served
    wire = await gateway.connect()
    try:
        head = build_http(
            "POST",
            "/v1/embeddings",
            {
                "authorization": f"Bearer {KEY}",
                "content-type": "application/json",
                "content-length": None,
                "transfer-encoding": "chunked",
            },
        )
        trailers = b"authorization: Bearer nobody\r\nx-request-id: trailing\r\n"
        await wire.send(head + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(GOOD), GOOD, trailers))
        first = await wire.receive()
        assert first.status == 200
        assert first.headers["x-request-id"] != "trailing"
        await wire.send(build_http("GET", "/healthz", {}))
        assert (await wire.receive()).status == 200
    finally:
        wire.close()


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
async def test_offer_of_another_protocol_is_declined(served, chunked, at_once):
    """A request that offers HTTP/2 is served as it is, body and all, and so is the next."""
    gateway, _ = served
    fields = {
        "authorization": f"Bearer {KEY}",
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2-settings": "AAMAAABkAAQAAP__",
        "content-length": None if chunked else str(len(GOOD)),
        "transfer-encoding": "chunked" if chunked else None,
    }
    head = build_http("POST", "/v1/embeddings", fields)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD) if chunked else GOOD
    pieces = [head + body] if at_once else [head, body[:9], body[9:]]
    wire = await gateway.connect()
    try:
        for _ in range(2):
            for piece in pieces:
                await wire.send(piece)
                await asyncio.sleep(0)
            assert (await wire.receive()).status == 200
        await wire.send(build_http("GET", "/healthz", {"connection": "upgrade", "upgrade": "websocket"}) * 2)
        assert [(await wire.receive()).status for _ in range(2)] == [200, 200]
    finally:
        wire.close()
    await gateway.assert_conserved()


@pytest.mark.parametrize("fields", [{"x-big": "a" * 70_000}, {f"x-{n}": "a" * 700 for n in range(100)}])
async def test_large_headers_are_refused_however_they_arrive(served, fields):
    """431 also where all of the head is read at once."""
    gateway, _ = served
    response = await gateway.ask(method="GET", path="/healthz", **fields)
    assert response.status == 431


async def test_large_body_before_the_next_head_is_no_header(served):
    """Bytes of a body do not count as headers of the request that follows in the same piece."""
    gateway, _ = served
    large = embed_body(text="a" * 100_000)
    first = build_http("POST", "/v1/embeddings", {"authorization": f"Bearer {KEY}"}, large)
    second = build_http("GET", "/healthz", {})
    wire = await gateway.connect()
    try:
        await wire.send(first + second[:20])
        assert (await wire.receive()).status == 200
        await wire.send(second[20:])
        assert (await wire.receive()).status == 200
    finally:
        wire.close()

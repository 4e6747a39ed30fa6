"""The gateway serves: from a client's bytes to an agent's, and back."""

import asyncio

import pytest
from gateway_harness import KEY, deployment, embed_body, key, until
from scripted_agent import HANG, ScriptedAgent, echo

from agents.protocol import Answer
from appliance.gateway.service import GatewayLimits


async def test_request_reaches_the_agent_and_its_answer_comes_back(gateway, make_agent):
    """Body and path pass through as they are; the answer names who gave it."""
    agent = await make_agent()
    await gateway.serve_by(agent)
    response = await gateway.embed("hi", x_request_id="abc-1.2_3")
    assert response.status == 200
    assert response.body == embed_body(text="hi")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == "abc-1.2_3"
    assert response.headers["x-served-by"] == f"box/{agent.id}"
    assert int(response.headers["openai-processing-ms"]) >= 0
    [request] = agent.requests
    assert (request.path, request.request_id, request.body) == ("/v1/embeddings", "abc-1.2_3", response.body)
    assert 0 < request.deadline_ms <= 10_000


async def test_many_requests_share_one_connection(gateway, make_agent):
    """Each answer finds its own request, and no agent has more than slots + ahead at once."""
    agent = await make_agent()
    held = []

    def script(request):
        held.append(gateway.gateway.fleet.agents[agent.id].slots.in_flight)
        return echo(request)

    agent.script = script
    await gateway.serve_by(agent)
    responses = await asyncio.gather(*(gateway.embed(f"text {n}") for n in range(100)))
    assert [r.body for r in responses] == [embed_body(text=f"text {n}") for n in range(100)]
    assert agent.connections == 1
    assert 0 < max(held) <= 6


async def test_work_waits_in_the_gateway_not_at_the_agent(gateway, make_agent):
    """An agent that is slow holds slots + ahead; the rest is queued, in order."""
    agent = await make_agent(script=lambda _: HANG)
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    tasks = []
    for number in range(10):
        tasks.append(asyncio.create_task(gateway.embed(f"{number}")))
        await gateway.until_accepted(number + 1)
    await until(lambda: len(agent.requests) >= 6)
    assert (len(agent.requests), len(gateway.gateway.fleet.calls_queued())) == (6, 4)
    samples = await gateway.metrics()
    assert (samples["millwright_in_flight"], samples["millwright_queue_depth"]) == (6, 4)
    assert samples["millwright_accepted_total"] == 10
    agent.script = echo
    agent.answer_hung()
    assert [r.status for r in await asyncio.gather(*tasks)] == [200] * 10
    assert [r.body for r in agent.requests] == [embed_body(text=f"{n}") for n in range(10)]


async def test_big_bodies_pass_both_ways(gateway, make_agent):
    """A body of many TLS records arrives whole."""
    agent = await make_agent()
    await gateway.serve_by(agent)
    response = await gateway.embed("x" * 3_000_000)
    assert response.body == embed_body(text="x" * 3_000_000)


async def test_an_agents_400_passes_through(gateway, make_agent):
    """What the agent finds wrong with a request is the answer; it is not tried elsewhere."""
    refusal = Answer(400, 0, 0, 5, "application/json", b'{"error":{}}')
    first, second = await make_agent(script=lambda _: refusal), await make_agent(script=lambda _: refusal)
    await gateway.serve_by(first, second)
    await gateway.ready(first, second)
    response = await gateway.embed()
    assert (response.status, response.body) == (400, refusal.body)
    assert len(first.requests) + len(second.requests) == 1
    assert gateway.stats().answered == 1


async def test_work_is_spread_by_size(gateway, make_agent):
    """An agent of twice the slots gets twice the work."""
    small, big = await make_agent(script=lambda _: HANG), await make_agent(script=lambda _: HANG)
    by_size = [deployment(balancing="least_in_flight")]
    await gateway.serve_by(small.route(slots=4), big.route(slots=8), deployments=by_size)
    await gateway.ready(small, big)
    tasks = [asyncio.create_task(gateway.embed()) for _ in range(12)]
    await until(lambda: len(small.requests) + len(big.requests) == 12)
    assert (len(small.requests), len(big.requests)) == (4, 8)
    for agent in (small, big):
        agent.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}


async def test_models_lists_every_deployment_also_without_an_agent(gateway):
    """In the shape that SDKs read, with a key only."""
    await gateway.serve_by(deployments=[deployment(), deployment(name="org/tagger", task="classify")])
    response = await gateway.ask("GET", "/v1/models")
    assert response.json()["object"] == "list"
    assert [m["id"] for m in response.json()["data"]] == ["mini", "org/tagger"]
    one = await gateway.ask("GET", "/v1/models/org/tagger")
    assert one.json() == {
        "id": "org/tagger",
        "object": "model",
        "created": 1700000000,
        "owned_by": "millwright",
    }
    assert (await gateway.ask("GET", "/v1/models/none")).error["code"] == "model_not_found"
    assert (await gateway.ask("GET", "/v1/models", text_key=None)).status == 401
    assert (await gateway.ask("GET", "/v1/models/mini", text_key="no")).status == 401


async def test_ready_once_a_snapshot_is_loaded(gateway):
    """Alive at once, ready with routes, also where nothing is deployed."""
    assert (await gateway.ask("GET", "/healthz", text_key=None)).status == 200
    waiting = await gateway.ask("GET", "/readyz", text_key=None)
    assert (waiting.status, waiting.json()["status"]) == (503, "no route snapshot yet")
    await gateway.serve_by(deployments=[])
    assert (await gateway.ask("GET", "/readyz", text_key=None)).status == 200


async def test_rate_of_a_key_is_bounded_and_told(gateway, make_agent):
    """The headers count down; over the rate is 429 with the time to wait, accepted and shed."""
    await gateway.serve_by(await make_agent(), keys=[key(rpm=2)])
    first, second, third = [await gateway.embed() for _ in range(3)]
    assert [first.status, second.status, third.status] == [200, 200, 429]
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert [r.headers["x-ratelimit-remaining-requests"] for r in (first, second, third)] == ["1", "0", "0"]
    assert third.error["code"] == "rate_limit_exceeded"
    assert 1 <= int(third.headers["retry-after"]) <= 60
    assert third.headers["x-should-retry"] == "true"
    assert (gateway.stats().accepted, gateway.stats().shed) == (3, 1)


async def test_tokens_and_durations_are_counted(gateway, make_agent):
    """The agent's own count of tokens, and one duration for each request that ended."""
    await gateway.serve_by(await make_agent())
    for _ in range(4):
        await gateway.embed()
    samples = await gateway.metrics()
    assert samples["millwright_tokens_total{prompt}"] == 12
    assert samples["millwright_request_duration_seconds_count"] == 4
    assert samples["millwright_request_duration_seconds_bucket{+Inf}"] == 4
    assert samples["millwright_queue_wait_seconds_count"] == 4
    assert samples["millwright_attempts_total{answered}"] == 4
    assert samples["millwright_agents{mini,ready}"] == 1
    assert samples["millwright_finished_total{answered}"] == 4


async def test_the_time_to_the_first_token_is_counted_once(gateway, make_agent):
    """Of each good answer, up to its end where it is sent whole, or as soon as its first token is told of."""
    agent = await make_agent(script=lambda _: HANG)
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    task = asyncio.create_task(gateway.embed())
    [call] = await until(gateway.gateway.fleet.calls_in_flight)
    assert sum(gateway.stats().first_token.counts) == 0
    call.begin_answer(call.accepted_at + 0.1)
    await until(lambda: agent.requests)
    agent.answer_hung()
    assert (await task).status == 200
    agent.script = lambda _: Answer(400, 0, 0, 0, "application/json", b"{}")
    assert (await gateway.embed()).status == 400
    samples = await gateway.metrics()
    name = "millwright_time_to_first_token_seconds"
    assert (samples[f"{name}_count"], samples[f"{name}_sum"]) == (1, pytest.approx(0.1))
    assert (samples[f"{name}_bucket{{0.096}}"], samples[f"{name}_bucket{{0.128}}"]) == (0, 1)
    agent.script = echo
    await gateway.embed()
    [report] = gateway.gateway.report().deployments
    assert (sum(report.first_token.counts), report.executed, report.answered) == (2, 2, 3)


@pytest.mark.parametrize("sent", [b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 3], ids=["three at once"])
async def test_pipelined_requests_are_answered_in_turn(gateway, sent):
    """Several requests in one piece on one connection."""
    wire = await gateway.connect()
    await wire.send(sent)
    assert [(await wire.receive()).status for _ in range(3)] == [200] * 3
    wire.close()


async def test_an_agent_of_another_authority_gets_nothing(gateway, tmp_path, make_agent):
    """A certificate that is not the appliance's own is refused in the handshake."""
    import datetime as dt  # noqa: PLC0415 - for this one authority

    from provisioning.certificates import create_authority  # noqa: PLC0415 - as above

    stranger = await ScriptedAgent(create_authority(dt.datetime.now(dt.UTC)), tmp_path).start()
    try:
        await gateway.serve_by(stranger)
        response = await gateway.embed(x_deadline_ms="300")
        assert (response.status, response.error["code"]) == (503, "no_capacity")
        assert stranger.connections == 0
    finally:
        stranger.kill()


async def test_an_agent_with_another_digest_gets_nothing(gateway, make_agent):
    """A certificate of our own authority that the snapshot does not name gets not one frame."""
    agent = await make_agent()
    await gateway.serve_by(agent.route(certificates=("0" * 64,)))
    response = await gateway.embed(x_deadline_ms="300")
    assert response.status == 503
    assert agent.requests == []
    assert gateway.state(agent) == "connecting"
    await gateway.serve_by(agent)
    assert (await gateway.embed()).status == 200


async def test_metrics_beyond_loopback_need_a_key_for_them(make_gateway):
    """Open on loopback; elsewhere a key with scope metrics, and no other, opens them."""
    gateway = await make_gateway(GatewayLimits(open_metrics=False))
    await gateway.serve_by(keys=[key(), key("m", scopes=("metrics",))])
    statuses = [(await gateway.ask("GET", "/metrics", text_key=text)).status for text in (None, KEY, "m")]
    assert statuses == [401, 403, 200]
    gateway.gateway.limits = GatewayLimits()


async def test_connection_close_and_head_are_honoured(gateway):
    """A client that asks for the end gets it; HEAD has the length and no body."""
    wire = await gateway.connect()
    await wire.send(b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    raw = await wire.reader.read()
    assert raw.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in raw
    assert raw.endswith(b"\r\n\r\n")
    wire.close()


async def test_deployment_that_is_removed_serves_what_waits_and_takes_nothing_new(gateway, make_agent):
    """Out of service means 404 and no place in the list, but what was accepted is answered."""
    agent = await make_agent()
    await gateway.serve_by()
    waiting = asyncio.create_task(gateway.embed("first"))
    await gateway.until_accepted(1)
    leaving = [deployment(accepting=False)]
    await gateway.serve_by(deployments=leaving)
    refused = await gateway.embed("second")
    assert (refused.status, refused.error["code"]) == (404, "model_not_found")
    listed = await gateway.ask("GET", "/v1/models")
    assert listed.json()["data"] == []
    assert (await gateway.ask("GET", "/v1/models/mini")).status == 404
    await gateway.serve_by(agent, deployments=leaving)
    assert (await waiting).status == 200

"""The gateway serves: from a client's bytes to an agent's, and back."""

import asyncio
import json

from gateway_harness import deployment, embed_body, key, until


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
    most = 0

    def script(request):
        nonlocal most
        most = max(most, gateway.gateway.fleet.agents[agent.id].slots.in_flight)
        return scripted_echo(request)

    agent.script = script
    await gateway.serve_by(agent)
    responses = await asyncio.gather(*(gateway.embed(f"text {n}") for n in range(100)))
    assert [r.body for r in responses] == [embed_body(text=f"text {n}") for n in range(100)]
    assert agent.connections == 1
    assert 0 < most <= 6


def scripted_echo(request):
    from scripted_agent import echo  # noqa: PLC0415 - beside the one script that wraps it

    return echo(request)

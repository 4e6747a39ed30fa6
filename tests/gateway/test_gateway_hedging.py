"""A slow request is tried at a second agent: the first answer wins, and all is counted once."""

import asyncio

import pytest
from gateway_harness import KEY, build_http, deployment, embed_body, until
from scripted_agent import HANG, echo, fault

HEDGED = deployment(hedging=True)

pytestmark = pytest.mark.slow


def agent_of(gateway, agent):
    return gateway.gateway.fleet.agents[agent.id]


def answers_of(gateway, agents):
    """From how many answers the gateway has learned."""
    return sum(agent_of(gateway, agent).slots.service.answers for agent in agents)


async def serve_known(gateway, make_agent, count=2, route=HEDGED, **changes):
    """Agents whose usual times are known; from now on they hang."""
    agents = [await make_agent() for _ in range(count)]
    await gateway.serve_by(*(agent.route(**changes) for agent in agents), deployments=[route])
    await gateway.ready(*agents)
    for _ in range(2):
        await asyncio.gather(*(gateway.embed() for _ in range(20)))
    assert gateway.stats().answered == 40
    for agent in agents:
        agent.script = lambda _: HANG
        agent.requests.clear()
    gateway.gateway.stats.attempts["hedged"] = 0
    return agents


async def start_slow(gateway, agents):
    """A request that hangs: its task, the agent that got it, and the others."""
    task = asyncio.create_task(gateway.embed())
    (call, *_) = await until(gateway.gateway.fleet.calls_in_flight)
    first, *others = sorted(agents, key=lambda agent: agent.id != call.reservation.agent.route.id)
    await until(lambda: first.requests)
    return task, first, *others


async def test_the_second_agent_answers_first(gateway, make_agent):
    """Its answer is taken, the first is told to stop, and is known to be slow."""
    agents = await serve_known(gateway, make_agent)
    task, first, second = await start_slow(gateway, agents)
    await until(lambda: second.requests)
    (stream,), known = agent_of(gateway, first).pending, answers_of(gateway, agents)
    second.answer_hung()
    response = await task
    assert response.headers["x-served-by"] == f"box/{second.id}"
    await until(lambda: stream in first.cancelled)
    assert answers_of(gateway, agents) == known + 2
    samples = await gateway.metrics()
    assert samples["millwright_attempts_total{hedged}"] == 1
    assert samples["millwright_attempts_total{answered}"] == 41
    assert (
        agent_of(gateway, first).slots.service.answers + agent_of(gateway, second).slots.service.answers == 42
    )


async def test_the_first_agent_answers_first_all_the_same(gateway, make_agent):
    """Then the second is told to stop, and nothing is learned of it."""
    agents = await serve_known(gateway, make_agent)
    task, first, second = await start_slow(gateway, agents)
    await until(lambda: second.requests)
    (stream,), known = agent_of(gateway, second).pending, answers_of(gateway, agents)
    first.answer_hung()
    assert (await task).headers["x-served-by"] == f"box/{first.id}"
    await until(lambda: stream in second.cancelled)
    assert answers_of(gateway, agents) == known + 1
    assert gateway.gateway.stats.attempts["hedged"] == 1


@pytest.mark.parametrize("who", ["first", "second"])
@pytest.mark.parametrize("how", ["error", "break", "refusal"])
async def test_one_of_two_fails(gateway, make_agent, who, how):
    """The request goes on with the other, and is not tried again."""
    agents = await serve_known(gateway, make_agent)
    task, first, second = await start_slow(gateway, agents)
    await until(lambda: second.requests)
    failing, other = (first, second) if who == "first" else (second, first)
    if how == "error":
        failing.answer_hung_with(fault)
        await until(lambda: agent_of(gateway, failing).slots.failed == 1)
    elif how == "break":
        failing.kill()
        await until(lambda: gateway.state(failing) == "connecting")
    else:
        failing.refuse_hung()
        await until(lambda: agent_of(gateway, failing).slots.refused == 1)
    assert (gateway.stats().in_flight, gateway.stats().active) == (1, 1)
    assert agent_of(gateway, failing).slots.in_flight == 0
    other.answer_hung()
    assert (await task).headers["x-served-by"] == f"box/{other.id}"
    assert len(first.requests) + len(second.requests) == 2


@pytest.mark.parametrize("how", ["leaves", "expires"])
async def test_a_client_that_does_not_wait_frees_both(gateway, make_agent, how):
    """Both agents are told, and one request has ended."""
    agents = await serve_known(gateway, make_agent)
    wire = await gateway.connect()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    if how == "expires":
        headers["x-deadline-ms"] = "300"
    await wire.send(build_http("POST", "/v1/embeddings", headers, embed_body()))
    await until(lambda: all(agent.requests for agent in agents))
    streams = {stream for agent in agents for stream in agent_of(gateway, agent).pending}
    if how == "leaves":
        wire.close()
    await until(lambda: streams <= {stream for agent in agents for stream in agent.cancelled})
    assert gateway.stats().cancelled + gateway.stats().failed == 1
    result = {"leaves": "cancelled", "expires": "timeout"}[how]
    assert gateway.gateway.stats.attempts[result] == 2
    wire.close()


async def test_nobody_is_asked_twice_who_did_not_ask_for_it(gateway, make_agent):
    """Without the deployment's word a slow request stays where it is."""
    agents = await serve_known(gateway, make_agent, route=deployment())
    task, first, second = await start_slow(gateway, agents)
    await asyncio.sleep(0.05)  # ten times what would be slow
    assert second.requests == []
    assert gateway.gateway.fleet.deployments["mini"].hedge_timer is None
    first.answer_hung()
    assert (await task).status == 200


async def test_while_others_wait_nothing_is_hedged(gateway, make_agent):
    """A second attempt would take the place of a first one."""
    agents = await serve_known(gateway, make_agent, slots=1, ahead=0)
    tasks = [asyncio.create_task(gateway.embed()) for _ in range(3)]
    await until(lambda: sum(len(agent.requests) for agent in agents) == 2)
    await until(lambda: not gateway.gateway.fleet.deployments["mini"].watched)
    assert [len(agent.requests) for agent in agents] == [1, 1]
    for agent in agents:
        agent.script = echo
        agent.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert gateway.gateway.stats.attempts["hedged"] == 0


async def test_hedges_have_a_budget(gateway, make_agent):
    """When all are slow three are tried twice, not all; and no request ever a third time."""
    agents = await serve_known(gateway, make_agent, count=3, slots=8)
    tasks = [asyncio.create_task(gateway.embed()) for _ in range(8)]
    await until(lambda: sum(len(agent.requests) for agent in agents) == 11)
    await until(lambda: not gateway.gateway.fleet.deployments["mini"].watched)
    assert sum(len(agent.requests) for agent in agents) == 11
    assert gateway.stats().in_flight == 8
    for agent in agents:
        agent.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert gateway.gateway.stats.attempts["hedged"] == 3


async def test_a_hedged_request_that_breaks_both_agents_is_tried_again(gateway, make_agent):
    """As any other whose connection broke."""
    agents = await serve_known(gateway, make_agent)
    task, _, second = await start_slow(gateway, agents)
    await until(lambda: second.requests)
    for agent in agents:
        agent.script = echo
        for wire in list(agent._wires):
            wire.transport.abort()
    assert (await task).status == 200
    assert gateway.gateway.stats.attempts["broken"] == 2


async def test_a_hedged_request_that_both_agents_fail_goes_to_a_third(gateway, make_agent):
    """Neither of those that failed it is asked again."""
    agents = await serve_known(gateway, make_agent, count=3)
    task, first, *others = await start_slow(gateway, agents)
    (second,) = await until(lambda: [agent for agent in others if agent.requests])
    (third,) = {*others} - {second}
    third.script = echo
    first.answer_hung_with(fault)
    await until(lambda: agent_of(gateway, first).slots.failed == 1)
    second.answer_hung_with(fault)
    assert (await task).headers["x-served-by"] == f"box/{third.id}"
    assert [len(agent.requests) for agent in (first, second, third)] == [1, 1, 1]

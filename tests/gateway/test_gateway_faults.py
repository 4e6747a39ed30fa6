"""Agents die, refuse, fail and come back; clients leave and run out of time. No request is lost."""

import asyncio
from dataclasses import replace

import pytest
from gateway_harness import KEY, build_http, deployment, embed_body, until
from scripted_agent import DIE, HANG, echo, fault

from agents.protocol import AgentState, Refusal
from appliance.gateway.link import LinkTimings
from appliance.gateway.service import GatewayLimits


async def embed_many(gateway, count):
    return await asyncio.gather(*(gateway.embed(f"{n}") for n in range(count)))


async def test_a_dead_agents_requests_go_to_another(gateway, make_agent):
    """Cut under load, everything it held is answered by the other."""
    doomed, other = [await make_agent(script=lambda _: HANG) for _ in range(2)]
    await gateway.serve_by(doomed, other)
    await gateway.ready(doomed, other)
    tasks = [asyncio.create_task(gateway.embed(f"{n}")) for n in range(30)]
    await gateway.until_accepted(30)
    await until(lambda: len(doomed.requests) == 6)
    doomed.kill()
    other.script = echo
    other.answer_hung()
    assert {r.headers["x-served-by"] for r in await asyncio.gather(*tasks)} == {f"box/{other.id}"}
    samples = await gateway.metrics()
    assert samples["millwright_attempts_total{broken}"] == 6
    assert samples["millwright_finished_total{answered}"] == samples["millwright_accepted_total"] == 30


async def test_the_only_agent_dies_and_comes_back(gateway, make_agent):
    """Requests are held meanwhile, and answered in their order; the loop is told both."""
    agent = await make_agent(script=lambda _: HANG)
    reader = await gateway.inner()
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    tasks = []
    for number in range(9):
        tasks.append(asyncio.create_task(gateway.embed(f"{number}")))
        await gateway.until_accepted(number + 1)
    agent.kill()
    assert (await reader.next("want", reason="agent_lost"))["agent"] == agent.id
    assert (await reader.next("want", reason="held"))["deployment"] == "mini"
    assert len(gateway.gateway.fleet.calls_queued()) == 9
    agent.script = echo
    agent.requests.clear()
    await agent.start()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert [r.body for r in agent.requests] == [embed_body(text=f"{n}") for n in range(9)]
    reader.close()


async def test_a_queue_is_told_of_as_it_builds_up(gateway, make_agent):
    """Where ready agents do not keep up the loop hears of it soon, with what waits just before."""
    agent = await make_agent(script=lambda _: HANG)
    reader = await gateway.inner()
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    tasks = [asyncio.create_task(gateway.embed(f"{number}")) for number in range(9)]
    await gateway.until_accepted(9)
    seen = []
    while not seen or seen[-1]["kind"] != "want":
        line = await reader.line()
        seen += [line] if line["kind"] in ("report", "want") else []
    assert (seen[-1]["reason"], seen[-1]["deployment"]) == ("queued", "mini")
    assert [one["queued"] for one in seen[-2]["deployments"]] == [3]
    agent.script = echo
    agent.answer_hung()
    assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}
    reader.close()


async def test_request_without_an_agent_is_held_and_then_served(gateway, make_agent):
    """With none at all it waits; `want` comes at once and again; the new agent serves it."""
    reader = await gateway.inner()
    await gateway.serve_by()
    task = asyncio.create_task(gateway.embed())
    first = await reader.next("want", reason="held")
    again = await reader.next("want", reason="held")
    assert 0.4 <= again["at"] - first["at"] <= 2
    report = await reader.next("report")
    assert [(d["queued"], d["in_flight"]) for d in report["deployments"]] == [(1, 0)]
    await gateway.serve_by(await make_agent())
    assert (await task).status == 200
    reader.close()


async def test_a_request_that_breaks_every_agent_ends_after_three_returns(gateway, make_agent):
    """It is not tried for ever, and its client is told not to try again."""
    agent = await make_agent(script=lambda _: DIE)
    await gateway.serve_by(agent)
    response = await gateway.embed()
    assert (response.status, response.error["code"]) == (500, "server_error")
    assert response.headers["x-should-retry"] == "false"
    assert len(agent.requests) == 4
    assert gateway.stats().failed == 1


@pytest.mark.parametrize("reason", list(Refusal), ids=lambda reason: reason.name.lower())
async def test_a_refused_request_goes_elsewhere_at_no_cost(gateway, make_agent, reason):
    """Whatever the reason: answered by the other, no failure is counted."""
    unwilling, other = await make_agent(script=lambda _: reason), await make_agent()
    await gateway.serve_by(unwilling, other)
    await gateway.ready(unwilling, other)
    assert {r.status for r in await embed_many(gateway, 20)} == {200}
    assert len(other.requests) == 20
    slots = gateway.gateway.fleet.agents[unwilling.id].slots
    assert slots.refused >= 1
    assert slots.failed == 0
    assert gateway.stats().failed == 0


async def test_a_full_agent_is_not_asked_in_a_busy_loop(gateway, make_agent):
    """One refusal each 50 ms at most; served as soon as it takes work again."""
    agent = await make_agent(script=lambda _: Refusal.FULL)
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    task = asyncio.create_task(gateway.embed())
    began = asyncio.get_running_loop().time()
    await until(lambda: len(agent.requests) >= 3)
    assert asyncio.get_running_loop().time() - began >= 0.045
    agent.script = echo
    assert (await task).status == 200


async def test_an_error_answer_is_tried_elsewhere(gateway, make_agent):
    """A 500 of a living agent is not the client's answer while another can serve."""
    broken, other = await make_agent(script=fault), await make_agent()
    await gateway.serve_by(broken, other, deployments=[deployment(balancing="round_robin")])
    await gateway.ready(broken, other)
    responses = [await gateway.embed() for _ in range(6)]
    assert {r.status for r in responses} == {200}
    assert gateway.gateway.fleet.agents[broken.id].slots.failed == len(broken.requests) > 0


async def test_retries_after_errors_have_a_budget(gateway, make_agent):
    """When all fail, only a share is tried again: the answers come through as they are."""
    agents = [await make_agent(script=lambda _: HANG) for _ in range(2)]
    await gateway.serve_by(*agents, deployments=[deployment(max_agents=2)])
    await gateway.ready(*agents)
    tasks = [asyncio.create_task(gateway.embed()) for _ in range(12)]
    await gateway.until_accepted(12)
    for agent in agents:
        agent.script = fault
        agent.answer_hung_with(fault)
    responses = await asyncio.gather(*tasks)
    assert {r.status for r in responses} == {500}
    assert responses[0].error["message"] == "no"
    assert 1 <= sum(len(a.requests) for a in agents) - 12 <= 3 * 2
    assert gateway.stats().failed == 12


async def test_a_lone_agents_error_is_the_answer(gateway, make_agent):
    """Without another agent nothing is tried again."""
    agent = await make_agent(script=fault)
    await gateway.serve_by(agent)
    assert (await gateway.embed()).status == 500
    assert len(agent.requests) == 1


async def test_deadline_with_an_agent(gateway, make_agent):
    """504, the agent is told, and the slot is free again."""
    agent = await make_agent(script=lambda _: HANG)
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    response = await gateway.embed(x_deadline_ms="100")
    assert (response.status, response.error["code"]) == (504, "deadline_exceeded")
    assert agent.requests[0].deadline_ms <= 100
    await until(lambda: agent.cancelled)
    samples = await gateway.metrics()
    assert samples["millwright_attempts_total{timeout}"] == 1
    assert samples["millwright_in_flight"] == 0


async def test_deadline_without_an_agent(gateway):
    """503 with the time to come back; the deployment's own deadline bounds what a client may ask."""
    await gateway.serve_by(deployments=[deployment(deadline_s=0.1)])
    response = await gateway.embed(x_deadline_ms="60000")
    assert (response.status, response.error["code"]) == (503, "no_capacity")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.headers["x-should-retry"] == "true"
    assert gateway.stats().failed == 1


async def test_queue_is_bounded(gateway, make_agent):
    """Over the bound is 429 at once, accepted and shed; those in the queue are served."""
    await gateway.serve_by(deployments=[deployment(queue_limit=3)])
    tasks = [asyncio.create_task(gateway.embed()) for _ in range(3)]
    await gateway.until_accepted(3)
    response = await gateway.embed()
    assert (response.status, response.error["code"]) == (429, "overloaded")
    assert "retry-after" in response.headers
    assert (gateway.stats().accepted, gateway.stats().shed) == (4, 1)
    await gateway.serve_by(await make_agent(), deployments=[deployment(queue_limit=3)])
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}


@pytest.mark.parametrize("held", [True, False], ids=["queued", "in flight"])
async def test_a_client_that_leaves_frees_its_place(gateway, make_agent, held):
    """Counted cancelled; the agent is told; nothing is left."""
    agent = await make_agent(script=lambda _: HANG)
    await (gateway.serve_by() if held else gateway.serve_by(agent))
    if not held:
        await gateway.ready(agent)
    wire = await gateway.connect()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    await wire.send(build_http("POST", "/v1/embeddings", headers, embed_body()))
    await gateway.until_accepted(1)
    assert gateway.stats().in_flight == (0 if held else 1)
    wire.close()
    await until(lambda: gateway.stats().cancelled == 1)
    assert gateway.stats().in_flight == gateway.stats().active == 0
    if not held:
        assert gateway.gateway.fleet.agents[agent.id].slots.in_flight == 0
        await until(lambda: len(agent.cancelled) == 1)
    await until(lambda: gateway.gateway.stats.codes.get(("mini", "embed", 499)) == 1)


async def test_the_place_of_one_that_left_goes_to_the_next(gateway, make_agent):
    """A slot freed by a leaving client is used at once."""
    agent = await make_agent(script=lambda _: HANG)
    await gateway.serve_by(agent.route(slots=1, ahead=0))
    await gateway.ready(agent)
    wire = await gateway.connect()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    await wire.send(build_http("POST", "/v1/embeddings", headers, embed_body()))
    await gateway.until_accepted(1)
    task = asyncio.create_task(gateway.embed("next"))
    await gateway.until_accepted(2)
    agent.script = echo
    wire.close()
    assert (await task).status == 200


async def test_a_silent_agent_is_taken_for_lost(make_gateway, make_agent):
    """Connected but without a word for too long: its work goes elsewhere."""
    gateway = await make_gateway(GatewayLimits(links=LinkTimings(silent_s=0.8)))
    mute, other = await make_agent(script=lambda _: HANG), await make_agent(script=lambda _: HANG)
    await gateway.serve_by(mute, other)
    await gateway.ready(mute, other)
    tasks = [asyncio.create_task(gateway.embed()) for _ in range(6)]
    await until(lambda: mute.requests and len(mute.requests) + len(other.requests) == 6)
    mute.heartbeat = False
    other.script = echo
    other.answer_hung()
    assert {r.headers["x-served-by"] for r in await asyncio.gather(*tasks)} == {f"box/{other.id}"}


async def test_a_draining_agent_gets_no_new_work_and_finishes_its_own(gateway, make_agent):
    """Its link stays until it has left the snapshot and has nothing in flight."""
    leaving, other = await make_agent(script=lambda _: HANG), await make_agent()
    await gateway.serve_by(leaving)
    await gateway.ready(leaving)
    task = asyncio.create_task(gateway.embed())
    await gateway.until_accepted(1)
    await gateway.serve_by(leaving.route(wanted="draining"), other)
    await gateway.ready(other)
    assert gateway.state(leaving) == "draining"
    assert {r.status for r in await embed_many(gateway, 10)} == {200}
    await gateway.serve_by(other)
    assert (len(leaving.requests), leaving.connections) == (1, 1)
    leaving.answer_hung()
    assert (await task).headers["x-served-by"] == f"box/{leaving.id}"
    await until(lambda: leaving.connections == 0)


async def test_a_parked_agent_is_resumed_once_for_a_held_request(gateway, make_agent):
    """The gateway wakes it itself and uses it, also while the snapshot still says parked."""
    agent = await make_agent()
    agent.state, agent.on_resume = AgentState.PARKED, AgentState.LOADING
    await gateway.serve_by(agent.route(wanted="parked"))
    await until(lambda: gateway.state(agent) == "parked")
    tasks = [asyncio.create_task(gateway.embed()) for _ in range(5)]
    await until(lambda: agent.resumes)
    await gateway.until_accepted(5)
    agent.set_state(AgentState.READY)
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert agent.resumes == 1


async def test_all_that_come_while_a_parked_agent_loads_are_answered(gateway, make_agent):
    """Two hundred wait for it; one resume is sent, and the report tells that this gateway did it."""
    agent = await make_agent()
    agent.state, agent.on_resume = AgentState.PARKED, AgentState.LOADING
    await gateway.serve_by(agent.route(wanted="parked"))
    await until(lambda: gateway.state(agent) == "parked")
    tasks = [asyncio.create_task(gateway.embed()) for _ in range(200)]
    await gateway.until_accepted(200)
    reader = await gateway.inner()
    for _ in range(20):  # where the machine is busy the agent says late that it loads
        report = await reader.next("report")
        if report["agents"][0]["resumed"]:
            break
    assert [one["resumed"] for one in report["agents"]] == [True]
    reader.close()
    agent.set_state(AgentState.READY)
    assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
    assert agent.resumes == 1


async def test_parked_in_the_very_moment_of_a_request_it_is_resumed_for_it(gateway, make_agent):
    """It refuses what was on its way; the request waits at the head of the queue until it is back."""
    agent = await make_agent(script=lambda _request: Refusal.PARKED)
    agent.on_resume = AgentState.LOADING
    await gateway.serve_by(agent.route(wanted="parked"))
    await gateway.ready(agent)
    task = asyncio.create_task(gateway.embed())
    await until(lambda: agent.resumes == 1)
    agent.script = echo
    agent.set_state(AgentState.LOADING)
    agent.set_state(AgentState.READY)
    assert (await task).status == 200


async def test_no_more_agents_are_resumed_than_may_be_warm(gateway, make_agent):
    """With its maximum of warm agents wanted already, a parked one stays parked."""
    parked, dead = await make_agent(), await make_agent()
    parked.state = AgentState.PARKED
    dead.kill()
    await gateway.serve_by(parked.route(wanted="parked"), dead, deployments=[deployment(max_agents=1)])
    await until(lambda: gateway.state(parked) == "parked")
    response = await gateway.embed(x_deadline_ms="400")
    assert (response.status, parked.resumes) == (503, 0)


async def test_an_agent_of_another_name_is_refused(gateway, make_agent):
    """A port that was taken over by another agent is not served through."""
    agent = await make_agent()
    route = replace(agent.route(), id="somebody-else")
    await gateway.serve_by(route)
    assert (await gateway.embed(x_deadline_ms="300")).status == 503
    assert agent.requests == []

"""Agents fall silent and come back: their work goes elsewhere at once, and nothing is lost or doubled."""

import asyncio
import time

import pytest
from gateway_harness import until
from scripted_agent import HANG, echo


def slots_of(gateway, agent):
    return gateway.gateway.fleet.agents[agent.id].slots


async def start_embeds(gateway, count):
    """So many requests, all accepted and sent or queued."""
    before = gateway.stats().accepted
    tasks = [asyncio.create_task(gateway.embed(f"{n}")) for n in range(count)]
    await gateway.until_accepted(before + count)
    return tasks


async def serve_beating(gateway, make_agent, count, **route):
    """Agents that beat and hang, and are known to beat."""
    agents = [await make_agent(script=lambda _: HANG, beats=True) for _ in range(count)]
    await gateway.serve_by(*(agent.route(**route) for agent in agents))
    await gateway.ready(*agents)
    await until(lambda: all(slots_of(gateway, agent).beat for agent in agents))
    return agents


async def test_beats_are_asked_for_and_shown(gateway, make_agent):
    """Processor use and requests are known from the last beat, not from the last report."""
    (agent,) = await serve_beating(gateway, make_agent, 1)
    reader = await gateway.inner()
    assert agent.paces == [100]
    agent.heartbeat = False
    report = await reader.next("report")
    (shown,) = report["agents"]
    assert (shown["executing"], shown["waiting"]) == (3, 1)
    assert (shown["cpu_percent"], shown["node_cpu_percent"]) == (40, 90)
    assert slots_of(gateway, agent).crowding > 1.1
    reader.close()


@pytest.mark.slow
async def test_an_agent_of_before_there_were_beats_serves(gateway, make_agent):
    """It is sent no frame that it does not know, and is not taken for silent between its reports."""
    older, newer = await make_agent(), await make_agent(beats=True)
    await gateway.serve_by(older, newer)
    await gateway.ready(older, newer)
    older.script = lambda _: HANG
    tasks = await start_embeds(gateway, 6)
    older.heartbeat = False
    await until(lambda: older.requests and slots_of(gateway, newer).answered)
    quiet_from = time.monotonic()
    await until(lambda: time.monotonic() - quiet_from > 0.9)
    assert older.paces == []
    assert gateway.state(older) == "ready"
    older.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}


async def test_a_frozen_agents_requests_go_elsewhere(gateway, make_agent):
    """It is ejected half a second after its last word, told to drop its work, and nobody sees an error."""
    frozen, other = await serve_beating(gateway, make_agent, 2)
    tasks = await start_embeds(gateway, 12)
    assert len(frozen.requests) == len(other.requests) == 6
    other.script = echo
    other.answer_hung()
    frozen.freeze()
    began = time.monotonic()
    await until(lambda: gateway.state(frozen) == "ejected")
    assert time.monotonic() - began < 4.0  # 0.5 s where nothing else runs
    assert {r.headers["x-served-by"] for r in await asyncio.gather(*tasks)} == {f"box/{other.id}"}
    samples = await gateway.metrics()
    assert samples["millwright_attempts_total{silent}"] == 6
    assert samples["millwright_agents{mini,ejected}"] == 1
    assert samples["millwright_finished_total{answered}"] == 12
    frozen.thaw()
    await until(lambda: len(frozen.cancelled) == 6)


async def test_a_thawed_agent_is_tried_with_one_request_and_then_trusted(gateway, make_agent):
    """Half open: one at a time until one is answered; its old answers count for nothing."""
    frozen, other = await serve_beating(gateway, make_agent, 2)
    tasks = await start_embeds(gateway, 2)
    frozen.freeze()
    await until(lambda: gateway.state(frozen) == "ejected")
    frozen.cancelled = [0]
    await until(lambda: len(other.requests) == 2)
    frozen.thaw()
    await until(lambda: gateway.state(frozen) == "ready")
    assert slots_of(gateway, frozen).limit == 1
    tasks += await start_embeds(gateway, 8)
    assert slots_of(gateway, frozen).in_flight == 1
    frozen.script = other.script = echo
    frozen.answer_hung()
    other.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert not slots_of(gateway, frozen).on_trial
    assert gateway.stats().answered == 10


async def test_a_late_answer_of_a_call_that_moved_is_ignored(gateway, make_agent):
    """Woken, it answers all the same: the client has one answer, and it is the other agent's."""
    frozen, other = await serve_beating(gateway, make_agent, 2)
    tasks = await start_embeds(gateway, 2)
    streams = list(gateway.gateway.fleet.agents[frozen.id].pending)
    frozen.freeze()
    await until(lambda: len(other.requests) == 2)
    (wire,) = frozen._wires
    wire.hung = [(streams[0], frozen.requests[0])]
    wire.answer_hung(echo)  # before it reads that it need not
    await until(lambda: gateway.state(frozen) == "ready")
    other.answer_hung()
    assert {r.headers["x-served-by"] for r in await asyncio.gather(*tasks)} == {f"box/{other.id}"}


@pytest.mark.slow
async def test_where_nobody_else_could_take_it_work_stays(gateway, make_agent):
    """A lone agent that stalls is not ejected, and its answers count when it is back."""
    (agent,) = await serve_beating(gateway, make_agent, 1)
    tasks = await start_embeds(gateway, 4)
    agent.freeze()
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 0.7)
    assert gateway.state(agent) == "ready"
    agent.thaw()
    agent.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert len(agent.requests) == 4


async def test_agents_that_are_all_silent_are_not_ejected(gateway, make_agent):
    """Then it is no agent's fault, though they spoke last within a beat of each other."""
    agents = await serve_beating(gateway, make_agent, 3)
    tasks = await start_embeds(gateway, 9)
    for agent in agents:
        agent.freeze()
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 0.7)
    assert {gateway.state(agent) for agent in agents} == {"ready"}
    for agent in agents:
        agent.thaw()
        agent.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert gateway.gateway.stats.attempts["silent"] == 0


@pytest.mark.slow
async def test_a_pause_of_the_gateway_ejects_nobody(gateway, make_agent):
    """What it did not hear while it stood still is no silence."""
    agents = await serve_beating(gateway, make_agent, 2)
    tasks = await start_embeds(gateway, 4)
    for _ in range(3):
        time.sleep(0.7)  # noqa: ASYNC251 - the loop stands still
        stood_until = time.monotonic()
        await until(lambda: min(slots_of(gateway, a).heard_at for a in agents) > stood_until)  # noqa: B023
    for agent in agents:
        agent.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert gateway.gateway.stats.attempts["silent"] == 0


async def test_a_silent_agent_without_work_gets_none(gateway, make_agent):
    """No request needs to find out that it does not answer."""
    frozen, other = await serve_beating(gateway, make_agent, 2)
    other.script = echo
    frozen.freeze()
    await until(lambda: gateway.state(frozen) == "ejected")
    tasks = await start_embeds(gateway, 10)
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert len(other.requests) == 10


@pytest.mark.slow
async def test_a_request_is_moved_three_times_at_most(gateway, make_agent):
    """One that stalls whoever has it stays with the fourth."""
    agents = await serve_beating(gateway, make_agent, 5)
    (task,) = await start_embeds(gateway, 1)
    for moved in range(4):
        (stalled,) = [a for a in agents if gateway.gateway.fleet.agents[a.id].pending]
        stalled.freeze()
        await until(lambda: gateway.state(stalled) == "ejected")  # noqa: B023 - awaited at once
        assert gateway.gateway.stats.attempts["silent"] == min(moved + 1, 3)
    stalled.thaw()
    stalled.answer_hung()
    assert (await task).headers["x-served-by"] == f"box/{stalled.id}"

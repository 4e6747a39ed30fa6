"""Shapes changed in a real process: over HTTP, under load of a link, with real weights."""

import asyncio
from collections import Counter

import psutil
import pytest
from agent_builders import (
    AgentProcess,
    Link,
    PeakMemory,
    build_model,
    close_writer,
    fetch,
    reshape,
    wait_for,
)

from agents.protocol import PATH_SHAPE, AgentState, Answer, Refusal

pytestmark = pytest.mark.slow

BODY = {"model": "tiny", "input": ["the small brown fox", "water"]}
#: What a process needs beside weights may grow by this much for a moment.
MARGIN_BYTES = 12_000_000


async def test_answers_are_equal_and_memory_holds_one_copy(start_agent, pki, tmp_path):
    """With other threads the vectors are the same, and at no moment are there two copies of the weights."""
    folder = build_model(tmp_path / "large", positions=500_000)
    weights = (folder / "model.bin").stat().st_size
    assert weights > 5 * MARGIN_BYTES
    agent = start_agent(engine="ctranslate2", model_dir=str(folder), workers=1, batch_size=8, admits=16)
    port, context = await agent.port(), pki.context(pki.client)
    process = psutil.Process(agent.process.pid)
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        before = (await link.ask(BODY)).body
        loaded, threads = process.memory_info().rss, process.num_threads()
        with PeakMemory(agent.process.pid) as memory:
            for shape in [(2, 1, 8), (1, 2, 8), (1, 1, 8)] * 2:
                assert await reshape(port, context, *shape) == (200, {"state": "ready"})
                await wait_for(lambda shape=shape: link.loads[-1].workers == shape[0])
                assert (link.loads[-1].threads, link.loads[-1].admits) == (shape[1], (shape[0] + 1) * 8)
                assert (await link.ask(BODY)).body == before
        assert memory.peak < loaded + MARGIN_BYTES
        assert process.memory_info().rss < loaded + MARGIN_BYTES
        assert process.num_threads() <= threads + 2  # HTTP's answers may have needed some


async def test_refused_over_http_as_the_protocol_says(start_agent, pki):
    """400 with what is accepted, 405, 409 while it loads; a parked agent takes a shape without loading."""
    agent = start_agent(fake_load_ms=500)
    port, context = await agent.port(), pki.context(pki.client)
    status, said = await reshape(port, context, 1, 1, 4)
    assert (status, said["error"]["code"]) == (409, "bad_state")
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        status, said = await reshape(port, context, 0, 1, 4)
        assert (status, said["error"]["param"]) == (400, "workers")
        assert (await fetch(port, context, "POST", PATH_SHAPE, b" " * 5000))[0] == 413
        assert (await fetch(port, context, "GET", PATH_SHAPE))[0] == 405
        await fetch(port, context, "POST", "/park")
        assert await reshape(port, context, 3, 2, 4) == (200, {"state": "parked"})
        await wait_for(lambda: link.loads[-1].workers == 3)
        assert link.loads[-1].state is AgentState.PARKED
        assert (await fetch(port, context, "POST", "/resume"))[2] == b'{"state": "ready"}'
        assert (await link.ask(BODY)).status == 200


async def test_the_change_goes_on_without_its_caller(start_agent, pki):
    """Whoever ordered it may go away: it is done all the same."""
    port, context = await start_agent(fake_load_ms=300).port(), pki.context(pki.client)
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        raw = b'{"workers": 1, "threads": 2, "batch_size": 4}'
        writer.write(b"POST /shape HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(raw) + raw)
        await link.wait_state(AgentState.LOADING)
        await close_writer(writer)
        await link.wait_state(AgentState.READY)
        assert (link.loads[-1].workers, link.loads[-1].threads) == (1, 2)


async def test_told_to_stop_while_it_changes(start_agent, pki):
    """What it holds is answered first, then the process ends in good order."""
    agent = start_agent(workers=1, batch_size=1, fake_service_ms=300, fake_load_ms=300)
    port, context = await agent.port(), pki.context(pki.client)
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        held = [link.start(BODY | {"input": "fox"})[1] for _ in range(2)]
        await wait_for(lambda: link.loads[-1].accepted_total == 2)
        changing = asyncio.ensure_future(reshape(port, context, 1, 2, 4))
        await link.wait_state(AgentState.LOADING)
        agent.process.terminate()
        assert [answer.status for answer in await asyncio.gather(*held)] == [200, 200]
        assert (await changing)[0] == 409
    assert await asyncio.to_thread(agent.exit_code) == 0


async def stopped_while_it_loads(start_agent, pki) -> AgentProcess:
    agent = start_agent(fake_load_ms=400)
    port, context = await agent.port(), pki.context(pki.client)
    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        changing = asyncio.ensure_future(reshape(port, context, 1, 2, 4))
        await link.wait_state(AgentState.LOADING)
        await asyncio.sleep(0.1)  # it holds nothing, so it loads by now
        agent.process.terminate()
        assert (await changing)[0] == 409
    return agent


async def test_told_to_stop_while_the_new_engine_loads(start_agent, pki):
    """There is nothing to answer: it ends in good order, and says so to who waits for the change."""
    agent = await stopped_while_it_loads(start_agent, pki)
    assert await asyncio.to_thread(agent.exit_code) == 0
    assert "Traceback" not in agent.log.read_text()


async def test_requests_survive_twenty_changes(start_agent, pki, model_dir):
    """Under load of a link all the while: each request is answered or refused with a reason, none fails."""
    agent = start_agent(engine="ctranslate2", model_dir=str(model_dir), workers=1)
    port, context = await agent.port(), pki.context(pki.client)
    results: list[Answer | Refusal] = []
    changing = True

    async def keep_asking(link: Link) -> None:
        while changing:
            results.append(await link.ask(BODY))
            await asyncio.sleep(0.001)

    def served() -> int:
        return sum(isinstance(one, Answer) for one in results)

    async with await Link.connect(port, pki) as link:
        await link.wait_state(AgentState.READY)
        expected = (await link.ask(BODY)).body
        askers = [asyncio.ensure_future(keep_asking(link)) for _ in range(20)]
        for number in range(20):
            shape = [(2, 1, 4), (1, 2, 4), (1, 2, 16), (1, 1, 4)][number % 4]
            assert (await reshape(port, context, *shape))[0] == 200
            wanted = served() + 20
            await wait_for(lambda wanted=wanted: served() >= wanted)
        changing = False
        await asyncio.gather(*askers)
        assert not link.waiting
        answers = [one for one in results if isinstance(one, Answer)]
        refusals = Counter(one for one in results if isinstance(one, Refusal))
        assert {(one.status, one.body) for one in answers} == {(200, expected)}
        assert set(refusals) <= {Refusal.LOADING, Refusal.FULL}
        assert refusals[Refusal.LOADING] > 0
        await wait_for(lambda: link.loads[-1].refused_total == refusals.total())
        await wait_for(lambda: link.loads[-1].answered_total == len(answers) + 1)
        assert (link.loads[-1].executing, link.loads[-1].waiting) == (0, 0)

"""More is asked than agents can do: who goes first, and who is refused, at once and with a time."""

import asyncio
import json
import random

import pytest
from gateway_harness import KEY, deployment, key, until
from scripted_agent import DIE, HANG, echo, fault

from agents.protocol import Refusal
from appliance.policies.balancing import Policy, Wait

pytestmark = pytest.mark.slow

GREEDY = "mw-greedy"


@pytest.fixture
async def busy(gateway, make_agent):
    """A gateway whose only slot is taken; `agent.script = echo; agent.answer_hung()` lets all through."""
    agent = await make_agent(script=lambda _: HANG)

    async def make(**changes):
        await gateway.serve_by(
            agent.route(slots=1, ahead=0),
            deployments=[deployment(**changes)],
            keys=[key(), key(GREEDY)],
        )
        await gateway.ready(agent)
        first = asyncio.create_task(gateway.embed("first"))
        await gateway.until_accepted(1)
        return agent, [first]

    return make


async def put(gateway, tasks, text, **settings):
    """One more request that waits."""
    before = gateway.stats().accepted
    tasks.append(asyncio.create_task(gateway.embed(text, **settings)))
    await gateway.until_accepted(before + 1)


async def let_through(agent, tasks):
    """The texts in the order in which the agent was given them, and the answers' codes."""
    agent.script = echo
    agent.answer_hung()
    responses = await asyncio.gather(*tasks)
    return [json.loads(r.body)["input"] for r in agent.requests], [r.status for r in responses]


async def test_priorities_come_before_arrival(gateway, busy):
    """High, then normal, then low, whoever came first."""
    agent, tasks = await busy()
    for text, priority in (("l", "low"), ("n", "normal"), ("none", None), ("h", "high")):
        await put(gateway, tasks, text, x_priority=priority)
    texts, statuses = await let_through(agent, tasks)
    assert (texts, set(statuses)) == (["first", "h", "n", "none", "l"], {200})


async def test_a_greedy_key_has_no_more_than_its_share(gateway, busy):
    """Two of one key that come after ten of another are served among the first five."""
    agent, tasks = await busy()
    for number in range(10):
        await put(gateway, tasks, f"greedy {number}", text_key=GREEDY)
    for number in range(2):
        await put(gateway, tasks, f"modest {number}", text_key=KEY)
    texts, statuses = await let_through(agent, tasks)
    assert {"modest 0", "modest 1"} <= set(texts[1:6])
    assert set(statuses) == {200}


async def test_earlier_deadlines_of_a_key_come_first(gateway, busy):
    """Among requests of one key, whatever their order of arrival."""
    agent, tasks = await busy()
    for milliseconds in (9000, 8000, 7000):
        await put(gateway, tasks, f"{milliseconds}", x_deadline_ms=f"{milliseconds}")
    texts, _ = await let_through(agent, tasks)
    assert texts == ["first", "7000", "8000", "9000"]


async def test_low_priority_is_shed_first(gateway, busy):
    """A high one takes the newest low one's place, which is answered 429 with a time; both are counted."""
    agent, tasks = await busy(queue_limit=2)
    for number in range(2):
        await put(gateway, tasks, f"low {number}", x_priority="low")
    await put(gateway, tasks, "high", x_priority="high")
    shed = await tasks.pop(2)
    assert (shed.status, shed.error["code"]) == (429, "overloaded")
    assert 1 <= int(shed.headers["retry-after"]) <= 60
    assert 1000 <= int(shed.headers["retry-after-ms"]) <= 60_000
    assert shed.headers["x-should-retry"] == "true"
    texts, statuses = await let_through(agent, tasks)
    assert (texts, statuses) == (["first", "high", "low 0"], [200, 200, 200])
    assert (gateway.stats().accepted, gateway.stats().shed, gateway.stats().answered) == (4, 1, 3)


async def test_a_modest_key_finds_a_place_in_a_queue_that_a_greedy_one_filled(gateway, busy):
    """The greedy key's newest is shed for it."""
    agent, tasks = await busy(queue_limit=4)
    for number in range(4):
        await put(gateway, tasks, f"{number}", text_key=GREEDY)
    await put(gateway, tasks, "modest")
    assert (await tasks.pop(4)).status == 429
    _, statuses = await let_through(agent, tasks)
    assert set(statuses) == {200}


async def test_the_queue_is_bounded_by_tokens(gateway, busy):
    """Few large requests fill it as many small ones do; the message names the bound."""
    agent, tasks = await busy(queue_tokens=1000)
    await put(gateway, tasks, "x" * 3000)
    refused = await gateway.embed("x" * 3000)
    assert (refused.status, refused.error["code"]) == (429, "overloaded")
    assert "1000 tokens" in refused.error["message"]
    await put(gateway, tasks, "small")
    _, statuses = await let_through(agent, tasks)
    assert set(statuses) == {200}


async def test_who_cannot_be_served_in_time_is_refused_at_once(gateway, busy):
    """By the measured drain rate, with the time to come back; a longer deadline may wait."""
    agent, tasks = await busy()
    drain = gateway.gateway.fleet.deployments["mini"].drain
    drain._per_slot = [0.0, 100.0, 0.0]  # tokens per second
    await until(lambda: drain.wait_s(100.0, 1))
    await put(gateway, tasks, "x" * 2000, x_priority="high")
    began = asyncio.get_running_loop().time()
    refused = await gateway.embed(x_deadline_ms="2000")
    assert asyncio.get_running_loop().time() - began < 1.9  # else it would end at its deadline
    assert (refused.status, refused.error["code"]) == (429, "overloaded")
    assert "too long for the deadline of 2 s" in refused.error["message"]
    assert 3 <= int(refused.headers["retry-after"]) <= 5
    await put(gateway, tasks, "patient")
    await put(gateway, tasks, "high", x_deadline_ms="2000", x_priority="high")
    _, statuses = await let_through(agent, tasks)
    assert set(statuses) == {200}
    assert gateway.stats().shed == 1


async def test_what_expires_in_the_queue_is_never_sent(gateway, busy):
    """504 at its deadline, and the agent does not see it."""
    agent, tasks = await busy()
    expired = await gateway.embed("late", x_deadline_ms="100")
    assert (expired.status, expired.error["code"]) == (504, "deadline_exceeded")
    texts, statuses = await let_through(agent, tasks)
    assert (texts, statuses) == (["first"], [200])


async def test_who_had_better_wait_is_looked_at_again(gateway, make_agent):
    """A policy that leaves room unused is asked again when it said, and for each that comes."""
    agent = await make_agent()
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    said = [Wait(0.02), Wait(0.0), Wait(0.02)]
    policy = Policy("hesitant", lambda *_: said.pop() if said else 0, compares=True)
    gateway.gateway.fleet.deployments["mini"].pool.policy = policy
    assert [r.status for r in await asyncio.gather(*(gateway.embed() for _ in range(3)))] == [200] * 3
    assert said == []


@pytest.mark.parametrize("seed", range(2))
async def test_every_request_ends_once_whatever_happens(gateway, make_agent, seed):
    """Random priorities, deadlines, keys, equal texts, leaving clients, errors, refusals and deaths."""
    chance = random.Random(seed)

    def script(request):
        acts = [echo(request)] * 6 + [HANG, HANG, fault(request), Refusal.FULL, Refusal.LOADING, DIE]
        return chance.choice(acts)

    agents = [await make_agent(script=script) for _ in range(3)]
    await gateway.serve_by(
        *(agent.route(slots=2, ahead=1) for agent in agents),
        deployments=[deployment(queue_limit=20, cache_bytes=20_000, deadline_s=3.0)],
        keys=[key(), key(GREEDY)],
    )
    tasks = []
    for _ in range(250):
        settings = {
            "x_priority": chance.choice(["high", "normal", "low"]),
            "x_deadline_ms": f"{chance.choice([50, 500, 3000])}",
            "x_no_cache": chance.choice([None, None, "1"]),
            "text_key": chance.choice([KEY, GREEDY, GREEDY]),
        }
        tasks.append(asyncio.create_task(gateway.embed(f"{chance.randrange(40)}", **settings)))
        if chance.random() < 0.2:
            chance.choice(tasks).cancel()
        if chance.random() < 0.3:
            chance.choice(agents).answer_hung_with(lambda r: chance.choice([echo(r), fault(r)]))
        await asyncio.sleep(chance.choice([0, 0, 0.002, 0.01]))
    for agent in agents:
        agent.script = echo
        agent.answer_hung()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    statuses = {r.status for r in ended if not isinstance(r, BaseException)}
    assert {200} <= statuses <= {200, 429, 500, 503, 504}
    assert {type(r) for r in ended if isinstance(r, BaseException)} <= {asyncio.CancelledError}
    samples = await gateway.metrics()
    assert samples["millwright_finished_total{answered}"] >= 50
    assert gateway.gateway.fleet.calls_shared() == []


async def test_overload_of_three_times_the_capacity(gateway, make_agent):
    """Whoever is answered is answered in time, high priority wholly; the rest is told when to come back."""
    agent = await make_agent(script=lambda _: HANG)
    await gateway.serve_by(agent.route(slots=2, ahead=0), keys=[key(), key(GREEDY)])
    await gateway.ready(agent)
    serving = asyncio.create_task(_answer_evenly(agent, every_s=0.02))
    tasks = {"high": [], "normal": []}
    for number in range(240):  # 150 a second, where 100 a second can be answered
        name = "high" if number % 10 == 0 else "normal"
        text_key = GREEDY if number % 2 else KEY
        tasks[name].append(
            asyncio.create_task(
                gateway.embed(f"{number}", x_deadline_ms="700", x_priority=name, text_key=text_key)
            )
        )
        await asyncio.sleep(0.00667)
    high = [(await task).status for task in tasks["high"]]
    normal = [(await task).status for task in tasks["normal"]]
    serving.cancel()
    assert set(high) == {200}
    assert set(normal) <= {200, 429, 504}
    assert normal.count(200) > 50
    assert normal.count(504) < normal.count(429) + normal.count(200) / 4


async def _answer_evenly(agent, every_s):
    while True:
        await asyncio.sleep(every_s)
        agent.answer_hung()

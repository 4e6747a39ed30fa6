"""Faults of all kinds at random under load: each request has one outcome, and in the end nothing is left."""

import asyncio
import random

import pytest
from gateway_harness import deployment, until
from scripted_agent import DIE, HANG, Slowly, busy, echo, fault

from agents.protocol import Refusal

SCRIPTS = [
    *[lambda _: Slowly(0.003)] * 4,
    echo,
    fault,
    busy,
    lambda _: DIE,
    lambda _: HANG,
    lambda _: Slowly(0.3),
    lambda _: Refusal.FULL,
]


async def ask_for_ever(gateway, dice, statuses, ended):
    while not ended.is_set():
        task = asyncio.ensure_future(gateway.embed(x_deadline_ms=str(dice.choice([300, 1000, 5000]))))
        if dice.random() < 0.1:
            await asyncio.sleep(dice.random() * 0.05)
            task.cancel()  # the client leaves
            await asyncio.gather(task, return_exceptions=True)
        else:
            statuses.append((await task).status)


async def trouble(agent, dice, ended):
    """One agent's bad day."""
    while not ended.is_set():
        agent.script = dice.choice(SCRIPTS)
        await asyncio.sleep(dice.random() * 0.4)
        what = dice.random()
        if what < 0.3:
            agent.freeze()
            await asyncio.sleep(dice.random())
            agent.thaw()
        elif what < 0.4:
            agent.kill()
            await asyncio.sleep(dice.random() * 0.2)
            await agent.start()
    agent.script = echo
    agent.answer_hung()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("settings", [{"hedging": True}, {"hedging": True, "cache_bytes": 1000}, {}], ids=str)
async def test_every_request_has_one_outcome(gateway, make_agent, seed, settings):
    """Four agents in trouble and one that is well; whatever they do, the counters balance."""
    dice = random.Random(seed)
    agents = [await make_agent(script=lambda _: Slowly(0.003), beats=bool(number)) for number in range(5)]
    await gateway.serve_by(*agents, deployments=[deployment(max_agents=5, **settings)])
    await gateway.ready(*agents)
    statuses, ended = [], asyncio.Event()
    clients = [asyncio.create_task(ask_for_ever(gateway, dice, statuses, ended)) for _ in range(16)]
    troubles = [asyncio.create_task(trouble(agent, dice, ended)) for agent in agents[:4]]
    for _ in range(4):
        before = len(statuses)
        await until(lambda: len(statuses) > before + 100, 20)  # noqa: B023 - awaited at once
        await gateway.metrics()
    ended.set()
    await asyncio.gather(*troubles, *clients)
    assert set(statuses) <= {200, 429, 500, 504}
    assert statuses.count(200) > 0.9 * len(statuses)
    await gateway.assert_conserved()
    await until(lambda: not any(agent.pending for agent in gateway.gateway.fleet.every_agent()))
    attempts = gateway.gateway.stats.attempts
    sent = sum(agent.slots.sent for agent in gateway.gateway.fleet.every_agent())
    assert sum(attempts.values()) == sent

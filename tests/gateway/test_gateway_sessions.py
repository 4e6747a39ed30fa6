"""Requests of one session go to one agent, where the deployment asks for it."""

import asyncio
from collections import Counter

import pytest
from gateway_harness import deployment, until
from scripted_agent import DIE, HANG, echo, fault

from agents.protocol import AgentState, Refusal
from appliance.gateway import sessions
from appliance.gateway.tracker import AgentSlots, Pool, Reservation
from appliance.policies.balancing import find_policy
from appliance.policies.snapshot import AgentRoute


@pytest.fixture
def start(gateway, make_agent):
    """A gateway with some agents of four slots for a sticky deployment."""

    async def make(count=3, *, slots=4, beats=False, **changes):
        made = [await make_agent(beats=beats) for _ in range(count)]
        await gateway.serve_by(
            *(agent.route(slots=slots, ahead=0) for agent in made),
            deployments=[deployment(**{"sticky": True, **changes})],
        )
        await gateway.ready(*made)
        return made

    return make


async def served_by(gateway, session, text="hello"):
    """Who answers a request of a session."""
    response = await gateway.embed(text, x_session=session)
    assert response.status == 200
    return response.headers["x-served-by"]


async def test_a_session_keeps_its_agent_and_many_use_all(gateway, start):
    """Each session has one agent; together they use every agent."""
    await start()
    used = Counter()
    for number in range(24):
        answered = {await served_by(gateway, f"user-{number}", str(turn)) for turn in range(3)}
        assert len(answered) == 1
        used.update(answered)
    assert len(used) == 3


async def test_without_a_session_requests_are_balanced_as_ever(gateway, start):
    """No header, or a deployment that does not ask for it: idle agents take turns."""
    await start(balancing="round_robin")
    assert len({await served_by(gateway, None) for _ in range(6)}) == 3
    await start(balancing="round_robin", sticky=False)
    assert len({await served_by(gateway, "one") for _ in range(6)}) == 3


async def test_one_busy_session_spreads_to_the_next(gateway, start):
    """Over its share an agent gets no more of it: the next one does, and none is over the bound."""
    agents = await start(slots=16)
    for agent in agents:
        agent.script = lambda _: HANG
    tasks = []
    for number in range(24):
        tasks.append(asyncio.create_task(gateway.embed(str(number), x_session="one")))
        await gateway.until_accepted(number + 1)
    await until(lambda: sum(len(agent.requests) for agent in agents) == 24)
    held = sorted(len(agent.requests) for agent in agents)
    assert held[-1] == 10  # 1.25 x 24 / 3
    for agent in agents:
        agent.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}


async def test_an_agent_without_room_gives_its_sessions_to_others(gateway, start):
    """With every slot of its agent taken a request of the session does not wait while another is free."""
    agents = await start(2, slots=1)
    owner = await served_by(gateway, "one")
    [own] = [agent for agent in agents if owner.endswith(agent.id)]
    own.script = lambda _: HANG
    first = asyncio.create_task(gateway.embed("first", x_session="one"))
    await gateway.until_accepted(2)
    assert await served_by(gateway, "one") != owner
    own.answer_hung()
    assert (await first).headers["x-served-by"] == owner
    own.script = echo
    assert await served_by(gateway, "one") == owner


@pytest.mark.parametrize("how", ["draining", "refusing", "dead", "failing"])
async def test_an_agent_that_takes_no_work_is_not_picked_for_a_session(gateway, start, how):
    """Its sessions are answered elsewhere, all by the same one; nothing fails."""
    agents = await start()
    owner = await served_by(gateway, "one")
    [own] = [agent for agent in agents if owner.endswith(agent.id)]
    if how == "draining":
        own.set_state(AgentState.DRAINING)
    else:
        own.script = {"refusing": lambda _: Refusal.DRAINING, "dead": lambda _: DIE, "failing": fault}[how]
    answered = {await served_by(gateway, "one", str(turn)) for turn in range(4)}
    assert len(answered) == 1
    assert owner not in answered


async def test_an_ejected_agent_gets_no_session_until_it_is_back(gateway, start):
    """Silent, its sessions are answered by another at once; heard again, they are its own again."""
    agents = await start(beats=True)
    owner = await served_by(gateway, "one")
    [own] = [agent for agent in agents if owner.endswith(agent.id)]
    await until(lambda: gateway.gateway.fleet.agents[own.id].slots.beat)
    own.freeze()
    await until(lambda: gateway.state(own) == "ejected")
    asked = len(own.requests)
    assert len({await served_by(gateway, "one", str(turn)) for turn in range(4)} - {owner}) == 1
    assert len(own.requests) == asked
    own.thaw()
    await until(lambda: gateway.state(own) == "ready")
    assert await served_by(gateway, "one") == owner


async def test_sessions_of_agents_that_stay_are_not_moved(gateway, start):
    """One agent is gone: whoever was with another still is."""
    agents = await start()
    names = [f"user-{number}" for number in range(20)]
    before = {name: await served_by(gateway, name) for name in names}
    gone = agents[0]
    await gateway.serve_by(
        *(agent.route(slots=4, ahead=0) for agent in agents[1:]), deployments=[deployment(sticky=True)]
    )
    after = {name: await served_by(gateway, name) for name in names}
    moved = [name for name in names if before[name] != after[name]]
    assert moved == [name for name in names if before[name].endswith(gone.id)]


@pytest.mark.parametrize(("session", "status"), [("x" * 256, 200), ("x" * 257, 400), ("", 400)])
async def test_a_sessions_key_is_bounded(gateway, start, session, status):
    """1 to 256 bytes; else 400 naming the header, also where the deployment is not sticky."""
    await start(1, sticky=False)
    response = await gateway.embed(x_session=session)
    assert response.status == status
    if status == 400:
        assert response.error["param"] == "x-session"
        assert "1 to 256" in response.error["message"]


class CountedRing(sessions.Ring):
    """Counts how often a ring was made."""

    __slots__ = ()
    made = 0

    def __init__(self, ids):
        CountedRing.made += 1
        super().__init__(ids)


def ready(name):
    """A warm agent as the gateway sees it."""
    agent = AgentSlots(AgentRoute(name, "mini", "box", "h", 1, (), "warm", 4, 0))
    agent.state = AgentState.READY
    return agent


def test_the_ring_is_made_once_for_each_change_of_the_pool(monkeypatch):
    """Not for each request, and not where nobody has a session."""
    monkeypatch.setattr(sessions, "Ring", CountedRing)
    CountedRing.made = 0
    pool = Pool(find_policy("round_robin"))
    pool.agents = [ready(f"a{number}") for number in range(1000)]
    pool.refresh()
    assert isinstance(pool.reserve(), Reservation)
    assert CountedRing.made == 0
    for number in range(200):
        found = pool.reserve(session=b"%d" % number)
        assert isinstance(found, Reservation)
        found.release()
        pool.refresh()
    assert CountedRing.made == 1
    assert pool.held == 1
    pool.agents = pool.agents[1:]
    pool.refresh()
    pool.reserve(session=b"one")
    assert CountedRing.made == 2

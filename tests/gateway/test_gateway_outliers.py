"""Agents that fail at once get less than their share, clients see no error, and who is well is taken back."""

import asyncio

import pytest
from gateway_harness import deployment, until
from scripted_agent import DIE, Slowly, busy, echo, fault

from appliance.policies.balancing import policy_names
from appliance.policies.health import FIRST_S, Phase

WELL = Slowly(0.004)

pytestmark = pytest.mark.slow


def slots_of(gateway, agent):
    return gateway.gateway.fleet.agents[agent.id].slots


async def load(gateway, clients, each):
    """So many clients with so many requests one after the other: the statuses of all answers."""

    async def ask():
        return [(await gateway.embed()).status for _ in range(each)]

    return [
        status for statuses in await asyncio.gather(*(ask() for _ in range(clients))) for status in statuses
    ]


async def serve_three(gateway, make_agent, script, **changes):
    """Three agents that are equally good, until one begins to fail."""
    agents = [await make_agent(script=lambda _: WELL, beats=True) for _ in range(3)]
    await gateway.serve_by(*agents, deployments=[deployment(**changes)])
    await gateway.ready(*agents)
    assert set(await load(gateway, 12, 3)) == {200}
    for agent in agents:
        slots_of(gateway, agent).sent = 0
    agents[0].script = script
    return agents


@pytest.mark.parametrize("policy", policy_names())
@pytest.mark.parametrize("script", [fault, busy, lambda _: DIE], ids=["500", "429", "breaks"])
async def test_who_fails_at_once_attracts_no_traffic(gateway, make_agent, script, policy):
    """One of three equal agents gets less than half its share of the attempts, and no client sees it."""
    bad, *_ = agents = await serve_three(gateway, make_agent, script, balancing=policy)
    assert set(await load(gateway, 20, 12)) == {200}
    attempts = [slots_of(gateway, agent).sent for agent in agents]
    assert 0 < attempts[0] < sum(attempts) / 6
    assert slots_of(gateway, bad).health.in_row or slots_of(gateway, bad).health.phase is Phase.EJECTED


async def test_who_refuses_connections_attracts_no_traffic(gateway, make_agent):
    """It is not there, so nothing is tried."""
    bad, *_ = agents = await serve_three(gateway, make_agent, fault)
    bad.kill()
    await until(lambda: gateway.state(bad) == "connecting")
    assert set(await load(gateway, 12, 6)) == {200}
    assert slots_of(gateway, bad).sent == 0
    assert sum(slots_of(gateway, agent).sent for agent in agents) == 72


async def test_who_is_well_again_is_tried_and_taken_back(gateway, make_agent):
    """One request decides; then it has its share again."""
    bad, *_ = await serve_three(gateway, make_agent, fault, balancing="round_robin")
    await load(gateway, 6, 8)
    await until(lambda: slots_of(gateway, bad).health.phase is Phase.EJECTED)
    assert slots_of(gateway, bad).health.until is not None
    reader = await gateway.inner()
    report = await reader.next("report")
    (shown,) = [agent for agent in report["agents"] if agent["id"] == bad.id]
    assert shown["state"] in {"ejected", "ready"}
    assert shown["health"].startswith("it answered with errors")
    reader.close()
    bad.script = lambda _: WELL
    tried = slots_of(gateway, bad).sent
    while slots_of(gateway, bad).health.phase is not Phase.HEALTHY:
        assert set(await load(gateway, 6, 1)) == {200}
    assert set(await load(gateway, 12, 6)) == {200}
    assert slots_of(gateway, bad).sent > tried + 5


async def test_who_fails_its_trial_stays_away_for_longer(gateway, make_agent):
    """Each trial costs one attempt."""
    bad, *_ = await serve_three(gateway, make_agent, fault, balancing="round_robin")
    slots, now = slots_of(gateway, bad), asyncio.get_running_loop().time
    while slots.health.times < 2:
        sent, times = slots.sent, slots.health.times
        assert set(await load(gateway, 6, 2)) == {200}
        if times and slots.health.times > times:
            assert slots.sent == sent + 1
    assert FIRST_S < slots.health.until - now() <= 2 * FIRST_S


async def test_where_all_fail_health_is_ignored(gateway, make_agent):
    """The answers come through as they are, from all of them."""
    agents = [await make_agent(script=fault, beats=True) for _ in range(3)]
    await gateway.serve_by(*agents)
    await gateway.ready(*agents)
    assert set(await load(gateway, 6, 10)) == {500}
    assert sum(slots_of(gateway, agent).health.phase is Phase.EJECTED for agent in agents) <= 1
    for agent in agents:
        agent.script = echo
    assert set(await load(gateway, 6, 2)) == {200}


async def test_a_lone_agent_is_never_ejected(gateway, make_agent):
    """There is nobody better."""
    agent = await make_agent(script=fault, beats=True)
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    assert set(await load(gateway, 2, 10)) == {500}
    assert gateway.state(agent) == "ready"
    agent.script = busy
    assert set(await load(gateway, 1, 2)) == {429}
    agent.script = echo
    assert set(await load(gateway, 2, 2)) == {200}

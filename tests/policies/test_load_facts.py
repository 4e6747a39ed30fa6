"""What a deployment's load is, from reports."""

from dataclasses import replace

import pytest
from fleet_builders import (
    agent,
    agent_report,
    deployment,
    deployment_report,
    gateway_report,
    histogram,
    snapshot,
)

from appliance.policies.fleet import FleetSnapshot
from appliance.policies.load_facts import cpu_percent, load_of
from appliance.policies.report import Histogram
from appliance.policies.turn import Turn


def load_in(fleet: FleetSnapshot):
    """Of the first deployment."""
    return load_of(Turn(fleet, fleet.deployments[0], list(fleet.agents)))


def test_answers_from_memory_ask_no_agent():
    """What the cache answered, or one under way, is not counted; how long agents took is."""
    counted = deployment_report(
        accepted=100, answered=80, failed=3, shed=5, cancelled=2, in_flight=4, queued=6, cache_hits=30,
        cache_shared=10, executed=40, service_s=8.0, oldest_wait_s=1.5, concurrency_s=77.0,
    )  # fmt: skip
    report = gateway_report(agent_report(), deployments=[counted])
    load = load_in(snapshot(agents=[agent()], reports=(report,)))
    [gateway] = load.gateways
    assert (gateway.accepted, gateway.finished, gateway.service_s) == (60, 40, 8.0)
    assert (gateway.in_flight, gateway.queued, gateway.oldest_wait_s) == (4, 6, 1.5)
    assert gateway.process == f"gateway-1@{report.started_at:.3f}"
    assert (load.ready, load.complete, load.held) == (1, True, False)


@pytest.mark.parametrize(
    ("said", "percent"),
    [
        pytest.param({"a": (80.0, 0.5), "b": (20.0, 0.5)}, 50.0, id="the mean of nodes"),
        pytest.param({"a": (80.0, 0.5), "b": (None, 0.5)}, None, id="one does not tell"),
        pytest.param({"a": (80.0, 0.5), "b": (20.0, 9.0)}, None, id="one told long ago"),
        pytest.param({"a": (80.0, 0.5)}, None, id="one is not there"),
    ],
)
def test_cpu_of_the_nodes_that_agents_are_on(said, percent):
    """Each node counts once; where one is not known nothing is."""
    agents = [agent("a-1", node="a"), agent("a-2", node="a"), agent("b-1", node="b")]
    seen = [
        replace(agent_report(one.id, node_cpu_percent=said[one.node][0]), node=one.node,
                load_age_s=said[one.node][1])
        for one in agents if one.node in said
    ]  # fmt: skip
    fleet = snapshot(agents=agents, reports=(gateway_report(*seen),))
    assert cpu_percent(fleet, agents) == percent
    assert cpu_percent(fleet, []) is None


def test_how_long_requests_took_is_told_where_a_target_is_set():
    """Else each record of a tick would have it. Who does not count it, or in other buckets, says nothing."""
    counted = deployment_report(tokens=700, duration=histogram(b5=4), first_token=histogram(b3=4))
    fleet = snapshot(agents=[agent()], reports=(gateway_report(agent_report(), deployments=[counted]),))
    [plain] = load_in(fleet).gateways
    assert (plain.durations, plain.first_tokens, plain.tokens) == (None, None, 700)
    [timed] = load_in(with_policy(fleet, target_ttft_ms=100.0)).gateways
    assert (timed.durations, timed.first_tokens) == (None, counted.first_token.counts)
    [timed] = load_in(with_policy(fleet, target_p95_ms=100.0)).gateways
    assert (timed.durations, timed.first_tokens) == (counted.duration.counts, None)
    for older in (None, Histogram((1, 2), 0.5)):
        report = gateway_report(agent_report(), deployments=[replace(counted, first_token=older)])
        [gateway] = load_in(with_policy(replace(fleet, reports=(report,)), target_ttft_ms=100.0)).gateways
        assert gateway.first_tokens is None


def with_policy(fleet, **targets):
    one = fleet.deployments[0]
    return replace(fleet, deployments=(replace(one, policy=replace(one.policy, **targets)),))


def test_silence_is_told():
    """A gateway that is silent makes the load incomplete, and a held request is seen without a report."""
    load = load_in(snapshot(agents=[agent()], silent=("g2",), held=frozenset({"mini"})))
    assert (load.complete, load.held) == (False, True)
    assert load_in(snapshot(deployments=[deployment()], reports=())).gateways == ()

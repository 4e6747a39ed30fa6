"""The last hour under other values: what was recorded of it, replayed by both policies."""

from dataclasses import replace

import pytest

from appliance.policies.scaling import GatewayLoad, Load, ScalingPolicy
from appliance.simulate import last_hour
from appliance.simulate.last_hour import compare_policies
from appliance.simulate.recorded import Answer, Given, Tick

POLICY = ScalingPolicy(
    min_agents=0, max_agents=20, slots=1.0, start_s=3.0, slo_wait_s=2.0, stabilization_s=14.0, idle_s=75.0
)


def recorded(seconds, rate, *, service_s=0.5, policy=POLICY, started_at=1.0, tokens=None):
    """A tick a second; `rate` says how many requests came in each, of so many `tokens`."""
    ticks, accepted = [], 0
    for number in range(seconds):
        now = 1_800_000_000.0 + number
        accepted += rate(number)
        gateway = GatewayLoad(
            f"g@{started_at}", started_at, now, 0.0, 0, 0, accepted, accepted, accepted * service_s,
            tokens=None if tokens is None else accepted * tokens,
        )  # fmt: skip
        ticks.append(Tick(now, Given(policy, Load(2, 2, (gateway,)), Answer(2)), whole=number == 0))
    return ticks


def bursts(number):
    return 12 if number % 120 < 20 else 1


def test_equal_values_are_equal():
    """The same policy twice: both sides are the same, and they tell of all that came."""
    ticks = recorded(300, bursts)
    found = compare_policies(ticks, POLICY, POLICY)
    assert found.old == found.new
    assert found.requests == sum(map(bursts, range(1, 300)))
    assert (found.seconds, found.service_s, found.slots) == (299.0, pytest.approx(0.5), 1)
    assert found.old.highest > 5
    assert found.old.agent_seconds > 299


def test_a_low_maximum_misses_more():
    """With two agents at most the bursts wait, and that costs fewer agent-seconds."""
    found = compare_policies(recorded(300, bursts), POLICY, replace(POLICY, max_agents=2))
    assert found.new.misses > 5 * found.old.misses
    assert found.new.agent_seconds < found.old.agent_seconds
    assert (found.new.highest, found.new.misses_percent > 10) == (2, True)


def test_a_minimum_costs_agents():
    """Agents that always stand ready: more agent-seconds, nothing that waits."""
    found = compare_policies(recorded(300, bursts), POLICY, replace(POLICY, min_agents=12))
    assert found.new.misses <= found.old.misses
    assert found.new.agent_seconds > found.old.agent_seconds
    assert found.new.cold_starts < found.old.cold_starts


def test_targets_that_the_plant_has_no_figures_for_are_left_out():
    """They are named; without them the others decide, and agents go again. Of tokens it has figures."""
    timed = replace(POLICY, target_ttft_ms=50.0, target_p95_ms=60.0)
    weighed = replace(POLICY, target_tokens_per_s=100.0)
    ticks = recorded(150, lambda _: 3, tokens=200)
    found = compare_policies(ticks, POLICY, timed)
    assert (found.new, found.left_out) == (found.old, ("target_p95_ms", "target_ttft_ms"))
    found = compare_policies(ticks, POLICY, weighed)
    assert (found.old.highest, found.new.highest, found.left_out) == (3, 6, ())
    found = compare_policies(recorded(150, lambda _: 3), POLICY, weighed)
    assert (found.new, found.left_out) == (found.old, ("target_tokens_per_s",))


@pytest.mark.slow
def test_only_the_last_hour(monkeypatch):
    """What is older is not looked at; and of very many requests only the newest are."""
    monkeypatch.setattr(last_hour, "SPAN_S", 300.0)
    found = compare_policies(recorded(500, lambda n: n % 2), POLICY, POLICY)
    assert found.seconds == 300.0
    monkeypatch.setattr(last_hour, "MOST_REQUESTS", 4000)
    many = compare_policies(recorded(400, lambda _: 20), POLICY, POLICY)
    assert (many.requests, many.seconds) == (4000, 200.0)


@pytest.mark.parametrize(
    ("ticks", "said"),
    [([], "only 0 s"), (recorded(30, bursts), "only 29 s"), (recorded(300, lambda _: 0), "no request came")],
)
def test_too_little_is_said(ticks, said):
    """Without requests, or without minutes, there is nothing to compare."""
    found = compare_policies(ticks, POLICY, POLICY)
    assert (found.old, found.new) == (None, None)
    assert said in found.why_not


def test_a_gateway_that_starts_again_counts_on():
    """Another process begins from its own zero; nothing is counted twice."""
    first = recorded(200, lambda _: 1)
    second = [
        replace(tick, now=tick.now + 200) for tick in recorded(200, lambda _: 1, started_at=1_800_000_200.0)
    ]
    found = compare_policies([*first, *second], POLICY, POLICY)
    assert 390 <= found.requests <= 400


@pytest.mark.parametrize(
    "values", [{"hold": 0}, {"max_agents": 1, "slo_wait_s": 0.5}], ids=["nobody serves", "far too few do"]
)
def test_values_that_never_serve_come_to_an_end(values):
    """What nobody serves within a while after the end counts as missed: no replay goes on for ever."""
    new = replace(POLICY, **values)
    found = compare_policies(recorded(300, lambda _: 40, policy=new), POLICY, new)
    assert found.requests == 299 * 40
    assert found.new.misses > 0.9 * found.requests

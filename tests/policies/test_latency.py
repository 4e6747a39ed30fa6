"""The p95 of late, from histograms that only grow."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.policies.latency import (
    BUCKETS,
    NO_LATENCY,
    counts_of,
    latency_from_json,
    observe_latency,
    p95_ms,
)
from appliance.policies.report import LATENCY_BUCKETS_S, Histogram, bucket_index
from appliance.policies.scaling import GatewayLoad, Load, ScalingPolicy, decide

NOW = 1_000_000.0


def counts(**seconds):
    """So many that took so long: `counts(fast=9, slow=1)`, 10 ms and 1 s."""
    values = [0] * BUCKETS
    for name, count in seconds.items():
        values[bucket_index({"fast": 0.010, "slow": 0.9}[name])] += count
    return tuple(values)


def test_what_was_before_does_not_count():
    """A gateway that runs already adds what comes from now on, one that starts adds all."""
    latency = observe_latency(NO_LATENCY, [("old@0", NOW - 900, counts(slow=500))], NOW)
    assert p95_ms(latency) is None
    latency = observe_latency(latency, [("old@0", NOW - 900, counts(slow=500, fast=100))], NOW + 1)
    assert p95_ms(latency) == pytest.approx(12, abs=4)
    latency = observe_latency(latency, [("new@1", NOW + 1, counts(slow=100))], NOW + 2)
    assert p95_ms(latency) > 768


def test_slow_ones_are_forgotten():
    """Twenty seconds after the last slow answer none is seen, and sooner where the newest are fast."""
    latency = observe_latency(NO_LATENCY, [("g@0", NOW, counts())], NOW)
    latency = observe_latency(latency, [("g@0", NOW, counts(slow=50))], NOW + 1)
    assert p95_ms(latency) > 768
    quiet = observe_latency(latency, [("g@0", NOW, counts(slow=50))], NOW + 26)
    assert p95_ms(quiet) is None
    for after in range(2, 14):
        latency = observe_latency(latency, [("g@0", NOW, counts(slow=50, fast=after))], NOW + after)
    assert p95_ms(latency) < 20


def test_lost_reports_and_restarts_lose_nothing():
    """What was counted while nobody listened counts at the next report; a new process is no negative."""
    latency = observe_latency(NO_LATENCY, [("g@0", NOW, counts())], NOW)
    for after in (1, 2, 3):
        latency = observe_latency(latency, [], NOW + after)
    latency = observe_latency(latency, [("g@0", NOW, counts(slow=9))], NOW + 4)
    assert sum(sum(values) for _, values in latency.slices) == 9
    latency = observe_latency(latency, [("g@5", NOW + 4.5, counts(fast=3))], NOW + 5)
    assert sum(sum(values) for _, values in latency.slices) == 12


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 9)), max_size=40))
def test_json_keeps_it_and_it_stays_small(steps):
    """The memory survives JSON at any step, and has a bound."""
    latency, totals = NO_LATENCY, {}
    for number, (process, fast, slow) in enumerate(steps):
        had = totals.get(process, (0, 0))
        totals[process] = (had[0] + fast, had[1] + slow)
        seen = counts(fast=totals[process][0], slow=totals[process][1])
        latency = observe_latency(latency, [(process, NOW, seen)], NOW + number)
        text = json.dumps(latency.to_json())
        assert latency_from_json(json.loads(text)) == latency
        assert len(text) < 2000


def test_other_buckets_are_not_understood():
    """What a version with other buckets has kept is refused, and what it counts is as if it did not."""
    with pytest.raises(ValueError, match="2 counts, 30 are accepted"):
        latency_from_json({"slices": [[NOW, [1, 2]]]})
    assert len(LATENCY_BUCKETS_S) + 1 == BUCKETS
    assert counts_of(Histogram((1, 2), 0.1)) is None
    assert counts_of(None) is None
    assert counts_of(Histogram(counts(fast=1), 0.1)) == counts(fast=1)


def test_a_target_of_p95_brings_agents_until_it_is_met():
    """Slow answers bring more than are ready; once the newest are fast nothing more comes, nor goes."""
    policy = ScalingPolicy(min_agents=1, max_agents=20, slots=1.0, target_p95_ms=100.0)
    state, current, slow, fast, seen = None, 2, 0, 0, []
    for second in range(1, 40):
        slow, fast = (slow + 20, fast) if second <= 10 else (slow, fast + 20)
        gateway = GatewayLoad(
            "g@0", NOW, NOW + second, second * 0.5, 1, 0, slow + fast, slow + fast, (slow + fast) * 0.01,
            durations=counts(slow=slow, fast=fast),
        )  # fmt: skip
        decision = decide(policy, Load(current, 2, (gateway,)), state, NOW + second)
        state, current = decision.state, decision.replicas
        seen.append(decision)
    assert seen[9].kind == "p95"
    assert "target 100 ms" in seen[9].reason
    assert seen[9].replicas == 4
    assert seen[30].inputs["want_p95"] == 0
    assert max(one.replicas for one in seen) == 4


def test_more_gateways_than_are_remembered_count_once():
    """Twenty gateways are there all the time: what they had counted before is not counted again."""
    latency = observe_latency(NO_LATENCY, [], NOW)
    for second in range(1, 4):
        told = [(f"g@{number}", NOW + 1, counts(slow=10)) for number in range(20)]
        latency = observe_latency(latency, told, NOW + second)
        if second == 1:
            first = sum(latency.total())
    assert sum(latency.total()) == first

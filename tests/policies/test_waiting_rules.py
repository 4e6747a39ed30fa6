"""The rules of waiting: tables for single answers, stories with an explicit clock, and what always holds."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.policies.demand import Demand
from appliance.policies.scaling import GatewayLoad, Load, ScalingPolicy, decide, state_from_json
from appliance.policies.waiting_rules import (
    MissChance,
    Queueing,
    agents_for_lasting,
    agents_for_wait,
    servers_for_backlog,
    servers_for_peak,
)

NOW = 1_000_000.0


def queueing(rate, service, *, there=0, slots=1.0, cost=70.0):
    return Queueing(rate, rate, service, there, slots, 1.8, 4.0, cost)


@pytest.mark.parametrize(
    ("rate", "service", "there", "slots", "agents"),
    [
        pytest.param(10.0, 0.5, 5, 1.0, 7, id="the worked figure"),
        pytest.param(0.005, 0.5, 0, 1.0, 0, id="too little to keep one warm"),
        pytest.param(0.005, 0.5, 1, 1.0, 1, id="something is there"),
        pytest.param(100.0, 0.5, 50, 1.0, 53, id="many together need little more than the load"),
        pytest.param(100.0, 0.5, 50, 16.0, 4, id="agents of sixteen slots"),
        pytest.param(0.05, 30.0, 1, 1.0, 2, id="long ones that are there stay"),
        pytest.param(0.05, 30.0, 4, 1.0, 4, id="what is there is not given up"),
        pytest.param(0.5, 5.0, 4, 1.0, 5, id="the more are there the more are needed"),
        pytest.param(10_000.0, 1.0, 10_000, 1.0, 64, id="never above the most"),
    ],
)
def test_agents_for_wait(rate, service, there, slots, agents):
    """An agent is added while the misses it saves are worth more than it."""
    assert agents_for_wait(queueing(rate, service, there=there, slots=slots), 64) == agents


@pytest.mark.slow
@given(
    st.floats(0, 200), st.floats(0.01, 60), st.integers(0, 200), st.floats(1, 16), st.floats(0, 1000)
)  # fmt: skip
def test_more_slots_never_make_a_miss_likelier(rate, service, there, slots, cost):
    """The chance of a miss is one, falls with slots, and is never below zero."""
    chance = MissChance(queueing(rate, service, there=there, slots=slots, cost=cost))
    chances = [chance.of(float(number)) for number in range(0, 400, 7)]
    assert all(0.0 <= one <= 1.0 for one in chances)
    assert all(later <= before + 1e-9 for before, later in pairwise(chances))


def history(*counts, step_s=2.0):
    """Requests that came in each step up to NOW, oldest first."""
    total, pairs = 0, [(NOW - step_s * len(counts), 0)]
    for number, count in enumerate(counts, 1):
        total += count
        pairs.append((NOW - step_s * (len(counts) - number), total))
    return Demand(tuple(pairs), 1.0)


def test_peak_is_what_no_span_would_have_waited_for():
    """Ten requests of a second within two, 1.8 s of waiting: 10 / 4.8; an even flow asks its load."""
    assert servers_for_peak(history(0, 0, 10), NOW, queueing(1.0, 1.0)) == pytest.approx(10 / 4.8)
    assert servers_for_peak(history(*[4] * 30), NOW, queueing(2.0, 1.0)) == pytest.approx(120 / 62.8)


@pytest.mark.parametrize(
    ("rate", "late", "current", "kept"),
    [
        pytest.param(20.0, 128, 8, 4, id="three times the mean for twelve seconds: what that occupies"),
        pytest.param(20.0, 128, 2, 2, id="no more than there are"),
        pytest.param(64.0, 128, 8, 0, id="the mean says as much"),
        pytest.param(1.0, 2, 8, 0, id="perhaps chance"),
    ],
)
def test_lasting(rate, late, current, kept):
    """Nobody goes whom the last twelve seconds kept busy, whatever the mean of a minute says."""
    demand = history(*[0] * 20, *[late] * 6)
    assert agents_for_lasting(demand, NOW, queueing(rate, 0.05, there=3), current) == kept


@pytest.mark.parametrize(
    ("queued", "ready", "wanted"),
    [
        pytest.param(0, 4, 0.0, id="nothing waits"),
        pytest.param(4, 4, 0.0, id="it goes soon"),
        pytest.param(40, 4, 17.0, id="it would wait ten seconds"),
        pytest.param(5, 0, 9.5, id="nobody is there"),
    ],
)
def test_backlog(queued, ready, wanted):
    """A queue that would be waited in too long is worked off within seconds of agents coming."""
    seen = queueing(2.0, 1.0, there=queued + ready)
    assert servers_for_backlog(history(*[4] * 30), NOW, seen, queued=queued, ready=ready) == pytest.approx(
        wanted
    )


class Counted:
    """A deployment whose gateway counts; `run` brings a steady rate, with what is there by Little's law."""

    def __init__(self, *, current=1, **policy):
        self.policy = ScalingPolicy(
            **{
                "min_agents": 0,
                "max_agents": 64,
                "slots": 1.0,
                "stabilization_s": 14.0,
                "idle_s": 75.0,
                **policy,
            }
        )
        self.now, self.accepted, self.service_s = NOW, 0, 0.5
        self.concurrency_s, self.current, self.state, self.decision = 0.0, current, None, None

    def run(self, seconds, rate, *, queued=0, counted=True, complete=True, **load):
        for _ in range(0, seconds, 2):
            self.now += 2
            before = int(self.accepted)
            self.accepted += rate * 2
            there = round(rate * self.service_s)
            self.concurrency_s += 2 * (rate * self.service_s + queued)
            whole = int(self.accepted)
            figures = (whole, max(before, whole - there), whole * self.service_s) if counted else ()
            gateway = GatewayLoad(
                "g@0", NOW, self.now, self.concurrency_s, there, queued, *figures
            )  # fmt: skip
            seen = Load(self.current, self.current, (gateway,), complete, **load)
            self.decision = decide(self.policy, seen, self.state, self.now)
            self.state = state_from_json(json.loads(json.dumps(self.decision.state.to_json())))
            self.current = self.decision.replicas
        return self.current


def test_story_of_a_step_up_and_down():
    """Ten requests a second of half a second bring seven; back at one a second it is few soon."""
    story = Counted()
    story.run(80, 1.0)
    assert story.run(60, 10.0) in (7, 8)
    assert story.current > story.run(100, 1.0) >= 1
    assert story.current <= 3


def test_load_that_comes_again_keeps_its_agents():
    """With a pause in it the mean of a minute says less than comes: what comes is served all the same."""
    story = Counted()
    story.service_s = 0.05
    story.run(80, 1.0)
    story.run(20, 64.0, queued=20)
    story.run(12, 0.0)
    story.run(14, 64.0, queued=20)
    for _ in range(10):
        assert story.run(2, 64.0) >= 4
    assert story.run(100, 1.0) <= 1


def test_a_queue_brings_agents_at_once():
    """Ninety waiting for one agent bring many within a tick, and the reason says so."""
    story = Counted()
    story.run(80, 1.0)
    assert story.run(2, 1.0, queued=90) > 10
    assert story.decision.kind == "backlog"
    assert "90 wait" in story.decision.reason


def test_restart_keeps_what_is_there():
    """Without memory nothing goes down for a stable window; then it does."""
    story = Counted(current=9)
    assert story.run(58, 1.0) == 9
    assert "start" in story.decision.reason
    assert story.run(40, 1.0) < 9


def test_uncounted_requests_fall_back_and_never_lower():
    """Where a gateway does not count, concurrency may raise, and nothing is lowered."""
    story = Counted(target=0.7)
    story.run(80, 10.0)
    before = story.current
    assert story.run(300, 0.2, counted=False) == before
    assert story.decision.kind == "cannot_tell"
    assert story.run(30, 40.0, counted=False) > before


def test_measured_capacity_counts():
    """Sixteen slots that do 40 requests a second together are one agent for 30 and three for 100."""
    story = Counted(slots=16.0, capacity_rps=40.0)
    assert story.run(120, 30.0) == 1
    assert story.run(120, 100.0) == 3


def test_silent_gateway_forbids_down():
    """Part of the load unseen may only add agents."""
    story = Counted()
    story.run(80, 10.0)
    before = story.current
    assert story.run(200, 0.5, complete=False) == before
    assert story.run(60, 30.0, complete=False) > before


def test_to_zero_after_idle_with_a_floor_never():
    """Zero comes after the idle time; a warm floor stands above what load asks, also then."""
    story = Counted()
    story.run(80, 1.0)
    assert story.run(70, 0.0) >= 1
    assert story.run(30, 0.0) == 0
    assert story.decision.kind == "idle"
    floored = Counted(warm_floor=2)
    floored.run(80, 1.0)
    assert floored.run(200, 0.0) == 2
    assert "warm floor 2" in floored.decision.clamps


def test_a_short_idle_time_is_taken_at_its_word():
    """Ten seconds without a request are enough where people say so, whatever the last minute brought."""
    story = Counted(idle_s=10.0, stabilization_s=14.0)
    assert story.run(80, 20.0) > 5
    assert story.run(8, 0.0) > 5
    assert story.run(4, 0.0) == 0
    assert story.decision.kind == "idle"


def test_steps_are_limited_by_the_minute():
    """At most three more and two fewer in any minute, whatever load asks."""
    story = Counted(max_up_per_min=3, max_down_per_min=2)
    assert story.run(70, 30.0) == 1 + 6  # the first minute's three, and the next one's
    assert "at most 3 more a minute" in story.decision.clamps
    assert story.run(600, 30.0) > 15
    before = story.current
    assert before - story.run(90, 0.5) <= 4


def test_a_step_made_blindly_counts():
    """The agent that a held request brought while no gateway reported is one of the minute's."""
    story = Counted(current=0, max_up_per_min=1)
    story.run(4, 0.0)
    blind = decide(story.policy, Load(0, 0, (), held=True), story.state, story.now + 1)
    assert (blind.replicas, blind.valid) == (1, False)
    story.state, story.current = blind.state, 1
    assert story.run(20, 30.0, queued=90) == 1
    assert "at most 1 more a minute" in story.decision.clamps
    assert story.run(60, 30.0, queued=90) == 2


@pytest.mark.parametrize(
    ("policy", "load", "wants"),
    [
        pytest.param({"target_rps": 2.0}, {}, {"want_rps": 5}, id="rate"),
        pytest.param({"target_cpu_percent": 60}, {"cpu_percent": 90.0}, {"want_cpu": 12}, id="cpu"),
        pytest.param({"target_cpu_percent": 60}, {"cpu_percent": 62.0}, {"want_cpu": 8}, id="cpu within"),
        pytest.param({"target_p95_ms": 100}, {"p95_ms": 150.0}, {"want_p95": 12}, id="p95 over"),
        pytest.param({"target_p95_ms": 100}, {"p95_ms": 50.0}, {"want_p95": 0}, id="p95 below"),
    ],
)
def test_targets_of_their_own(policy, load, wants):
    """Each set target is a rule, and its want is kept with the decision."""
    story = Counted(current=8)
    story.run(120, 10.0)
    story.policy, story.current = replace(story.policy, **policy), 8
    story.run(2, 10.0, **load)
    assert wants.items() <= story.decision.inputs.items()
    assert story.current >= max(wants.values())


def test_missing_figure_of_a_target_forbids_down():
    """A CPU target without a CPU figure cannot tell, so nothing is lowered."""
    story = Counted(current=9, target_cpu_percent=60.0)
    assert story.run(400, 1.0) == 9
    assert story.decision.kind == "cannot_tell"
    assert story.run(100, 1.0, cpu_percent=10.0) < 9


@pytest.mark.parametrize(
    ("current", "queued", "before", "oldest_s", "want"),
    [
        pytest.param(9, 1, 1, 5.0, 9, id="nothing goes while one waits too long"),
        pytest.param(9, 1, 0, 5.0, 10, id="one more for one that is new"),
        pytest.param(9, 30, 20, 1.6, 10, id="early where the queue grows"),
        pytest.param(9, 30, 30, 1.6, None, id="not yet where it does not"),
        pytest.param(9, 90, 20, 5.0, 18, id="at most twice as many"),
        pytest.param(20, 90, 20, 5.0, 20, id="what is ordered counts"),
    ],
)
def test_breach(current, queued, before, oldest_s, want):
    """A request that waits too long keeps what is there; a queue that grows brings more, and early."""
    story = Counted(current=9)
    story.run(120, 10.0)
    gateway = GatewayLoad("g@0", NOW, story.now + 2, 0.0, 1, queued, 1200, 1200, 600.0, oldest_s)
    state = replace(story.state, queued=before)
    decision = decide(story.policy, Load(current, 9, (gateway,)), state, story.now + 2)
    assert decision.inputs.get("want_breach") == want
    assert decision.replicas >= (want or 0)


@pytest.mark.slow
def test_season_raises_before_the_load_comes():
    """With a period known, agents are there before the rate of last time comes again."""
    story = Counted(season_s=600.0, stabilization_s=0.0)
    for _ in range(5):
        story.run(300, 0.5)
        story.run(300, 20.0)
    story.run(280, 0.5)
    assert story.decision.inputs["want_forecast"] >= 8
    assert story.current >= 8


@pytest.mark.slow
def test_a_timer_is_awaited():
    """With a call each five minutes the agent goes at once, and is there again before the next call."""
    story = Counted(idle_s=60.0)
    for _ in range(8):
        story.run(2, 0.5)
        story.run(298, 0.0)
    assert story.state.gaps.used
    assert story.current == 1
    assert story.decision.kind == "gaps"
    story.run(2, 0.5)
    assert [story.run(*step) for step in ((10, 0.0), (240, 0.0), (44, 0.0))] == [0, 0, 1]
    assert "a call is due" in story.decision.reason


@pytest.mark.slow
def test_a_short_idle_time_is_kept_to_whatever_gaps_say():
    """People who set ten seconds get ten seconds, and nobody comes before the next call."""
    story = Counted(idle_s=10.0)
    for _ in range(8):
        story.run(2, 0.5)
        story.run(298, 0.0)
    story.run(2, 0.5)
    assert [story.run(*step) for step in ((8, 0.0), (4, 0.0), (284, 0.0))] == [1, 0, 0]


@pytest.mark.slow
def test_gaps_never_lower_what_cannot_be_told():
    """A plan is followed only while all gateways are heard, and never below what people ordered."""
    story = Counted(idle_s=60.0)
    for _ in range(8):
        story.run(2, 0.5)
        story.run(298, 0.0)
    story.run(2, 0.5)
    assert story.run(20, 0.0, complete=False) == 1
    story.policy = replace(story.policy, min_agents=1)
    assert story.run(100, 0.0) == 1


ticks = st.lists(
    st.tuples(
        st.floats(0, 40),  # requests a second
        st.integers(0, 60),  # waiting
        st.sampled_from(["whole", "uncounted", "partial", "silent"]),
    ),
    min_size=1,
    max_size=25,
)
limits = st.fixed_dictionaries({
    "min_agents": st.integers(0, 5), "max_agents": st.integers(5, 40),
    "max_up_per_min": st.none() | st.integers(1, 8), "max_down_per_min": st.none() | st.integers(1, 8),
    "warm_floor": st.integers(0, 3), "stabilization_s": st.sampled_from([0.0, 14.0]),
    "season_s": st.sampled_from([0.0, 120.0]),
})  # fmt: skip


@pytest.mark.slow
@given(ticks, limits, st.integers(5, 20))
def test_what_always_holds(given_ticks, knobs, current):
    """Bounds and step limits are kept, missing data never lowers, twice the same input gives the same."""
    policy = ScalingPolicy(slots=1.0, target=0.7, **knobs)
    current = min(current, policy.max_agents)
    now, accepted, area, state, made = NOW, 0, 0.0, None, []
    for rate, queued, kind in given_ticks:
        now += 2.0
        accepted += int(rate * 2)
        area += 2 * (queued + rate)
        figures = () if kind == "uncounted" else (accepted, accepted, accepted * 0.5)
        gateway = GatewayLoad("g@0", NOW, now, area, round(rate * 0.5), queued, *figures)
        load = Load(current, current, () if kind == "silent" else (gateway,), kind != "partial")
        decision = decide(policy, load, state, now)
        assert decision == decide(policy, load, state, now)
        assert policy.min_agents <= decision.replicas <= policy.max_agents
        if kind != "whole":
            assert decision.replicas >= current
        made.append((now, decision.replicas - current))
        last_minute = [step for at, step in made if now - at < 60.0]
        if policy.max_up_per_min is not None and decision.replicas > policy.min_agents:
            assert sum(step for step in last_minute if step > 0) <= policy.max_up_per_min
        if policy.max_down_per_min is not None and decision.replicas < policy.max_agents:
            assert -sum(step for step in last_minute if step < 0) <= policy.max_down_per_min
        state = state_from_json(json.loads(json.dumps(decision.state.to_json())))
        assert state == decision.state
        current = decision.replicas

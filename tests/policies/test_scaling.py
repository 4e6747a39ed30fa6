"""How many agents: golden vectors, stories over time, and what always holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.policies.scaling import (
    GatewayLoad,
    Load,
    ScalingPolicy,
    ScalingState,
    decide,
    state_from_json,
    want_agents,
)

NOW = 1_000_000.0


class Story:
    """A deployment over time with an explicit clock; what is decided becomes what is ready."""

    def __init__(self, *, current=1, **policy):
        self.policy = ScalingPolicy(**{"max_agents": 100, "target": 10.0, **policy})
        self.now, self.total = NOW, 0.0
        self.current = self.ready = current
        self.state = None
        self.decision = None

    def run(self, seconds, concurrency, *, complete=True, silent=False, held=False):
        for _ in range(seconds):
            self.now += 1
            self.total += concurrency
            gateway = GatewayLoad("g@0", NOW, self.now, self.total, round(concurrency), 0)
            load = Load(self.current, self.ready, () if silent else (gateway,), complete, held)
            self.decision = decide(self.policy, load, self.state, self.now)
            # Through JSON each time: what is kept in a row is all that is remembered.
            self.state = state_from_json(json.loads(json.dumps(self.decision.state.to_json())))
            self.current = self.ready = self.decision.replicas
        return self.current


@pytest.mark.parametrize(
    ("target", "ready", "means", "want", "panics"),
    [
        pytest.param(10, 1, (50, 10), 5, False, id="stable"),
        pytest.param(10, 1, (100, 100), 10, True, id="both"),
        pytest.param(1, 10, (11, 25), 25, True, id="panic"),
    ],
)
def test_golden_vectors(target, ready, means, want, panics):
    """Known answers of a KPA-like core."""
    policy = ScalingPolicy(target=target)
    _, got, state, _ = want_agents(
        policy, ready=ready, stable=means[0], panic=means[1], state=ScalingState(NOW), now=NOW
    )
    assert (got, state.panic_at is not None) == (want, panics)


def test_golden_story_of_a_panic():
    """Panic holds the peak for a quiet stable window, then the stable mean rules again."""
    policy, state = ScalingPolicy(target=1), ScalingState(NOW)
    answers = []
    for after_s, ready, stable, panic in ((0, 10, 11, 25), (30, 40, 30, 41), (62, 55, 50, 56)):
        _, want, state, _ = want_agents(
            policy, ready=ready, stable=stable, panic=panic, state=state, now=NOW + after_s
        )
        answers.append((want, state.panic_at is not None))
    assert answers == [(25, True), (41, True), (50, False)]


def test_golden_down_rate():
    """A step down is bounded: from 100 ready at rate 1.1 to 90."""
    policy = ScalingPolicy(target=10, max_down_rate=1.1)
    asked, want, _, clamps = want_agents(
        policy, ready=100, stable=1, panic=1, state=ScalingState(NOW), now=NOW
    )
    assert (asked, want, clamps) == (1, 90, ["down rate"])


def test_burst_is_met_within_the_panic_window():
    """Eight times the target for six seconds brings eight agents, not one."""
    story = Story()
    story.run(120, 5)
    assert story.run(6, 80) >= 8
    assert story.decision.kind == "panic"


def test_down_comes_late_and_in_steps():
    """After a burst the number is kept for the stable window and the stabilization, then falls."""
    story = Story()
    story.run(60, 80)
    assert story.current >= 8
    assert story.run(60, 5) >= 8
    assert story.run(150, 5) == 1


def test_tolerance_keeps_still():
    """A mean within 10 % of what the agents should carry changes nothing."""
    story = Story(current=10)
    story.run(240, 100)
    assert story.current == 10
    assert story.run(100, 108) == 10
    assert "tolerance" in story.decision.clamps


def test_to_zero_only_where_min_is_zero_and_after_idle():
    """Zero comes 60 s after the last request, and never with a minimum of one."""
    story = Story(min_agents=0)
    story.run(10, 3)
    assert story.run(58, 0) == 1
    assert story.run(80, 0) == 0
    assert story.decision.kind == "idle"
    kept = Story(min_agents=1)
    kept.run(10, 3)
    assert kept.run(300, 0) == 1


def test_held_request_wakes_one_at_once():
    """With no agent at all one held request brings one, also before any report tells of it."""
    story = Story(current=0, min_agents=0)
    assert story.run(90, 0) == 0
    assert story.run(1, 0, held=True) == 1
    assert story.decision.kind == "held"
    unseen = Story(current=0, min_agents=0)
    assert unseen.run(1, 0, silent=True, held=True) == 1


def test_silence_changes_nothing():
    """No gateway that reports: cannot tell, stay."""
    story = Story(current=1)
    story.run(60, 80)
    before = story.current
    assert story.run(300, 0, silent=True) == before
    assert (story.decision.valid, story.decision.kind) == (False, "cannot_tell")


def test_a_silent_gateway_forbids_down_but_not_up():
    """Part of the load unseen may only add agents."""
    story = Story()
    story.run(60, 80)
    before = story.current
    assert story.run(300, 0, complete=False) == before
    assert story.run(10, 800, complete=False) > before


def test_lost_state_starts_in_panic():
    """A restart without memory never scales down at once, however quiet it is."""
    story = Story(current=6)
    assert story.run(59, 1) == 6
    assert story.run(200, 1) == 1


def test_old_state_is_not_trusted():
    """Memory older than the stable window counts as lost."""
    story = Story(current=6)
    story.state = ScalingState(at=NOW - 3600, active_at=NOW - 3600)
    assert story.run(30, 0) == 6
    assert story.decision.state.panic_at is not None


def test_restart_of_a_gateway_is_no_load():
    """Counters that begin again at zero are not a negative or a double load."""
    story = Story()
    story.run(100, 5)
    gateway = GatewayLoad("g@new", story.now, story.now + 1, 5.0, 5, 0)
    decision = decide(story.policy, Load(1, 1, (gateway,)), story.state, story.now + 1)
    assert decision.inputs["panic"] == pytest.approx(5, abs=1.5)


@pytest.mark.parametrize("broken", [{}, {"at": 1}, {"at": "x"}, [], None], ids=repr)
def test_broken_state_counts_as_lost(broken):
    """What was written by another version must not stop the loop."""
    assert state_from_json(broken) is None


loads = st.builds(
    Load,
    current=st.integers(0, 50),
    ready=st.integers(0, 50),
    gateways=st.lists(
        st.builds(
            GatewayLoad,
            process=st.sampled_from(["a@0", "b@0"]),
            started_at=st.just(NOW - 500),
            at=st.floats(NOW - 60, NOW),
            concurrency_s=st.floats(0, 1e6),
            in_flight=st.integers(0, 1000),
            queued=st.integers(0, 1000),
        ),
        max_size=2,
        unique_by=lambda one: one.process,
    ).map(tuple),
    complete=st.booleans(),
    held=st.booleans(),
)
bounds = st.tuples(st.integers(0, 20), st.integers(1, 40)).map(lambda pair: (min(pair), max(pair)))
states = st.none() | st.builds(
    ScalingState,
    at=st.floats(NOW - 200, NOW),
    panic_at=st.none() | st.floats(NOW - 200, NOW),
    panic_peak=st.integers(0, 60),
    active_at=st.floats(NOW - 200, NOW),
    recent=st.lists(st.tuples(st.floats(NOW - 100, NOW), st.integers(0, 60)), max_size=3).map(tuple),
)


@given(loads, bounds, states)
def test_bounds_are_kept(load, between, state):
    """Whatever the load, the answer lies within min and max, and is told why."""
    policy = ScalingPolicy(min_agents=between[0], max_agents=between[1], target=3.0)
    decision = decide(policy, load, state, NOW)
    assert between[0] <= decision.replicas <= between[1]
    assert decision.reason
    assert decision.kind


@given(loads, bounds, states)
def test_never_down_on_missing_data(load, between, state):
    """Where a gateway is silent, or all are, only a bound can lower the number."""
    policy = ScalingPolicy(min_agents=between[0], max_agents=between[1], target=3.0)
    decision = decide(policy, load, state, NOW)
    if not load.complete or not load.gateways:
        assert decision.replicas >= min(load.current, policy.max_agents)


@given(loads, bounds, states)
def test_same_input_same_output(load, between, state):
    """Deciding twice from the same facts gives the same, and its memory survives JSON."""
    policy = ScalingPolicy(min_agents=between[0], max_agents=between[1], target=3.0)
    first, second = decide(policy, load, state, NOW), decide(policy, load, state, NOW)
    assert first == second
    assert state_from_json(json.loads(json.dumps(first.state.to_json()))) == first.state

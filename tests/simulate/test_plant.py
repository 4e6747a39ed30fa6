"""The plant: what waits, what is counted, and that nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.simulate.plant import Plant, Seen, Traffic, replay


class Scripted:
    """Wants what a script says, tick by tick, then its last word."""

    def __init__(self, *wants, initial=0):
        self.name, self.initial, self._wants, self.seen = "scripted", initial, list(wants), []

    def want(self, seen: Seen) -> int:
        self.seen.append(seen)
        return self._wants.pop(0) if len(self._wants) > 1 else self._wants[0]


def traffic(*pairs):
    return Traffic("t", [at for at, _ in pairs], [s for _, s in pairs], max(at for at, _ in pairs))


def test_one_slot_serves_one_after_the_other():
    """Three requests at once for one agent wait 0, 1 and 2 s; the third is late by no more than allowed."""
    outcome = replay(traffic((0.5, 1), (0.5, 1), (0.5, 1)), Scripted(1, initial=1), Plant())
    assert outcome.waits_s == pytest.approx((0, 1, 2))
    assert outcome.misses == 0
    assert replay(traffic((0.5, 1.1), (0.5, 1.1), (0.5, 1.1)), Scripted(1, initial=1), Plant()).misses == 1


def test_two_slots_serve_two_together():
    """An agent of two slots executes two at a time."""
    outcome = replay(traffic(*[(0.5, 1)] * 4), Scripted(1, initial=1), Plant(slots=2))
    assert sorted(outcome.waits_s) == pytest.approx([0, 0, 1, 1])


def test_an_ordered_agent_comes_after_its_start():
    """Ordered at 0, ready at 3: what came at 1 waits two seconds; the order is one cold start, one change."""
    outcome = replay(traffic((1.0, 0.5)), Scripted(1, initial=0), Plant())
    assert outcome.waits_s == pytest.approx((2.0,))
    assert (outcome.cold_starts, outcome.changes) == (1, 1)


def test_request_with_none_wanted_calls_the_policy_at_once():
    """Between ticks, too, and says that it is held."""
    policy = Scripted(0, 1)
    outcome = replay(traffic((0.7, 0.5)), policy, Plant())
    assert [(one.now, one.held) for one in policy.seen[:2]] == [(0.0, False), (0.7, True)]
    assert outcome.waits_s == pytest.approx((3.0,))


def test_an_agent_that_leaves_finishes_its_request():
    """Agent-seconds count from the order to the end of what it executes."""
    outcome = replay(traffic((0.1, 5.0), (1.9, 0.1)), Scripted(2, 0, 0, 1, initial=2), Plant())
    assert len(outcome.waits_s) == 2
    # One leaves idle at 2.0, the other with its request at 5.1; one more comes at 6.
    assert outcome.agent_seconds == pytest.approx(2.0 + 5.1, abs=1e-6)


def test_starting_agents_are_stopped_first():
    """Down again before the start is over costs the ones that start."""
    outcome = replay(traffic((0.0, 0.1), (8.0, 0.1)), Scripted(1, 3, 1, initial=1), Plant())
    assert outcome.agent_seconds == pytest.approx(8.0 + 2 * 2.0, abs=2.1)
    assert outcome.flaps == 0


def test_down_and_up_within_a_minute_is_a_flap():
    """Only that order, and only so soon."""
    outcome = replay(traffic((0.0, 0.1), (10.0, 0.1)), Scripted(2, 1, 2, initial=2), Plant())
    assert (outcome.changes, outcome.flaps) == (2, 1)


arrivals = st.lists(st.tuples(st.floats(0, 60), st.floats(0.01, 8)), min_size=1, max_size=60)


@pytest.mark.slow
@given(arrivals, st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 3))
def test_all_are_answered_and_counters_balance(pairs, wants, slots):
    """Whatever a policy does, each request executes once, and the totals a policy sees never fall."""
    pairs = sorted(pairs)
    policy = Scripted(*wants, 2)
    outcome = replay(traffic(*pairs), policy, Plant(slots=slots))
    assert len(outcome.waits_s) == outcome.requests == len(pairs)
    assert all(wait >= -1e-9 for wait in outcome.waits_s)
    assert outcome.busy_seconds == pytest.approx(sum(s for _, s in pairs))
    assert outcome.agent_seconds * slots >= outcome.busy_seconds - 1e-6
    for before, after in zip(policy.seen, policy.seen[1:], strict=False):
        assert after.accepted - after.finished == after.in_flight + after.queued
        assert (after.accepted, after.finished) >= (before.accepted, before.finished)
        assert after.concurrency_s >= after.busy_s >= before.busy_s - 1e-9

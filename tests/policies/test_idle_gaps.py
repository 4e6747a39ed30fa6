"""Idle gaps: the plan that follows from them, what it would have cost, and when it is believed."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.policies.idle_gaps import (
    BINS,
    EDGES_S,
    NO_GAPS,
    IdleGaps,
    cost_of,
    is_planned,
    make_plan,
    observe_gap,
)

KNOBS = {"miss_s": 105.0, "keep_s": 60.0, "lead_s": 5.0}


def fed(lengths, gaps=NO_GAPS):
    for gap_s in lengths:
        gaps = observe_gap(gaps, gap_s, **KNOBS)
    return gaps


def drawn(number, mean_s):
    rng = random.Random(number)
    return [rng.expovariate(1 / mean_s) for _ in range(number)]


@pytest.mark.parametrize(
    ("lengths", "there", "gone"),
    [
        pytest.param([300.0] * 12, (2, 290, 300, 320), (10, 100, 250, 500), id="a timer of five minutes"),
        pytest.param([20.0] * 20 + [600.0] * 20, (2, 10, 22), (60, 450, 2000), id="soon, or much later"),
        pytest.param([600.0 * n for n in range(1, 20)], (2,), (10, 600, 9000), id="hours, never the same"),
    ],
)
def test_plan(lengths, there, gone):
    """An agent is there at the ages at which calls come, and gone at others."""
    gaps = fed(lengths)
    assert gaps.used
    assert all(is_planned(gaps.plan, age_s, 5.0) for age_s in there)
    assert not any(is_planned(gaps.plan, age_s, 5.0) for age_s in gone)


def test_an_agent_is_ordered_ahead_of_its_age():
    """It starts so long before the age from which it is planned to be there."""
    plan = ((0.0, 5.0), (288.0, 381.0))
    assert [is_planned(plan, age_s, 5.0) for age_s in (4.9, 5.0, 282.9, 283.0, 380.9, 381.0)] == [
        True, False, False, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gap_s", "cost"),
    [
        pytest.param(3.0, 3.0, id="while it is kept"),
        pytest.param(100.0, 10 + 105, id="while it is gone"),
        pytest.param(287.0, 10 + 2 + 30 + 105, id="while it starts"),
        pytest.param(300.0, 10 + 10 + 5 + 30, id="when it is due"),
        pytest.param(900.0, 10 + 60 + 5 + 30 + 105, id="later than planned"),
    ],
)
def test_cost(gap_s, cost):
    """Agent-seconds, thirty for a start again, and a miss where no agent is there."""
    plan = ((0.0, 10.0), (290.0, 350.0))
    assert cost_of(plan, gap_s, miss_s=105.0, lead_s=5.0) == pytest.approx(cost)


def test_it_must_prove_itself():
    """The first gaps are planned for and judged, but nothing is done by it."""
    assert [fed([300.0] * number).used for number in (0, 1, 6, 7, 30)] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("seed", [40, 60, 200])
def test_calls_by_chance_are_no_pattern(seed):
    """Where the next call comes whenever it likes, no plan is clearly better than keeping an agent."""
    assert not fed(drawn(seed, 150.0)).used


def test_it_switches_itself_off():
    """A timer that stops being one is no longer planned for, within some gaps."""
    gaps = fed([300.0] * 60)
    assert gaps.used
    assert not fed(drawn(40, 40.0), gaps).used


def test_short_gaps_are_not_counted():
    """Traffic that never pauses changes nothing."""
    gaps = fed([300.0] * 12)
    assert fed([1.0, 4.9] * 100, gaps) is gaps


@given(st.lists(st.floats(5.0, 20_000.0), min_size=1, max_size=60))
def test_no_more_misses_than_keeping_one(lengths):
    """A plan expects no more misses than an agent that is kept, as it counts gaps."""
    gaps = fed(lengths)
    total = sum(gaps.counts)
    middles = [(EDGES_S[number] + EDGES_S[number + 1]) / 2 for number in range(BINS)]

    def missed(plan):
        return sum(
            count
            for count, age_s in zip(gaps.counts, middles, strict=True)
            if not any(since <= age_s < until for since, until in plan)
        ) / total  # fmt: skip

    partly = max(gaps.counts) / total  # the bin in which keeping ends counts in part
    assert missed(gaps.plan) <= missed(((0.0, KNOBS["keep_s"]),)) + partly
    assert gaps.plan == make_plan(gaps.counts, **KNOBS)
    assert IdleGaps.from_json(json.loads(json.dumps(gaps.to_json()))) == gaps
    assert len(gaps.counts) == BINS
    assert all(since < until for since, until in gaps.plan)

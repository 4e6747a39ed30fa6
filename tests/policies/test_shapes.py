"""How large agents are: cut to a limit, and with what they do then."""

import pytest

from appliance.policies.profiles import Box, Learned, Profile, ProfileKey, default_profile
from appliance.policies.shapes import (
    LIMIT,
    STRETCHED,
    Reach,
    Shape,
    as_shaped,
    cut,
    is_unlike,
    learned_of_box,
    limited,
    profile_again,
    profile_json,
    reach_of,
    shape_of,
)

KEY = ProfileKey("d" * 64, Box("Xeon", "avx2", 4), "ctranslate2", "4.8")
MEASURED = Profile(
    4, 1, 8, 400.0, 12_800.0, 0.001, 0.0002, "measured", 1.0, 400.0, full_batch_size=32, full_rps=600.0
)


@pytest.mark.parametrize(
    ("full", "threads", "is_cut"),
    [
        pytest.param((4, 1), 2, (2, 1), id="fewer workers"),
        pytest.param((1, 4), 2, (1, 2), id="fewer threads"),
        pytest.param((2, 4), 6, (1, 4), id="whole workers only"),
        pytest.param((2, 4), 3, (1, 3), id="less than a worker has"),
        pytest.param((4, 1), 9, (4, 1), id="never more than all"),
        pytest.param((4, 1), 0, (1, 1), id="at least one"),
    ],
)
def test_cut(full, threads, is_cut):
    """Workers go before threads of one, and the batch stays."""
    assert cut(Shape(*full, 8), threads) == Shape(*is_cut, 8)


@pytest.mark.parametrize(
    ("given", "start", "most", "batch"),
    [
        pytest.param({}, (4, 1), 4, 32, id="all of the box, and the batch that does most"),
        pytest.param({"threads": 1}, (1, 1), 4, 32, id="may grow to all"),
        pytest.param({"threads": 1, "max_threads": 2}, (1, 1), 2, 32, id="may grow to a half"),
        pytest.param({"threads": 9}, (4, 1), 4, 32, id="a limit above the box"),
        pytest.param({"max_threads": 2}, (2, 1), 2, 32, id="starts with no more than it may have"),
        pytest.param({"max_batch": 16}, (4, 1), 4, 16, id="batches as people say"),
        pytest.param({"max_batch": 4}, (4, 1), 4, 8, id="a batch never below the profile's"),
    ],
)
def test_reach(given, start, most, batch):
    """What people set bounds what was measured."""
    reach = reach_of(MEASURED, **{"threads": None, "max_threads": None, "max_batch": None, **given})
    assert (reach.start, reach.most_threads, reach.most_batch) == (Shape(*start, 8), most, batch)


def test_larger_batches_must_do_more():
    """Measured to do little more, nobody waits for it; measured nothing, only what people say."""
    free = {"threads": None, "max_threads": None}
    little = Profile(4, 1, 8, 400.0, full_batch_size=32, full_rps=420.0, source="measured")
    assert reach_of(little, **free, max_batch=None).most_batch == 8
    assert reach_of(little, **free, max_batch=64).most_batch == 8
    assert reach_of(default_profile(4), **free, max_batch=None).most_batch == 8
    assert reach_of(default_profile(4), **free, max_batch=64).most_batch == 64


def test_a_batch_is_no_larger_than_an_agent_may_hold():
    """With very many workers what people allow is cut to what fits, all workers' batches and one ahead."""
    reach = reach_of(Profile(200, 1, 8), threads=None, max_threads=None, max_batch=1024)
    assert 400 < reach.most_batch * 201 <= 100_000


def test_what_a_part_does():
    """As much as it has of the engine threads; batches take as long; the largest does what was measured."""
    half = as_shaped(MEASURED, Shape(2, 1, 8))
    assert (half.capacity_rps, half.tokens_per_s, half.fixed_s) == (200.0, 6_400.0, 0.001)
    assert as_shaped(MEASURED, Shape(2, 1, 32)).capacity_rps == 300.0
    assert as_shaped(MEASURED, Shape(4, 1, 8)) == MEASURED
    assert limited(MEASURED, None) is MEASURED
    assert limited(MEASURED, 1).capacity_rps == 100.0


def test_rows_keep_how_they_came_about():
    """Limit and growth stay with a row when its speed is known anew; others are written as ever."""
    known = {KEY: MEASURED}
    row = profile_json({}, KEY, Shape(2, 1, 8), limit=2, stretched=False)
    assert row == {"workers": 2, "threads": 1, "batch_size": 8, LIMIT: 2}
    again = profile_again(known, KEY, row)
    assert (again[LIMIT], again["capacity_rps"], shape_of(again)) == (2, 200.0, Shape(2, 1, 8))
    grown = profile_json(known, KEY, Shape(4, 1, 32), limit=None, stretched=True)
    assert (grown[STRETCHED], grown["capacity_rps"]) == (True, 600.0)
    plain = profile_json(known, KEY, Shape(4, 1, 8), limit=None, stretched=False)
    assert plain == MEASURED.to_json()
    assert is_unlike(grown, plain)
    assert not is_unlike(plain, {"workers": 1})


def test_a_reach_of_one_core():
    """There is nothing to cut, and nothing to grow into."""
    reach = Reach(Shape(1, 1, 8), 1, 1, 8)
    assert reach.start == reach.of(5) == Shape(1, 1, 8)


def test_what_a_small_agent_learns():
    """A quarter of the workers does a quarter; of another batch, or grown, it says nothing of the box."""
    said = Learned(1, 1, 8, 500, 100.0, 3_200.0, 0.001, 0.0002)
    box = learned_of_box({LIMIT: 1}, MEASURED, said)
    assert (box.workers, box.capacity_rps, box.tokens_per_s, box.fixed_s) == (4, 400.0, 12_800.0, 0.001)
    assert learned_of_box({}, MEASURED, said) is said
    assert learned_of_box({LIMIT: 1, STRETCHED: True}, MEASURED, said) is None
    assert learned_of_box({LIMIT: 1}, Profile(2, 2, 8), said) is None

"""Profiles: whose they are, which one an agent starts with, what is learned, and who is outdated."""

from dataclasses import replace

import pytest

from agents.config import MAX_WORKERS
from appliance.policies.profiles import (
    EVIDENCE,
    LEARN_EVERY_S,
    Box,
    Learned,
    Profile,
    ProfileKey,
    box_of,
    choose_profile,
    default_profile,
    is_outdated,
    is_same_shape,
    learn,
    share_of_box,
    speed_of,
)

NOW = 1_000_000.0
KEY = ProfileKey("ab" * 32, Box("EPYC", "avx2", 2), "ctranslate2", "4.6.0")
MEASURED = Profile(1, 2, 16, 300.0, 9600.0, 0.001, 0.0001, "measured", NOW - 1000, 200.0)
LEARNED = Profile(2, 1, 8, 100.0, 3200.0, 0.002, 0.0002, "learned", NOW - 1000)
SAID = Learned(2, 1, 8, EVIDENCE, 120.0, 4000.0, 0.002, 0.0001)


@pytest.mark.parametrize(
    ("hardware", "box"),
    [
        pytest.param({}, Box("", "", 1), id="nothing known"),
        pytest.param(
            {"cpu_model": "EPYC", "flags": ["ht", "avx2", "avx"], "cores_physical": 4, "ram_bytes": 1},
            Box("EPYC", "avx avx2", 4),
            id="what decides the speed, in one order",
        ),
        pytest.param({"cpu_model": "x" * 999, "flags": None}, Box("x" * 200, "", 1), id="bounded"),
    ],
)
def test_kind_of_box(hardware, box):
    """Two boxes are of a kind where processor, instruction sets and cores are the same."""
    assert box_of(hardware) == box


def test_default_of_a_large_machine():
    """An agent's configuration takes at most 256 workers."""
    assert default_profile(384).workers == MAX_WORKERS


def test_stored_profile_or_the_default():
    """Any difference of model, box or engine is another profile; without one there is the default."""
    known = {KEY: MEASURED}
    assert choose_profile(known, KEY) == MEASURED
    for other in (
        replace(KEY, digest="cd" * 32),
        replace(KEY, box=replace(KEY.box, isa="avx512f")),
        replace(KEY, engine_version="5"),
    ):
        assert choose_profile(known, other) == default_profile(2) == Profile(2, 1, 8)


@pytest.mark.parametrize(
    ("running", "capacity", "source"),
    [
        pytest.param(MEASURED, 300.0, "measured", id="as measured"),
        pytest.param(Profile(2, 1, 8), 200.0, "measured", id="default, measured beside it"),
        pytest.param(Profile(2, 1, 4), 0.0, "default", id="any other is not known"),
    ],
)
def test_speed_of_what_runs(running, capacity, source):
    """An agent's speed is that of what it runs with, not of what would be best."""
    found = speed_of({KEY: MEASURED}, KEY, running.to_json())
    assert (found.capacity_rps, found.source) == (capacity, source)
    assert is_same_shape(found.to_json(), running.to_json())


def test_slower_shape_takes_longer():
    """Where the default does two thirds, its batches take half as long again."""
    found = speed_of({KEY: MEASURED}, KEY, Profile(2, 1, 8).to_json())
    assert (found.fixed_s, found.per_token_s) == (pytest.approx(0.0015), pytest.approx(0.00015))
    assert found.tokens_per_s == pytest.approx(6400.0)


@pytest.mark.parametrize(
    ("known", "said", "stored"),
    [
        pytest.param(None, SAID, True, id="first"),
        pytest.param(None, replace(SAID, batches=EVIDENCE - 1), False, id="too little evidence"),
        pytest.param(None, replace(SAID, capacity_rps=0.0), False, id="nothing said"),
        pytest.param(LEARNED, SAID, True, id="clearly changed"),
        pytest.param(LEARNED, replace(SAID, capacity_rps=110.0), False, id="hardly changed"),
        pytest.param(LEARNED, replace(SAID, capacity_rps=50.0), True, id="slower by now"),
        pytest.param(replace(LEARNED, batch_size=4), SAID, True, id="another shape does more"),
        pytest.param(replace(MEASURED, source="learned"), SAID, False, id="another shape does less"),
        pytest.param(replace(LEARNED, measured_at=NOW - LEARN_EVERY_S / 2), SAID, False, id="just written"),
        pytest.param(replace(MEASURED, measured_at=0.0), SAID, False, id="never over what was measured"),
    ],
)
def test_learning(known, said, stored):
    """What agents say is stored with evidence, when it has changed, and never over a measurement."""
    found = learn(known, said, NOW)
    assert (found is not None) == stored
    if found is not None:
        assert (found.source, found.measured_at, found.capacity_rps) == ("learned", NOW, said.capacity_rps)


@pytest.mark.parametrize(
    ("known", "running", "outdated"),
    [
        pytest.param(MEASURED, Profile(2, 1, 8), True, id="half as good again"),
        pytest.param(replace(MEASURED, capacity_rps=220.0), Profile(2, 1, 8), False, id="a tenth better"),
        pytest.param(MEASURED, Profile(1, 2, 16), False, id="it has it"),
        pytest.param(MEASURED, Profile(2, 1, 4), False, id="not the default"),
        pytest.param(LEARNED, Profile(2, 1, 8), False, id="only learned"),
        pytest.param(None, Profile(2, 1, 8), False, id="nothing known"),
    ],
)
def test_outdated(known, running, outdated):
    """Agents with the default make room only for what was measured and is clearly better."""
    profiles = {} if known is None else {KEY: known}
    assert is_outdated(profiles, KEY, running.to_json()) == outdated


def test_capacities_on_a_box_never_exceed_the_box():
    """Two agents with a thread a core each share it; with threads to spare each has its own."""
    assert share_of_box(4, 2) == 1.0
    assert share_of_box(4, 4) == 1.0
    assert share_of_box(2, 4) == 0.5
    assert share_of_box(0, 0) == 1.0


@pytest.mark.parametrize(
    ("known", "share", "stored"),
    [
        pytest.param(None, 0.5, 300.0, id="nothing known: of it its share is what it said"),
        pytest.param(None, 1.0, 150.0, id="the box for itself"),
        pytest.param(200.0, 0.5, None, id="known and possible"),
        pytest.param(100.0, 0.5, 150.0, id="even beside others it does more"),
        pytest.param(500.0, 0.5, 300.0, id="even alone it would do less"),
    ],
)
def test_learned_beside_others(known, share, stored):
    """What it does with its share of a box is not taken for what it does alone, nor scaled down twice."""
    before = None if known is None else replace(LEARNED, capacity_rps=known)
    found = learn(before, replace(SAID, capacity_rps=150.0), NOW, share)
    assert (None if found is None else found.capacity_rps) == stored
    if found is not None and share < 1.0:
        assert found.fixed_s == pytest.approx(SAID.fixed_s * 150.0 / found.capacity_rps)
        assert found.tokens_per_s == pytest.approx(SAID.tokens_per_s * found.capacity_rps / 150.0)

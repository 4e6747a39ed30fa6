"""Scaling with real hosts: agents of 50 ms come and go by load, and no request fails of it."""

import json
import time

import pytest
from appliance_process import wait_until
from traffic import assert_conserved

from tests.bench.live_site import CAPACITY_RPS, Boxes, Phases, live_site
from tests.bench.open_load import percentile
from tests.bench.scaling_live import (
    STEP_RPS,
    check_stopped_gateway,
    measure_downs,
    measure_first_answers,
    measure_held,
    measure_kills,
    measure_step,
    wait_empty,
)

pytestmark = pytest.mark.slow
#: Limits for a machine that is busy with other tests; what is claimed is measured by `make bench`.
BACK_S, FIRST_S = 55.0, 30.0


@pytest.fixture(scope="module")
def scaled(fleet, tmp_path_factory):
    """An appliance with two boxes, for this module's stories."""
    with live_site(fleet, tmp_path_factory.mktemp("scaled"), Boxes(2)) as site:
        yield site


@pytest.fixture
def add(scaled):
    """`add(name, least=, most=, ...)`: a deployment of agents of 50 ms; it goes with the test."""
    added = []

    def add_one(name, **given):
        added.append(name)
        scaled.add(name, **given)
        return name

    yield add_one
    for name in added:
        scaled.undeploy(name)


def test_a_load_step(scaled, add):
    """From idle to 80 % of four agents: more come by themselves, all is answered, p95 is soon as it was."""
    name = add("step", least=1, most=6, service_ms=200.0, park_s=0)
    scaled.wait_ready(name, 1)
    step = measure_step(scaled, name, seconds=60, rps=STEP_RPS / 4, slo_s=2.5)
    print(f"\n{step}")
    assert step.failed == 0
    assert step.most_ready >= 4
    assert step.back_s is not None
    assert step.back_s <= BACK_S


def test_from_zero_and_back(scaled, add):
    """Requests that find nobody wait and are all answered, 200 at once too; idle, it goes back to zero."""
    name = add("zero", least=0, most=4, park_s=0, idle_s=3)
    (first_s,) = measure_first_answers(scaled, name, 1)
    answered, lost, longest_s = measure_held(scaled, name)
    print(f"\nfirst answer {first_s:.2f} s, 200 held {longest_s:.2f} s")
    assert (answered, lost) == (200, 0)
    assert first_s < FIRST_S
    wait_empty(scaled, name)
    assert_conserved(scaled.appliance)


def test_from_parked(scaled, add):
    """An agent that is parked serves the first request again, without a new process."""
    name = add("parked", least=0, most=2, park_s=600, idle_s=3)
    (took_s,) = measure_first_answers(scaled, name, 1, "parked")
    print(f"\nfrom parked {took_s:.3f} s")
    assert took_s < FIRST_S
    assert len(scaled.agents(name)) == 1


def test_agents_grow_where_none_can_be_added(scaled, add):
    """Two at most, of one thread each, and work for three: they grow into their boxes, and go back."""
    name = add("tall", least=2, most=2, workers=2, threads=1, park_s=0, stabilization_s=1)
    scaled.wait_ready(name, 2)
    wait_until(lambda: threads(scaled, name) == [1, 1], 60, "they are as large as the limit says")
    with Phases(scaled, name, [(3 * CAPACITY_RPS, 20)]) as load:
        wait_until(lambda: sum(threads(scaled, name)) >= 3, 60, "they grow")
    assert load.failures == []
    last = sorted(row.ms for row in load.runs[0].rows if row.t > 15)
    print(f"\n{threads(scaled, name)} threads; p95 of the last 5 s {percentile(last, 0.95):.0f} ms")
    wait_until(lambda: threads(scaled, name) == [1, 1], 120, "they go back")
    assert len(scaled.agents(name)) == 2
    assert_conserved(scaled.appliance)


def threads(site, name):
    """Engine threads that each is to have, the most last."""
    shapes = [json.loads(one["profile"]) for one in site.agents(name)]
    return sorted(one["workers"] * one["threads"] for one in shapes)


def test_scale_downs_under_load(scaled, add):
    """Twenty agents leave under steady load, and no request fails."""
    name = add("downs", least=1, most=1, park_s=0)
    downs = measure_downs(scaled, name, wanted=20)
    print(f"\n{downs}")
    assert downs.agents >= 20
    assert downs.failures == []


def test_a_worker_that_is_killed_again_and_again(scaled, add):
    """Each 10 s of a minute of varying load: ticks go on, nothing fails, and every decision is explained."""
    name = add("kills", least=1, most=4, park_s=0)
    scaled.wait_ready(name, 1)
    kills = measure_kills(scaled, name, 60)
    print(f"\n{kills}")
    assert kills.failures == []
    assert kills.differ == ""
    assert kills.longest_gap_s < FIRST_S


def test_a_gateway_that_stops_answering_scales_nothing_down(scaled, add):
    """Once its silence is noticed all agents stay; when it goes on they may leave."""
    name = add("silent", least=1, most=3, park_s=0, stabilization_s=1)
    with Phases(scaled, name, [(45, 12)]) as load:
        wait_until(lambda: scaled.ready(name) == 3, 60, "three serve")
    assert load.failures == []
    before, least = check_stopped_gateway(scaled, name, 20)
    assert before == least > 1
    wait_until(lambda: scaled.desired(name) < before, 120, "fewer, once it can be told")


def test_a_box_that_hangs_delays_no_other(fleet, scaled, add):
    """While one box takes its connections and says nothing, an agent comes to the other all the same."""
    hung, other = fleet.hosts["scaled-0"], fleet.hosts["scaled-1"]
    name = add("beside", least=0, most=2, park_s=0, idle_s=3)
    wait_empty(scaled, name)

    def serve():
        return {one["node"] for one in scaled.agents(name) if one["state"] == "ready"}

    hung.hang()
    try:
        began = time.monotonic()
        scaled.scale(name, min=2)
        wait_until(lambda: other.name in serve(), FIRST_S, "an agent serves on the other box")
        print(f"\nthere after {time.monotonic() - began:.1f} s")
    finally:
        hung.resume()
    wait_until(lambda: scaled.ready(name) == 2, 120, "both serve once it goes on")

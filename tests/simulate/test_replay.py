"""Ours on the plant: against the Knative-style policy, through restarts, and as a document."""

import random

import pytest

from appliance.simulate.chart import render_svg
from appliance.simulate.compare import build_document, judge, run_policies
from appliance.simulate.plant import Plant, Traffic, replay
from appliance.simulate.policies.knative import Knative
from appliance.simulate.policies.ours import Ours, default_policy
from appliance.simulate.synthetic import SYNTHETIC, burst, diurnal, sawtooth, small

PLANT = Plant()


@pytest.mark.slow
def test_memory_in_json_decides_the_same():
    """Saved and loaded every ten seconds, each decision and reason is equal, row by row."""
    traffic = burst(5, duration_s=900.0)
    runs = []
    for reload_every_s in (None, 10.0):
        ours = Ours(default_policy(PLANT), reload_every_s=reload_every_s, keep=True)
        replay(traffic, ours, PLANT)
        runs.append(ours.decisions)
    assert len(runs[0]) >= 450
    assert runs[0] == runs[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", SYNTHETIC)
def test_same_seed_same_outcome(name):
    """Made-up traffic and its replay hold no chance."""
    policy = default_policy(PLANT)
    runs = [SYNTHETIC[name](3, duration_s=600.0) for _ in range(2)]
    first, second = (run_policies(one, PLANT, policy, others=False)[0] for one in runs)
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("make", [diurnal, burst, sawtooth], ids=lambda one: one.__name__)
def test_marks_on_made_up_traffic(make):
    """On each of three seeds: no more misses than Knative's policy, 0.8 of its agents, twice its changes."""
    verdicts = []
    for seed in (1, 2, 3):
        traffic = make(seed)
        pair = (Ours(default_policy(PLANT)), Knative(PLANT))
        verdicts.append(judge([replay(traffic, one, PLANT) for one in pair]))
    assert all(one.holds for one in verdicts)
    assert all(one.agent_seconds <= 0.8 for one in verdicts)


@pytest.mark.slow
def test_a_timer_costs_an_agent_for_little_of_its_time():
    """Calls every five minutes, up to a minute late, for six hours: fewer misses, half the agents."""
    rng = random.Random("a timer")
    arrivals = [300.0 * number + rng.uniform(0, 60) for number in range(72)]
    traffic = Traffic("timer", arrivals, [0.5] * 72, 21_600.0)
    pair = (Ours(default_policy(PLANT)), Knative(PLANT))
    verdict = judge([replay(traffic, one, PLANT) for one in pair])
    assert verdict.holds
    assert verdict.agent_seconds <= 0.5


@pytest.mark.slow
def test_many_slots_and_small_requests_do_not_flap():
    """Thousands a second of 5 ms, 16 slots, a look each second: no misses, up and down with the wave."""
    plant = Plant(slots=16, start_s=1.5, tick_s=1.0)
    outcome = replay(small(1, duration_s=130.0), Ours(default_policy(plant)), plant)
    assert outcome.misses == 0
    assert max(wanted for _, wanted, _, _ in outcome.series) <= 6
    assert outcome.changes <= 8


def test_document_and_picture():
    """The document has what scripts hold on to; the picture is one SVG with a panel for each policy."""
    traffic = sawtooth(1, duration_s=300.0)
    outcomes = run_policies(traffic, PLANT, default_policy(PLANT), others=True)
    document = build_document(traffic, outcomes)
    assert document["requests"] == len(traffic.arrivals)
    names = ["millwright", "knative", "ray-serve", "hpa-cpu", "fixed-max"]
    assert [one["name"] for one in document["policies"]] == names
    wanted = {"name", "slo_misses_percent", "agent_seconds", "cold_starts", "changes"}
    assert all(wanted <= one.keys() for one in document["policies"])
    picture = render_svg("a <trace>", outcomes)
    assert picture.count("<polyline") == 5
    assert "a &lt;trace&gt;" in picture

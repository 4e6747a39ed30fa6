"""The policies ours is compared with do what their originals are known to do."""

import pytest

from appliance.simulate.plant import Plant, Seen
from appliance.simulate.policies.fixed import FixedMax
from appliance.simulate.policies.hpa import HorizontalPods
from appliance.simulate.policies.knative import Knative
from appliance.simulate.policies.ray import RayServe


class Steady:
    """Shows a policy a steady concurrency; what it wants is ready at once."""

    def __init__(self, policy, current=1):
        self.policy, self.current, self.now = policy, current, 0.0
        self.area = self.busy_s = 0.0

    def run(self, seconds, concurrency, busy=None):
        for _ in range(0, seconds, 2):
            there = round(concurrency)
            seen = Seen(self.now, self.current, self.current, there, 0, 0, 0, self.area, self.busy_s, 0.0)
            self.current = self.policy.want(seen)
            self.now += 2.0
            self.area += 2 * concurrency
            self.busy_s += 2 * min(concurrency if busy is None else busy, self.current)
        return self.current


@pytest.mark.parametrize(
    ("target", "ready", "means", "want", "panics"),
    [
        pytest.param(10, 1, (50, 10), 5, False, id="stable"),
        pytest.param(10, 1, (100, 100), 10, True, id="both"),
        pytest.param(1, 10, (11, 25), 25, True, id="panic"),
    ],
)
def test_knative_golden_vectors(target, ready, means, want, panics):
    """Known answers of the original."""
    knative = Knative(Plant(), target=target)
    assert knative.decide(0.0, ready, *means) == want
    assert knative.panicking == panics


def test_knative_golden_story():
    """Panic only adds, and is over a quiet stable window after it."""
    knative = Knative(Plant(), target=1)
    assert knative.decide(0.0, 10, 11, 25) == 25
    assert knative.decide(30.0, 40, 30, 41) == 41
    assert knative.decide(62.0, 55, 50, 56) == 50
    assert not knative.panicking


def test_knative_down_rate():
    """From 100 ready at rate 1.1 to 90."""
    assert Knative(Plant(), target=10, max_down_rate=1.1).decide(0.0, 100, 1, 1) == 90


def test_knative_goes_to_zero_after_window_and_grace():
    """60 s until the mean is zero, and 30 s more."""
    steady = Steady(Knative(Plant()))
    steady.run(120, 0.5)
    assert steady.run(84, 0.0) == 1
    assert steady.run(12, 0.0) == 0


def test_hpa_follows_cpu_every_fifteen_seconds_and_down_late():
    """100 % busy of 80 wanted is a quarter more; down only after five minutes."""
    steady = Steady(HorizontalPods(Plant()), current=4)
    assert steady.run(18, 9.0) == 5
    assert steady.run(60, 9.0) > 8
    high = steady.current
    assert steady.run(280, 0.5) == high
    assert steady.run(60, 0.5) == 1


def test_ray_waits_for_agreement():
    """Up after 30 s, down after 600 s."""
    steady = Steady(RayServe(Plant()))
    assert steady.run(28, 8.0) == 1
    assert steady.run(16, 8.0) == 4
    assert steady.run(560, 1.0) == 4
    assert steady.run(100, 1.0) == 1


def test_fixed_is_the_most():
    """It never changes."""
    assert FixedMax(Plant(max_agents=7)).want(None) == 7

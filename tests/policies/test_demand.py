"""How many requests come, from cumulative counters."""

import pytest

from appliance.policies.demand import Demand, estimate_rate, forget, observe

NOW = 1_000_000.0


def fed(*counts, step_s=2.0):
    """What is known after steps in which so many came, each of half a second."""
    demand, total, now = observe(Demand(), [("g", NOW, (0, 0, 0.0))], NOW), 0, NOW
    for count in counts:
        total += count
        now += step_s
        demand = observe(demand, [("g", NOW, (total, total, total * 0.5))], now)
    return demand, now


def test_steady_rate_has_no_trend():
    """Four in two seconds are two a second, and stay so."""
    demand, now = fed(*[4] * 60)
    rate, trend, length_s = estimate_rate(demand, now)
    assert (rate, trend) == (pytest.approx(2.0), pytest.approx(0.0, abs=1e-9))
    assert length_s == pytest.approx(120, abs=4)


def test_climb_is_a_trend_and_chance_is_none():
    """A steady climb is carried on; a difference that chance makes as well is not."""
    demand, now = fed(*range(30))
    assert estimate_rate(demand, now)[1] == pytest.approx(0.25, rel=0.2)
    demand, now = fed(*[1, 0, 0] * 10)
    assert estimate_rate(demand, now)[1] == pytest.approx(0.0, abs=1e-3)


def test_little_traffic_is_averaged_over_longer():
    """One request every twenty seconds is told from five minutes, not one."""
    demand, now = fed(*[1, *[0] * 9] * 15)
    rate, _, length_s = estimate_rate(demand, now)
    assert rate == pytest.approx(0.05, rel=0.1)
    assert length_s > 200


def test_the_last_minute_wins_where_it_contradicts():
    """After traffic has stopped, the old rate is not believed."""
    demand, now = fed(*[1, *[0] * 4] * 20, *[0] * 40)
    assert estimate_rate(demand, now)[0] == pytest.approx(0.0, abs=0.01)


def test_nothing_known_is_none():
    """One look is no rate."""
    assert estimate_rate(Demand(), NOW) is None
    assert estimate_rate(fed()[0], NOW) is None


def test_new_gateway_counts_from_its_start_and_an_old_one_from_first_sight():
    """A gateway that started later brings all it counted; one that was there before nothing at first."""
    demand, now = fed(2, 2)
    demand = observe(demand, [("new", now + 1, (7, 0, 0.0))], now + 2)
    assert demand.history[-1][1] == 11
    demand = observe(demand, [("old", NOW - 500, (1000, 0, 0.0))], now + 4)
    assert demand.history[-1][1] == 11


def test_counters_that_fall_add_nothing():
    """A gateway that counts anew under its old name takes nothing away."""
    demand, now = fed(5)
    demand = observe(demand, [("g", NOW, (1, 1, 0.5))], now + 2)
    assert demand.history[-1][1] == 5


def test_service_time_is_the_mean_of_all_answers():
    """Ten of half a second and thirty of three quarters: what chance makes is not followed."""
    demand, now = fed(10)
    assert demand.service_s == pytest.approx(0.5)
    demand = observe(demand, [("g", NOW, (40, 40, 5 + 30 * 0.75))], now + 2)
    assert demand.service_s == pytest.approx(27.5 / 40)


def test_service_time_follows_a_change_soon():
    """A thousand answers of half a second, then each takes twice as long: believed within sixty."""
    demand, now = fed(*[50] * 20)
    total, service_s = 1000, 500.0
    for _ in range(6):
        now, total, service_s = now + 2, total + 10, service_s + 10.0
        demand = observe(demand, [("g", NOW, (total, total, service_s))], now)
    assert demand.service_s > 0.75


def test_a_steady_climb_is_a_line_through_five_minutes():
    """From 8 to 12 requests a second in five minutes: the mean, the slope, and all of the span."""
    demand, now = fed(*[16 + number * 8 // 150 for number in range(150)])
    rate, slope, length_s = estimate_rate(demand, now)
    assert (rate, slope) == (pytest.approx(10.0, rel=0.03), pytest.approx(4 / 300, rel=0.1))
    assert length_s == pytest.approx(300, abs=10)


@pytest.mark.parametrize(
    ("late", "longest_s"),
    [
        pytest.param([20] * 5, 310, id="as ever"),
        pytest.param([40] * 5, 70, id="twice as many for ten seconds"),
        pytest.param([0] * 10, 70, id="none any more"),
    ],
)
def test_what_came_of_late_contradicts_a_line(late, longest_s):
    """Ten a second for five minutes are believed until the last seconds say otherwise."""
    demand, now = fed(*[20] * 150, *late)
    assert estimate_rate(demand, now)[2] == pytest.approx(longest_s, abs=12)


def test_it_stays_small_and_survives_json():
    """However long it runs, the history is bounded; what is written is read back."""
    demand, _ = fed(*[3] * 1000, step_s=1.0)
    assert len(demand.history) < 120
    assert Demand.from_json(demand.to_json()) == demand
    assert forget(demand, frozenset()).counters == {}

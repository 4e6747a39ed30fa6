"""Rates from cumulative counters."""

import pytest
from dashboard_builders import deployment_report, gateway_report, times

from dashboard.rates import Rates, extend, measure


def trail_of(*steps, started_at=0.0):
    """A trail from (at, accepted, failed, tokens, histogram)."""
    trail = ()
    for at, accepted, failed, tokens, histogram in steps:
        entry = deployment_report(accepted=accepted, failed=failed, tokens=tokens, duration=histogram)
        trail = extend(trail, gateway_report(at, deployments=[entry], started_at=started_at))
    return trail


def test_rates_are_differences_over_the_window():
    """Requests, failures and tokens per second come from the last three seconds alone."""
    trail = trail_of(
        (100.0, 1000, 10, 0, times({})), (107.0, 1010, 10, 90, times({})), (110.0, 1070, 13, 390, times({}))
    )
    assert measure([trail])["minilm"] == Rates(rps=20.0, failed_per_s=1.0, tokens_per_s=100.0)


def test_latency_is_of_the_last_ten_seconds():
    """What was counted before the window does not weigh on the quantiles."""
    slow, both = times({4.0: 500}), times({4.0: 500, 0.0055: 100})
    trail = trail_of((80.0, 0, 0, 0, times({})), (100.0, 500, 0, 0, slow), (110.0, 600, 0, 0, both))
    rates = measure([trail])["minilm"]
    assert rates.p50_ms == pytest.approx(5.0)
    assert rates.p95_ms == pytest.approx(5.9)


def test_one_report_of_an_old_gateway_tells_nothing():
    """Totals of unknown age are no rate."""
    trail = trail_of((100.0, 1000, 0, 0, times({0.01: 1000})))
    assert measure([trail])["minilm"] == Rates()


def test_a_restarted_gateway_counts_from_zero():
    """Counters that went back to zero give no negative rate, and nothing is lost."""
    before = trail_of((100.0, 1000, 0, 0, times({})), (101.0, 1040, 0, 0, times({})))
    fresh = deployment_report(accepted=30, duration=times({0.0055: 30}))
    trail = extend(before, gateway_report(103.0, deployments=[fresh], started_at=102.0))
    assert len(trail) == 1
    assert measure([trail])["minilm"].rps == 30.0
    assert measure([trail])["minilm"].p50_ms == pytest.approx(5.0)


def test_two_gateways_add_up():
    """Rates of two gateways are summed, their latencies merged."""
    fast = trail_of((100.0, 0, 0, 0, times({})), (110.0, 100, 0, 0, times({0.0055: 100})))
    slow = trail_of((100.0, 0, 0, 0, times({})), (110.0, 300, 0, 0, times({0.9: 300})))
    rates = measure([fast, slow])["minilm"]
    assert rates.rps == 40.0
    assert rates.p50_ms == pytest.approx(768 + 232 / 3)


def test_a_trail_is_bounded():
    """No more is kept than the windows reach."""
    trail = ()
    for second in range(100):
        trail = extend(trail, gateway_report(float(second)))
    assert [report.at for report in trail] == [float(second) for second in range(88, 100)]


def test_a_new_deployment_counts_from_zero():
    """One that was not in the older report has its whole count in the window."""
    trail = extend((), gateway_report(100.0))
    trail = extend(trail, gateway_report(102.0, deployments=[deployment_report(accepted=10)]))
    assert measure([trail])["minilm"].rps == 5.0

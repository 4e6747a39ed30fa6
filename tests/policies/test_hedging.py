"""Which requests are slow: measured, not guessed."""

from appliance.policies.hedging import ANEW, KEPT, LEAST_S, RecentTimes


def test_nothing_is_slow_until_enough_is_known():
    """A few answers tell nothing of the slowest twentieth."""
    times = RecentTimes()
    for _ in range(ANEW - 1):
        times.note(0.1)
    assert times.slow_s is None
    times.note(0.1)
    assert times.slow_s == 0.1


def test_the_slowest_twentieth():
    """Of 256 times from 1 to 256 ms the 95th percentile is 244 ms."""
    times = RecentTimes()
    for number in range(KEPT):
        times.note((number * 37 % KEPT + 1) / 1000)
    assert times.slow_s == 0.244


def test_what_is_long_ago_does_not_count():
    """After as many answers as are kept it is all new."""
    times = RecentTimes()
    for took_s in [1.0] * KEPT + [0.02] * KEPT:
        times.note(took_s)
    assert times.slow_s == 0.02


def test_a_few_milliseconds_are_never_slow():
    """Sooner the answer is as likely under way."""
    times = RecentTimes()
    for _ in range(ANEW):
        times.note(0.0002)
    assert times.slow_s == LEAST_S

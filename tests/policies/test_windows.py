"""Averages over sliding windows."""

import pytest

from appliance.policies.windows import (
    Bucket,
    add_spans,
    average,
    span_of,
    window_from_json,
    window_to_json,
)


def test_span_is_spread_over_its_seconds():
    """Three request-seconds over a second and a half are two at once, in each second it touches."""
    window = add_spans((), [(10.5, 12.0, 3.0)], keep_s=60)
    assert window == (Bucket(10, 1.0, 0.5), Bucket(11, 2.0, 1.0))


def test_what_was_not_seen_is_not_zero():
    """A gap in the reports leaves the average of what was seen as it is."""
    window = add_spans((), [(10.0, 11.0, 4.0)], keep_s=60)
    window = add_spans(window, [(15.0, 16.0, 4.0)], keep_s=60)
    assert average(window, now=16.0, length_s=6) == pytest.approx(4.0)


def test_gateways_add_up_but_their_time_does_not():
    """Two gateways that carried 2 and 3 in the same second carried 5 together."""
    window = add_spans((), [(10.0, 11.0, 2.0), (10.0, 11.0, 3.0)], keep_s=60)
    assert average(window, now=11.0, length_s=6) == pytest.approx(5.0)


def test_an_empty_window_cannot_tell():
    """Nothing seen in the window is no average at all."""
    assert average((), now=5.0, length_s=6) is None
    assert average((Bucket(1, 5.0, 1.0),), now=100.0, length_s=6) is None


def test_old_buckets_go():
    """The window is bounded whatever its length of use."""
    window = ()
    for second in range(300):
        window = add_spans(window, [(float(second), second + 1.0, 1.0)], keep_s=61)
    assert len(window) <= 62
    assert average(window, now=300.0, length_s=60) == pytest.approx(1.0)


def test_lost_reports_lose_nothing():
    """The difference to the last known total covers the time between."""
    assert span_of({"g": (10.0, 5.0)}, "g", 0.0, 14.0, 25.0) == (10.0, 14.0, 20.0)


def test_new_gateway_counts_from_its_start():
    """What a gateway carried before its first report is not lost."""
    assert span_of({}, "g", 9.0, 10.0, 7.0) == (9.0, 10.0, 7.0)


def test_the_same_report_twice_adds_nothing():
    """Time that has not moved is no span."""
    assert span_of({"g": (10.0, 5.0)}, "g", 0.0, 10.0, 5.0) is None


def test_window_survives_json():
    """What is written to a row is read back."""
    window = add_spans((), [(10.25, 12.0, 3.0)], keep_s=60)
    assert window_from_json(window_to_json(window)) == window

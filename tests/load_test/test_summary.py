"""From single requests to figures."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.load_test.summary import LatencyHistogram, Recorder, render_summary


def summarise(recorder: Recorder, ended_s: float):
    return recorder.summarise(
        mode="closed", connections=1, offered_rps=None, ended_s=ended_s, interrupted=False
    )


@pytest.mark.slow
@given(
    st.lists(st.floats(min_value=1e-6, max_value=600), min_size=1, max_size=200),
    st.sampled_from([0.5, 0.95, 0.99, 1.0]),
)
def test_quantiles_are_near_the_exact_ones(durations, q):
    """A histogram's quantile lies within one bucket of the sorted list's."""
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.add(duration)
    exact = sorted(durations)[max(1, math.ceil(q * len(durations))) - 1]
    assert histogram.quantile(q) == pytest.approx(exact, rel=0.006)
    assert histogram.max_s == max(durations)
    assert histogram.count == len(durations)


def test_an_empty_histogram_has_no_quantiles():
    """Where nothing was measured, nothing is claimed."""
    figures = LatencyHistogram().figures()
    assert (figures.p50_ms, figures.p99_ms, figures.max_ms, figures.mean_ms) == (None, None, None, None)


def test_throughput_and_latency_are_of_good_answers_within_the_window():
    """Answers after the window, errors and failures count as requests, not as throughput."""
    recorder = Recorder(window_s=2.0)
    recorder.answer(0.5, 0.010, 200)
    recorder.answer(1.5, 0.010, 200)
    recorder.answer(1.6, 0.001, 503)
    recorder.answer(2.5, 0.900, 200)
    recorder.fail(2.6, "timeout")
    summary = summarise(recorder, ended_s=2.7)
    assert summary.throughput_rps == 1.0
    assert (summary.requests, summary.answered, summary.failed, summary.not_ok) == (5, 4, 1, 2)
    assert summary.statuses == {"200": 3, "503": 1}
    assert summary.failures == {"timeout": 1}
    assert summary.latency.p50_ms == pytest.approx(10, rel=0.006)
    assert summary.latency.max_ms == 900


def test_a_run_ended_by_its_count_is_measured_to_its_last_answer():
    """Without a duration the window is the time to the last answer."""
    recorder = Recorder(window_s=None)
    for n in range(1, 11):
        recorder.answer(n * 0.1, 0.1, 200)
    assert summarise(recorder, ended_s=5.0).throughput_rps == pytest.approx(10)


def test_seconds_are_told_apart_without_gaps():
    """Every second of the run has a row, also the quiet ones."""
    recorder = Recorder(window_s=4.0)
    recorder.begin(0.1)
    recorder.answer(0.2, 0.1, 200)
    recorder.begin(0.9)
    recorder.answer(3.4, 2.5, 200)
    recorder.fail(3.5, "closed")
    rows = summarise(recorder, ended_s=4.0).seconds
    assert [(r.second, r.sent, r.answered, r.failed) for r in rows] == [
        (0, 2, 1, 0),
        (1, 0, 0, 0),
        (2, 0, 0, 0),
        (3, 0, 1, 1),
    ]
    assert rows[0].p50_ms == pytest.approx(100, rel=0.006)
    assert rows[1].p50_ms is None
    assert rows[3].p99_ms == pytest.approx(2500, rel=0.006)


def test_progress_shows_the_last_whole_second():
    """A row is shown once its second is over."""
    recorder = Recorder(window_s=4.0)
    recorder.answer(0.2, 0.1, 200)
    assert recorder.settle(0.9) is None
    row = recorder.settle(1.1)
    assert row is not None
    assert (row.second, row.answered) == (0, 1)


def test_the_summary_is_plain_json_and_a_table():
    """Both forms name the failures by cause."""
    recorder = Recorder(window_s=1.0)
    recorder.answer(0.5, 0.004, 429)
    recorder.fail(0.6, "refused")
    recorder.begin(0.5, lag_s=0.001)
    summary = summarise(recorder, ended_s=1.0)
    document = json.loads(json.dumps(summary.to_json()))
    assert document["failures"] == {"refused": 1}
    assert document["not_ok"] == 2
    assert document["seconds"][0]["answered"] == 1
    table = render_summary(summary)
    assert "429: 1" in table
    assert "refused: 1" in table
    assert "nothing measured" in table
    assert "generator lag" in table

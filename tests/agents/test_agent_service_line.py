"""Service time as a line: fitted, learned from batches, and what it means for capacity."""

import pytest

from agents.service_line import EVIDENCE, Line, RunningLine, capacity_of, fit_line


@pytest.mark.parametrize(
    ("points", "line"),
    [
        pytest.param([], None, id="nothing"),
        pytest.param([(100, 0.02)], Line(0.0, 0.0002), id="one"),
        pytest.param([(100, 0.02), (101, 0.02), (99, 0.02)], Line(0.0, 0.0002), id="hardly different"),
        pytest.param([(10, 0.003), (100, 0.012), (1000, 0.102)], Line(0.002, 0.0001), id="exact"),
        pytest.param([(10, 0.01), (100, 0.01)], Line(0.01, 0.0), id="flat"),
        pytest.param([(10, 0.02), (100, 0.01)], Line(0.02, 0.0), id="falling"),
        pytest.param([(10, 0.001), (100, 0.02)], None, id="nothing fixed"),
    ],
)
def test_fit(points, line):
    """Least squares of relative errors, neither part below zero."""
    fitted = fit_line(points)
    if points and line is None:
        assert fitted is not None
        assert fitted.fixed_s == 0.0
        assert fitted.per_token_s > 0.0
        return
    assert (fitted is None) == (line is None)
    if fitted is not None and line is not None:
        assert fitted.fixed_s == pytest.approx(line.fixed_s, abs=1e-9, rel=0.02)
        assert fitted.per_token_s == pytest.approx(line.per_token_s, abs=1e-12, rel=0.02)


def test_running_line_needs_evidence_and_follows():
    """Nothing is said of a few batches; of many the line is right, also after the machine has changed."""
    learned = RunningLine()
    for number in range(EVIDENCE - 1):
        learned.add(10 + number, 0.002 + 0.0001 * (10 + number))
    assert learned.line is None
    for number in range(200):
        learned.add(10 + number, 0.002 + 0.0001 * (10 + number))
    assert learned.line is not None
    assert learned.line.at(100) == pytest.approx(0.012, rel=0.01)
    for number in range(3000):
        learned.add(10 + number % 200, 2 * (0.002 + 0.0001 * (10 + number % 200)))
    assert learned.line.at(100) == pytest.approx(0.024, rel=0.02)


def test_small_batches_alone_tell_nothing_of_large_ones():
    """There is no estimate before sizes differ: it would keep batches small for ever."""
    learned = RunningLine()
    for _ in range(50):
        learned.add(10, 1.0)
    assert learned.estimate is None
    assert learned.line == Line(0.0, pytest.approx(0.1))
    learned.add(80, 1.0)
    assert learned.estimate is not None
    assert learned.estimate.at(80) < 2.0


def test_running_line_is_not_upset_by_one_pause():
    """A machine that stood still for ten seconds once does not make batches look slow."""
    learned = RunningLine()
    for number in range(200):
        learned.add(10 + number, 0.002 + 0.0001 * (10 + number))
    before = learned.line
    learned.add(100, 10.0)
    assert before is not None
    assert learned.line is not None
    assert learned.line.at(100) == pytest.approx(before.at(100), rel=0.1)


def test_capacity():
    """Full batches in all workers, or as many sequences as the latency budget allows."""
    line = Line(0.008, 0.0002)
    rate = capacity_of(line, workers=2, batch_size=8, sequence_tokens=20, budget_s=1.0)
    assert rate == pytest.approx((400, 8000))
    small = capacity_of(line, workers=2, batch_size=8, sequence_tokens=20, budget_s=0.016)
    assert small[0] == pytest.approx(2 * 4 / 0.024)
    alone = capacity_of(line, workers=1, batch_size=8, sequence_tokens=1000, budget_s=0.1)
    assert alone[0] == pytest.approx(2 / 0.408)

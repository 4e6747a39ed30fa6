"""The arithmetic of open loops: unequal nodes and faults."""

import pytest

from tests.bench.balancers import find_program
from tests.bench.failover import (
    KILL_60,
    KILL_80,
    OURS,
    STOP_60,
    Failover,
    Fault,
    Moments,
    count_under_way,
    find_backlog_s,
    judge,
)
from tests.bench.failover_report import compute_failover_marks, render_failover
from tests.bench.open_load import OpenRun, Row, percentile, read_rows
from tests.bench.processes import BenchError
from tests.bench.unequal import (
    FIRST_FREE,
    IDEAL,
    MARKED_RATE,
    Unequal,
    build_turn,
    compute_unequal_marks,
    render_unequal,
)


def build_rows(count: int, ms: float, *, start_s: float = 0.0, every_s: float = 0.01) -> list[Row]:
    """Requests at even distances that all take as long."""
    return [Row(n, start_s + n * every_s, ms, 200) for n in range(count)]


def build_fault(scenario=KILL_60, **changes) -> Fault:
    told = {
        "server": OURS, "scenario": scenario.name, "round": 0, "requests": 100, "failures": {},
        "usual_p99_ms": 40.0, "p99_ms": 60.0, "longest_ms": 90.0, "ready_s": 0.5, "backlog_s": 1.0,
        "ejected_ms": 200.0,
    }  # fmt: skip
    return Fault(**told | changes)


def test_a_percentile_is_one_of_the_values():
    """The smallest that so many do not exceed; of nothing there is none."""
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([], 0.5) is None


def test_rows_are_read_as_they_are_written(tmp_path):
    """Answers and failures; only 2xx is good."""
    lines = (
        '{"n":0,"t":0.5,"ms":10.0,"status":200,"by":"a"}\n'
        '{"n":1,"t":0.6,"ms":1.0,"status":429,"by":""}\n'
        '{"n":2,"t":0.7,"ms":5.0,"cause":"closed"}\n'
    )
    (tmp_path / "record").write_text(lines)
    rows = read_rows(tmp_path / "record")
    assert [row.good for row in rows] == [True, False, False]
    assert OpenRun(rows, {}, 0.0).failed == rows[1:]
    assert rows[0].ended_s == pytest.approx(0.51)


def test_what_is_under_way_is_counted():
    """One more with each arrival, one less with each end."""
    rows = [Row(0, 0.0, 30.0, 200), Row(1, 0.01, 10.0, 200)]
    assert [count for _, count in count_under_way(rows)] == [1, 2, 1, 0]


def test_the_backlog_is_gone_when_as_many_are_under_way_as_usual():
    """100/s of 20 ms are 2 under way; twenty more that came at the fault end at 6.5 s."""
    rows = build_rows(1000, 19.9)
    rows += [Row(1000 + n, 5.0, 1500.0, 200) for n in range(20)]
    assert find_backlog_s(rows, 5.0, 6.0) == pytest.approx(0.5, abs=0.03)
    assert find_backlog_s(rows, 5.0, 7.0) == pytest.approx(0.0, abs=0.03)


def test_a_backlog_that_stays_has_no_time():
    """Where more are under way than usual until the last arrival, nothing is claimed."""
    rows = build_rows(500, 20.0) + [Row(500 + n, 5.0 + n / 100, 9000.0, 200) for n in range(500)]
    assert find_backlog_s(rows, 5.0, 6.0) is None


def test_a_fault_is_judged_by_the_seconds_around_it():
    """What was usual before, what it was after, and who waited longest; failures by cause."""
    before, after = build_rows(1000, 10.0), build_rows(1000, 50.0, start_s=10.0)
    after[0] = Row(1000, 10.0, 700.0, 200)
    after[1] = Row(1001, 10.01, 3.0, None, cause="closed")
    after[2] = Row(1002, 10.02, 3.0, 503)
    run = OpenRun([*before, *after], {}, started_at=100.0)
    moments = Moments(fault=110.0, ejected=110.3, ready=110.8)
    fault = judge(run, moments, server=OURS, scenario=STOP_60, number=0)
    assert (fault.usual_p99_ms, fault.p99_ms, fault.longest_ms) == (10.0, 50.0, 700.0)
    assert fault.failures == {"closed": 1, "503": 1}
    assert (fault.failed, fault.requests) == (2, 2000)
    assert fault.ejected_ms == pytest.approx(300)
    assert fault.ready_s == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"failures": {"503": 1}}, [0, 1, 2]),
        ({"p99_ms": 291.0}, [3]),
        ({"backlog_s": 5.1}, [4]),
        ({"backlog_s": None}, [4]),
        ({"ejected_ms": 501.0}, [5]),
        ({"unbalanced": "1 accepted, but 0 finished"}, [6]),
    ],
)
def test_each_mark_of_a_fault_can_be_missed(changes, missed):
    """And only the one that is meant."""
    findings = Failover([build_fault(scenario, **changes) for scenario in (KILL_60, KILL_80, STOP_60)])
    marks = compute_failover_marks(findings)
    assert [at for at, mark in enumerate(marks) if mark.reached is not True] == missed
    assert len(render_failover(findings).splitlines()[0]) > 100


def test_a_failure_in_any_round_misses_the_mark():
    """Failures are not averaged away, and are named by their cause."""
    findings = Failover([build_fault(), build_fault(round=1, failures={"closed": 2})])
    assert compute_failover_marks(findings)[0].reached is False
    assert "2 (closed: 2)" in render_failover(findings)


def test_no_faults_are_no_marks():
    """What was not measured is neither reached nor missed."""
    assert {mark.reached for mark in compute_failover_marks(Failover())} == {None}


def build_unequal(ours_ms: float, peer_ms: float, ideal_ms: float) -> Unequal:
    told = {OURS: ours_ms, "nginx": peer_ms, "HAProxy": peer_ms, IDEAL: ideal_ms, FIRST_FREE: ideal_ms}
    turns = [
        build_turn(server, MARKED_RATE, number, [ms * factor], 0)
        for number, factor in enumerate((1.0, 9.0, 0.5))
        for server, ms in told.items()
    ]
    return Unequal(turns)


@pytest.mark.parametrize(
    ("figures", "reached"),
    [((70.0, 140.0, 60.0), [True, True, True]), ((71.0, 140.0, 54.0), [False, False, False])],
)
def test_unequal_nodes_are_judged_by_medians_of_p99(figures, reached):
    """Half of either peer's, and 1.3 times the ideal's; an outlying round moves nothing."""
    findings = build_unequal(*figures)
    assert [mark.reached for mark in compute_unequal_marks(findings)] == reached
    assert f"{figures[0]:.1f}" in render_unequal(findings)


def test_a_peer_that_is_missing_is_named():
    """Its mark is unknown, with the reason in the table."""
    findings = build_unequal(70, 140, 60)
    findings.turns = [turn for turn in findings.turns if turn.server != "nginx"]
    findings.troubles["nginx"] = "nginx is not there"
    assert [mark.reached for mark in compute_unequal_marks(findings)] == [None, True, True]
    assert "NOT MEASURED: nginx is not there" in render_unequal(findings)


def test_a_missing_program_is_named_with_what_to_do():
    """In one line."""
    with pytest.raises(BenchError, match="sudo apt-get install no-such-program"):
        find_program("no-such-program")

"""The benchmark's arithmetic and its hold on processes."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.end_to_end import Findings, Measurement
from tests.bench.engine_ceiling import BATCHES, PROCESSES, Cell
from tests.bench.enrolment import Enrolments, Round, compute_enrolment_marks, render_enrolment
from tests.bench.inputs import build_sentences
from tests.bench.processes import BenchError, orphans_adopted, process_running, wait_until
from tests.bench.report import (
    CORES,
    compute_figures,
    compute_marks,
    render_added_latency,
    render_ceiling,
    render_end_to_end,
    render_marks,
)


def build_findings(ours_rps: float, peer_rps: float) -> Findings:
    findings = Findings(ceilings=[1000.0, 2000.0, 3000.0], calls_ms=[1.0, 1.5, 2.0])
    for number, factor in enumerate((1.0, 5.0, 0.5)):
        for connections in (1, 16, 64):
            for name, rps in (("ours", ours_rps), ("peer", peer_rps)):
                one = Measurement(name, number, connections, rps * factor, 2.0 * factor, 9.0 * factor, number)
                findings.measurements.append(one)
    return findings


def test_figures_are_medians_of_the_rounds():
    """An outlying round moves nothing; failures add up."""
    figures = compute_figures(build_findings(1000, 500))["ours", 16]
    assert (figures.throughput_rps, figures.p50_ms, figures.p99_ms, figures.not_ok) == (1000, 2, 9, 3)


def test_a_server_without_answers_has_no_figures():
    """Where nothing was answered nothing is claimed."""
    findings = Findings(ceilings=[1.0], measurements=[Measurement("ours", 0, 1, 0.0, None, None, 7)])
    assert compute_figures(findings) == {}


@pytest.mark.parametrize(
    ("ours_rps", "peer_rps", "reached"),
    [
        (1600, 1599, [True, True, True, True, True]),
        (1599, 500, [False, True, True, True, True]),
        (1700, 1700, [True, True, False, False, False]),
    ],
)
def test_marks_are_reached_or_missed(ours_rps, peer_rps, reached):
    """80 % of the median ceiling (2000), a short tail, and strictly ahead of each peer."""
    marks = compute_marks(build_findings(ours_rps, peer_rps), "ours", ["peer"])
    assert [mark.reached for mark in marks] == reached
    assert ("MISSED" in render_marks(marks)) is (False in reached)


def test_marks_of_a_missing_peer_are_unknown():
    """A peer that could not be measured is not beaten."""
    marks = compute_marks(build_findings(1600, 500), "ours", ["absent"])
    assert [mark.reached for mark in marks] == [True, True, None, None, None]


def test_what_the_load_takes_is_not_asked_of_the_server():
    """A load generator that takes half of all cores leaves half of the ceiling; a peer may ask for more."""
    findings = build_findings(900, 500)
    findings.measurements = [
        replace(one, generator_cores=CORES / 2) if one.server == "ours" else replace(one, server="LitServe")
        for one in findings.measurements
    ]
    marks = compute_marks(findings, "ours", ["LitServe"])
    assert [mark.reached for mark in marks] == [True, True, True, True, False]
    assert [marks[0].figure, marks[-1].text] == ["90.0% of 50.0%", "at least 2 x LitServe at 64 connections"]


def test_tables_hold_the_figures():
    """Ratios stand where both sides were measured."""
    findings = build_findings(1000, 500)
    end_to_end = render_end_to_end(findings, ["ours", "peer"], "ours").splitlines()
    assert [cell.strip() for cell in end_to_end[3].split("|")[1:-1]] == [
        "1", "peer", "500", "2.00", "9.00", "25.0%", "2.00", "3",
    ]  # fmt: skip
    assert "+0.50" in render_added_latency(findings, ["ours", "peer"])
    cells = [Cell(n, batch, 100.0 * n + batch) for n in PROCESSES for batch in BATCHES]
    assert "232" in render_ceiling(cells)
    for table in (end_to_end, render_ceiling(cells).splitlines()):
        assert len({len(line) for line in table}) == 1


def test_sentences_differ():
    """No cache on either side can answer for the engine within a turn."""
    assert len(set(build_sentences())) == 64


def test_all_that_a_process_leaves_is_ended(tmp_path):
    """Also a grandchild in a session of its own whose parent is gone."""
    script = (
        "import subprocess, sys\n"
        "command = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "child = subprocess.Popen(command, start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    log = tmp_path / "log"
    command = (sys.executable, "-c", script)
    with orphans_adopted(), process_running(command, log, env=os.environ, cwd=tmp_path) as running:
        wait_until("started", lambda: log.read_text().endswith("\n"), running, 20)
        grandchild = int(log.read_text())
        assert Path(f"/proc/{grandchild}").exists()
    assert running.exited() is not None
    assert not Path(f"/proc/{grandchild}").exists()


def test_a_process_that_ends_early_says_why(tmp_path):
    """The last line of its output is the reason."""
    command = (sys.executable, "-c", "raise SystemExit('no model here')")
    began = time.monotonic()
    with (
        process_running(command, tmp_path / "log", env=os.environ, cwd=tmp_path) as running,
        pytest.raises(BenchError, match=r"code 1 before READY: no model here"),
    ):
        wait_until("READY", lambda: False, running, 30)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("one_s", "three_s", "reached"),
    [(9.0, 17.9, [True, True, True]), (10.1, 20.3, [False, True, False])],
)
def test_enrolment_is_judged_by_medians(one_s, three_s, reached):
    """10 s to ready, 5 s more to an answer, three boxes for less than two; one bad round moves nothing."""
    rounds = [Round(one_s, 4.0, three_s), Round(one_s, 5.0, three_s), Round(99.0, 99.0, 999.0)]
    findings = Enrolments(rounds)
    assert [mark.reached for mark in compute_enrolment_marks(findings)] == reached
    assert f"{one_s:.2f}" in render_enrolment(findings)


def test_where_no_host_can_run_nothing_is_claimed():
    """The table says why, and no mark is reached or missed."""
    findings = Enrolments(trouble="real hosts need root")
    assert "real hosts need root" in render_enrolment(findings)
    assert {mark.reached for mark in compute_enrolment_marks(findings)} == {None}

"""Calibration: what is measured, what follows from it, and the measurement itself with scripted engines."""

import json
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from agent_builders import ROOT, WAIT_S, config_json

from agents.calibrate import (
    Cell,
    Layout,
    Sample,
    Stopped,
    calibrate,
    conclude,
    is_past_best,
    keep_better,
    measure_cell,
    plan_layouts,
    sweet_spot,
)
from agents.config import MAX_THREADS, MAX_WORKERS
from agents.engines.fake import FakeEngine

ONE = Layout(1, 1)


def sample(batch_size, batch_s, *, length=32, layout=ONE):
    """A cell of which every worker computed ten batches."""
    return Sample(Cell(layout, batch_size, length), 10 * layout.workers, 10 * batch_s, batch_s)


@pytest.mark.parametrize(
    ("cores", "layouts"),
    [(0, [(1, 1)]), (1, [(1, 1)]), (2, [(2, 1), (1, 2)]), (4, [(4, 1), (2, 2), (1, 4)]),
     (6, [(6, 1), (3, 2), (1, 4), (1, 6)]), (16, [(16, 1), (8, 2), (4, 4), (2, 8), (1, 16)])],
)  # fmt: skip
def test_layouts_use_all_cores(cores, layouts):
    """From one thread a worker to one worker with all; never more threads than cores."""
    assert plan_layouts(cores) == tuple(Layout(*layout) for layout in layouts)


def test_layouts_are_what_agents_accept():
    """On a machine with more cores than an agent may have workers or threads."""
    layouts = plan_layouts(384)
    assert layouts[0] == Layout(MAX_WORKERS, 1)
    assert max(layout.threads for layout in layouts) <= MAX_THREADS


def test_better_half_goes_on():
    """Of four two, of three and of two one; equals by their order."""
    a, b, c, d = (Layout(number, 1) for number in range(1, 5))
    assert keep_better({a: 1.0, b: 4.0, c: 3.0, d: 2.0}) == (b, c)
    assert keep_better({a: 1.0, b: 2.0, c: 3.0}) == (c,)
    assert keep_better({a: 1.0, b: 1.0}) == (a,)
    assert keep_better({a: 1.0}) == (a,)


def test_search_ends_past_the_best():
    """Two clearly worse sizes in a row end it; one may be chance."""
    assert not is_past_best([sample(1, 0.010), sample(2, 0.030)])
    assert not is_past_best([sample(1, 0.010), sample(2, 0.010), sample(4, 0.050)])
    assert is_past_best([sample(1, 0.010), sample(2, 0.030), sample(4, 0.050)])


def test_sweet_spot():
    """The smallest batch that is nearly as good as the best, within the latency budget."""
    samples = [sample(1, 0.010), sample(2, 0.012), sample(4, 0.0204), sample(8, 0.040), sample(16, 0.079)]
    assert sweet_spot(samples, 0.1).cell.batch_size == 4
    assert sweet_spot(samples, 0.015).cell.batch_size == 2
    assert sweet_spot([sample(1, 0.010), sample(2, 0.021)], 0.001).cell.batch_size == 1


def test_sweet_spot_of_an_engine_that_charges_by_the_batch():
    """Where one alone takes all of the budget already, a full batch costs nobody anything."""
    samples = [sample(size, 1.0 + 0.001 * size) for size in (1, 2, 4, 8, 16)]
    assert sweet_spot(samples, 0.1).cell.batch_size == 16


def test_conclusion():
    """Best batch, throughput over all workers, and the line through the best layout's cells alone."""
    layout = Layout(2, 1)
    batches = [sample(size, 0.002 + 0.0001 * 32 * size, layout=layout) for size in (1, 2, 4, 8)]
    other = sample(8, 9.0)
    long = sample(8, 0.002 + 0.0001 * 128 * 8, length=128, layout=layout)
    found = conclude([other, *batches, long], batches, 0.1)
    assert (found.workers, found.threads, found.batch_size) == (2, 1, 8)
    assert (found.full_batch_size, found.full_rps) == (8, found.capacity_rps)
    assert found.capacity_rps == pytest.approx(16 / (0.002 + 0.0256), rel=1e-3)
    assert (found.fixed_s, found.per_token_s) == (pytest.approx(0.002), pytest.approx(0.0001))
    assert found.tokens_per_s == pytest.approx(16 * 128 / (0.002 + 0.1024), rel=1e-3)
    assert len(found.cells) == 6


def test_conclusion_tells_what_larger_batches_do_whatever_the_budget():
    """What lies past the latency budget is told apart: the rest is of batches within it."""
    batches = [sample(size, 0.02 + 0.001 * size) for size in (1, 2, 4, 8, 16, 32, 64)]
    found = conclude(batches, batches, 0.03)
    assert (found.batch_size, found.capacity_rps) == (16, pytest.approx(16 / 0.036, rel=1e-3))
    assert (found.full_batch_size, found.full_rps) == (64, pytest.approx(64 / 0.084, rel=1e-3))
    assert found.tokens_per_s == pytest.approx(32 * found.capacity_rps, rel=1e-3)


@pytest.mark.parametrize(
    ("budget_s", "left_s", "sizes", "full"),
    [
        pytest.param(0.3, 5.0, [1, 2, 4, 8, 16, 32, 8, 8, 64], 64, id="while there is time"),
        pytest.param(0.3, 4.0, [1, 2, 4, 8, 16, 32, 8, 8], 32, id="not what would take too long"),
        pytest.param(9.0, 9.0, [1, 2, 4, 8, 16, 32, 64, 8, 8], 64, id="all within the budget"),
        pytest.param(9.0, 1.2, [1, 2, 2, 2], 2, id="hardly any time"),
    ],
)
def test_batches_past_the_budget_come_last(monkeypatch, budget_s, left_s, sizes, full):
    """After the lengths, if there is time: a batch takes 0.2 s and 10 ms a sequence, to measure it 0.25 s."""
    measured: list[int] = []

    def measure(_engine, cell, _seconds, _stop):
        measured.append(cell.batch_size)
        batch_s = 0.2 + 0.01 * cell.batch_size
        return Sample(cell, 10, 10 * batch_s, batch_s)

    monkeypatch.setattr("agents.calibrate.measure_cell", measure)
    clock = SimpleNamespace(monotonic=lambda: 0.25 * len(measured))
    monkeypatch.setattr("agents.calibrate.time", clock)
    found = calibrate(lambda _: FakeEngine(0.0), 1, batch_budget_s=budget_s, budget_s=left_s)
    assert (measured, found.full_batch_size) == (sizes, full)


class CountingEngine(FakeEngine):
    """Tells how many are loaded at once, and what was computed."""

    loaded = most_loaded = 0
    lengths: list[int] = []

    def load(self):
        super().load()
        CountingEngine.loaded += 1
        CountingEngine.most_loaded = max(CountingEngine.most_loaded, CountingEngine.loaded)

    def infer(self, sequences):
        CountingEngine.lengths.append(len(sequences[0]))
        return super().infer(sequences)

    def close(self):
        super().close()
        CountingEngine.loaded -= 1


@pytest.mark.slow
def test_measurement_finds_the_batch_of_an_engine_that_charges_by_the_batch():
    """20 ms a batch whatever its size: large batches in several workers; one engine in memory at a time."""
    CountingEngine.loaded = CountingEngine.most_loaded = 0
    CountingEngine.lengths = []
    found = calibrate(lambda _: CountingEngine(0.02), 2, batch_budget_s=1.0, budget_s=WAIT_S, cell_s=0.1)
    assert found.workers == 2
    assert found.batch_size >= 16
    assert found.capacity_rps > 200
    assert (CountingEngine.most_loaded, CountingEngine.loaded) == (1, 0)
    assert set(CountingEngine.lengths) == {8, 32, 128}


def test_measurement_keeps_within_its_time():
    """An engine of 50 ms a sequence: out of time, nothing more is begun, and there is an answer."""
    started = time.monotonic()
    found = calibrate(
        lambda _layout: FakeEngine(0.05, "sequence"), 1, batch_budget_s=0.2, budget_s=0.01, cell_s=0.01
    )
    assert time.monotonic() - started < 5.0
    assert (found.workers, found.threads, found.batch_size) == (1, 1, 1)


def test_engine_that_fails_is_said():
    """What an engine raises in a worker comes out where the cell was asked for."""
    with pytest.raises(RuntimeError, match="not loaded"):
        measure_cell(FakeEngine(0.0), Cell(Layout(2, 1), 2, 8), 0.01, threading.Event())


def test_measurement_can_be_called_off():
    """Once told to stop it ends after the batch under way."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        calibrate(lambda _layout: FakeEngine(0.001), 2, batch_budget_s=0.1, stop=stop)


@pytest.mark.slow
def test_command_prints_one_document(tmp_path):
    """`python -m agents --calibrate` measures and prints JSON, without certificates or a port."""
    tls = {name: str(tmp_path / "none") for name in ("ca", "certificate", "key")}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_json({"tls": tls, "fake_service_ms": 1})))
    command = [sys.executable, "-m", "agents", "--calibrate", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=WAIT_S, check=True)
    assert {"workers", "threads", "batch_size", "capacity_rps"} <= json.loads(done.stdout).keys()

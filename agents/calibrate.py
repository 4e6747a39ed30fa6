"""Measures what this machine does with a model: which workers x threads x batch size, and how fast.

First the layouts (workers x threads) compete in rounds, the better half goes on; then batch sizes are
tried in the best layout; then lengths; and while there is time, batches that take longer than the latency
budget. What to measure and what follows from it are plain functions of figures; `calibrate` runs the cells
and watches the time. No request may be computed meanwhile.
"""

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from agents.batching import NEVER
from agents.config import MAX_THREADS, MAX_WORKERS, AgentConfig
from agents.engines.base import Engine, create_engine
from agents.errors import AgentError
from agents.sensors import count_cores
from agents.service_line import REFERENCE_TOKENS, allowed_s, fit_line

#: Seconds that all cells together may take; loading is not counted, but nothing is loaded after them.
BUDGET_S: Final = 5.0
CELL_S: Final = 0.25
LENGTHS: Final = (8, 128)
BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
FIRST_BATCH: Final = 8
#: One thread a worker suits single short requests best: another layout must be better by this much.
PREFERENCE: Final = 1.1
#: The smallest batch within this share of the best throughput is the sweet spot.
CLOSE_ENOUGH: Final = 0.95
#: Past the sweet spot: batches this much worse than the best are the end of the search.
_CLEARLY_WORSE: Final = 0.9
_FIRST_TOKEN: Final = 5


@dataclass(frozen=True, slots=True)
class Layout:
    """Batches at the same time, and threads of each."""

    workers: int
    threads: int


@dataclass(frozen=True, slots=True)
class Cell:
    """What is run in every worker, again and again: a batch of `batch_size` sequences of `length` tokens."""

    layout: Layout
    batch_size: int
    length: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What came of a cell. `batch_s` is the mean time of a batch while all workers compute."""

    cell: Cell
    batches: int
    elapsed_s: float
    batch_s: float

    @property
    def sequences_per_s(self) -> float:
        """Over all workers."""
        return self.batches * self.cell.batch_size / self.elapsed_s

    @property
    def tokens_per_s(self) -> float:
        """Over all workers."""
        return self.sequences_per_s * self.cell.length


@dataclass(frozen=True, slots=True)
class Calibration:
    """What does most within the latency budget. `capacity_rps` counts requests of one sentence of 32 tokens.

    `tokens_per_s` is with whatever length does most. `default_rps` is the capacity with what agents start
    with where nothing is known: a one-thread worker for each core, batches of 8. `full_rps` is what batches
    of `full_batch_size` do, the most whatever the budget.
    """

    workers: int
    threads: int
    batch_size: int
    capacity_rps: float
    default_rps: float
    full_batch_size: int
    full_rps: float
    tokens_per_s: float
    fixed_s: float
    per_token_s: float
    cells: tuple[dict[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


class Stopped(AgentError):
    """The measurement was called off."""


# --- what to measure, and what follows ----------------------------------------------------------


def plan_layouts(cores: int) -> tuple[Layout, ...]:
    """Ways to use all cores, from one thread a worker to one worker: 4 cores are 4 x 1, 2 x 2, 1 x 4."""
    cores = max(1, cores)
    layouts = [
        Layout(min(cores // threads, MAX_WORKERS), threads)
        for threads in _doublings(cores)
        if threads <= MAX_THREADS
    ]
    return tuple(dict.fromkeys(layouts))


def keep_better(rates: Mapping[Layout, float]) -> tuple[Layout, ...]:
    """The better half, at least one, in the order given; one thread a worker counts a tenth more."""

    def counted(layout: Layout) -> float:
        return rates[layout] * (PREFERENCE if layout.threads == 1 else 1.0)

    order = sorted(rates, key=counted, reverse=True)
    kept = set(order[: max(1, len(order) // 2)])
    return tuple(layout for layout in rates if layout in kept)


def is_past_best(samples: Sequence[Sample]) -> bool:
    """Whether the last two of growing batches were clearly worse than the best."""
    rates = [sample.sequences_per_s for sample in samples]
    return len(rates) > 2 and max(rates[-2:]) < _CLEARLY_WORSE * max(rates)


def sweet_spot(samples: Sequence[Sample], budget_s: float) -> Sample:
    """The smallest batch within a twentieth of the best throughput that the latency budget allows.

    `samples` must not be empty; the smallest of them is always allowed. A budget of NEVER allows all.
    """
    alone = min(samples, key=lambda one: one.cell.batch_size)
    timely = [one for one in samples if one.batch_s <= allowed_s(budget_s, alone.batch_s)]
    best = max(one.sequences_per_s for one in timely)
    good = [one for one in timely if one.sequences_per_s >= CLOSE_ENOUGH * best]
    return min(good, key=lambda sample: sample.cell.batch_size)


def conclude(samples: Sequence[Sample], batches: Sequence[Sample], budget_s: float) -> Calibration:
    """What all `samples` say, of which `batches` compared batch sizes in the best layout."""
    best, full = sweet_spot(batches, budget_s), sweet_spot(batches, NEVER)
    layout, size = best.cell.layout, best.cell.batch_size
    same = [sample for sample in samples if sample.cell.layout == layout]
    line = fit_line((one.cell.batch_size * one.cell.length, one.batch_s) for one in same)
    assert line is not None  # there is at least one sample, and it has tokens
    return Calibration(
        workers=layout.workers,
        threads=layout.threads,
        batch_size=size,
        capacity_rps=round(best.sequences_per_s, 3),
        default_rps=round(_default_rps(samples), 3),
        full_batch_size=full.cell.batch_size,
        full_rps=round(full.sequences_per_s, 3),
        tokens_per_s=round(max(one.tokens_per_s for one in same if one.cell.batch_size <= size), 1),
        fixed_s=round(line.fixed_s, 9),
        per_token_s=round(line.per_token_s, 12),
        cells=tuple(_described(sample) for sample in samples),
    )


def _default_rps(samples: Sequence[Sample]) -> float:
    """The most that any cell with the default layout and batch did, 0 where there was none."""
    first = max(sample.cell.layout.workers for sample in samples)
    usual = [
        sample.sequences_per_s
        for sample in samples
        if (sample.cell.layout, sample.cell.batch_size) == (Layout(first, 1), FIRST_BATCH)
        and sample.cell.length == samples[0].cell.length
    ]
    return max(usual, default=0.0)


def _doublings(most: int) -> list[int]:
    return [*itertools.takewhile(lambda n: n < most, (2**n for n in range(20))), most]


def _described(sample: Sample) -> dict[str, float]:
    cell = sample.cell
    return {
        "workers": cell.layout.workers,
        "threads": cell.layout.threads,
        "batch_size": cell.batch_size,
        "length": cell.length,
        "sequences_per_s": round(sample.sequences_per_s, 1),
        "batch_s": round(sample.batch_s, 6),
    }


# --- measuring ----------------------------------------------------------------------------------


def calibrate_here(config: AgentConfig, stop: threading.Event | None = None) -> Calibration:
    """Measure the model of a configuration on all cores of this machine. Raises as `calibrate`."""
    return calibrate(
        lambda layout: create_engine(replace(config, workers=layout.workers, threads=layout.threads)),
        count_cores(),
        batch_budget_s=config.batch_budget_ms / 1000,
        budget_s=BUDGET_S,
        cell_s=CELL_S,
        stop=stop,
    )


def calibrate(
    open_engine: Callable[[Layout], Engine],
    cores: int,
    *,
    batch_budget_s: float,
    budget_s: float = BUDGET_S,
    cell_s: float = CELL_S,
    stop: threading.Event | None = None,
) -> Calibration:
    """Measure, one engine in memory at a time. Raises ModelError where one does not load, and Stopped.

    Takes at most about `budget_s` and what loading takes, or, where batches are slow, one batch of each cell.
    """
    return _Run(open_engine, batch_budget_s, budget_s, cell_s, stop or threading.Event()).run(cores)


class _Run:
    """One measurement: the time it has left, and what it found."""

    def __init__(
        self,
        open_engine: Callable[[Layout], Engine],
        batch_budget_s: float,
        budget_s: float,
        cell_s: float,
        stop: threading.Event,
    ) -> None:
        self._open_engine = open_engine
        self._batch_budget_s = batch_budget_s
        self._ends_at = time.monotonic() + budget_s
        self._cell_s = cell_s
        self._stop = stop
        self._samples: list[Sample] = []

    def run(self, cores: int) -> Calibration:
        layouts = plan_layouts(cores)
        while len(layouts) > 1:
            layouts = self._compete(layouts)
        return self._explore(layouts[0])

    def _compete(self, layouts: tuple[Layout, ...]) -> tuple[Layout, ...]:
        """One round; out of time, those not measured yet are out."""
        rates: dict[Layout, float] = {}
        for layout in layouts:
            if rates and self._is_late(0.5):
                break
            with _Opened(self._open_engine(layout)) as engine:
                sample = self._measure(engine, Cell(layout, FIRST_BATCH, REFERENCE_TOKENS))
            rates[layout] = sample.sequences_per_s
        return keep_better(rates)

    def _explore(self, layout: Layout) -> Calibration:
        """Batch sizes and lengths in one layout; what is past the latency budget comes last."""
        batches: list[Sample] = []
        with _Opened(self._open_engine(layout)) as engine:
            longest = engine.describe().max_length
            self._enlarge(engine, layout, batches, self._batch_budget_s)
            size = sweet_spot(batches, self._batch_budget_s).cell.batch_size
            for other in dict.fromkeys(min(one, longest) for one in LENGTHS):
                if not self._is_late():
                    self._measure(engine, Cell(layout, min(size, 8), other))
            self._enlarge(engine, layout, batches, NEVER)
        return conclude(self._samples, batches, self._batch_budget_s)

    def _enlarge(self, engine: Engine, layout: Layout, batches: list[Sample], budget_s: float) -> None:
        """Larger batches than those tried, until they take longer than `budget_s` allows, or get worse."""
        for size in BATCHES[len(batches) :]:
            if batches:
                last_s = batches[-1].batch_s
                left_s = self._ends_at - time.monotonic()
                # Of one twice as large two are computed, and the first does not count.
                if left_s < 4 * last_s or last_s > allowed_s(budget_s, batches[0].batch_s):
                    return
                if is_past_best(batches):
                    return
            batches.append(self._measure(engine, Cell(layout, size, REFERENCE_TOKENS)))

    def _is_late(self, share: float = 0.0) -> bool:
        """Whether less than `share` of a budget of `BUDGET_S` is left."""
        return self._ends_at - time.monotonic() <= share * BUDGET_S

    def _measure(self, engine: Engine, cell: Cell) -> Sample:
        length = min(cell.length, engine.describe().max_length)
        cell = Cell(cell.layout, cell.batch_size, length)
        sample = measure_cell(engine, cell, self._cell_s, self._stop)
        self._samples.append(sample)
        return sample


def measure_cell(engine: Engine, cell: Cell, seconds: float, stop: threading.Event) -> Sample:
    """Compute batches in all workers for so long, at least one each after a first that does not count."""
    batch = _batch(cell, engine.describe().vocabulary_size)
    engine.infer(batch)
    times: list[list[float]] = [[] for _ in range(cell.layout.workers)]
    errors: list[Exception] = []
    started = time.perf_counter()

    def work(mine: list[float]) -> None:
        now = time.perf_counter()
        try:
            while (not mine or now - started < seconds) and not stop.is_set() and not errors:
                engine.infer(batch)
                before, now = now, time.perf_counter()
                mine.append(now - before)
        except Exception as error:  # noqa: BLE001 - it is raised where the cell was asked for
            errors.append(error)

    threads = [threading.Thread(target=work, args=(mine,), daemon=True) for mine in times]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_s = max(time.perf_counter() - started, 1e-9)
    if errors:
        raise errors[0]
    if stop.is_set():
        raise Stopped("the measurement was called off")
    computed = sum(map(len, times))
    return Sample(cell, computed, elapsed_s, sum(map(sum, times)) / computed)


def _batch(cell: Cell, vocabulary: int) -> list[list[int]]:
    """Sequences of any tokens: how long they take depends on their number alone."""
    span = max(1, vocabulary - _FIRST_TOKEN)
    return [
        [_FIRST_TOKEN + (7 * row + 13 * place) % span for place in range(cell.length)]
        for row in range(cell.batch_size)
    ]


class _Opened:
    """An engine that is loaded, and closed at the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Engine:
        self._engine.load()
        return self._engine

    def __exit__(self, *_error: object) -> None:
        self._engine.unload()
        self._engine.close()

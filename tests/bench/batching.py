"""How batches are put together: by length within a latency budget, beside first come first served.

The engine alone, one worker of one thread, with a backlog that is always 64 sequences deep: the same
sequences of mixed lengths for every way, in rounds that alternate.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median

from agents.batching import NEVER, BatchQueue, Job
from agents.config import BATCH_BUDGET_MS
from agents.engines.base import Engine
from agents.engines.ctranslate2 import CTranslate2Engine
from agents.service_line import RunningLine
from tests.bench.report import Mark, render_table

BATCH_SIZE = 16
BACKLOG = 64
#: Sequences of a round, and the lengths they are drawn from: most are short, some are long.
SEQUENCES, QUICK_SEQUENCES = 768, 192
SHORT_TOKENS, LONG_TOKENS, LONG_SHARE = (8, 48), (100, 200), 0.15
OURS, FIRST_COME, ALONE = "by length, within the budget", "first come first served", "one at a time"


@dataclass(frozen=True, slots=True)
class Round:
    """One way through all sequences. `padding` is a share of the tokens computed, times are in seconds."""

    way: str
    tokens_per_s: float
    padding: float
    p95_batch_s: float


def measure_batching(model: Path, rounds: int, *, quick: bool = False) -> list[Round]:
    """Every way in each round, in turn."""
    engine = CTranslate2Engine(model, "embed", workers=1, threads=1)
    engine.load()
    found: list[Round] = []
    try:
        for number in range(rounds):
            sequences = build_sequences(Random(number), QUICK_SEQUENCES if quick else SEQUENCES)
            ways = list(WAYS)
            found += [_run(engine, way, sequences) for way in ways[number % 3 :] + ways[: number % 3]]
    finally:
        engine.close()
    return found


def build_sequences(random: Random, count: int) -> list[list[int]]:
    """Token ids that mean nothing: how long they take depends on their number alone."""
    spans = [LONG_TOKENS if random.random() < LONG_SHARE else SHORT_TOKENS for _ in range(count)]
    return [[1000 + random.randrange(5000) for _ in range(random.randint(*span))] for span in spans]


def compute_batching_marks(found: Sequence[Round]) -> list[Mark]:
    """By length must be faster than first come, and keep within the latency budget."""
    ours, other = _median(found, OURS, "tokens_per_s"), _median(found, FIRST_COME, "tokens_per_s")
    p95_ms = _median(found, OURS, "p95_batch_s") * 1000
    return [
        Mark("batches by length: faster than first come first served", ours > other, f"{ours / other:.2f} x"),
        Mark(
            f"95 % of batches keep within the budget of {BATCH_BUDGET_MS:g} ms", p95_ms <= BATCH_BUDGET_MS,
            f"{p95_ms:.0f} ms",
        ),
    ]  # fmt: skip


def render_batching(found: Sequence[Round]) -> str:
    """One line a way."""
    rows = [
        [
            way,
            f"batches of {1 if way == ALONE else BATCH_SIZE} at most",
            f"{_median(found, way, 'tokens_per_s'):,.0f}",
            f"{_median(found, way, 'padding'):.0%}",
            f"{_median(found, way, 'p95_batch_s') * 1000:.0f}",
        ]
        for way in WAYS
    ]
    return render_table(["batches", "", "tokens/s", "padding", "95 % of batches, ms"], rows)


def _median(found: Iterable[Round], way: str, name: str) -> float:
    return median(float(getattr(one, name)) for one in found if one.way == way)


def _run(engine: Engine, way: str, sequences: Sequence[list[int]]) -> Round:
    line = RunningLine()
    real = rectangle = 0
    times: list[float] = []
    for batch in WAYS[way](sequences, line):
        started = time.perf_counter()
        engine.infer(batch)
        took_s = time.perf_counter() - started
        size = len(batch) * max(map(len, batch))
        line.add(size, took_s)
        real, rectangle = real + sum(map(len, batch)), rectangle + size
        times.append(took_s)
    p95_s = sorted(times)[int(0.95 * len(times))]
    return Round(way, real / sum(times), 1 - real / rectangle, p95_s)


Batches = Iterator[list[list[int]]]


def _by_length(sequences: Sequence[list[int]], line: RunningLine) -> Batches:
    queue = BatchQueue(BATCH_SIZE, BATCH_BUDGET_MS / 1000)
    waiting = iter(sequences)
    for sequence in islice(waiting, BACKLOG):
        queue.add(Job([sequence], NEVER))
    while (batch := queue.take(0.0).batch) is not None:
        yield [list(ids) for ids in batch.sequences()]
        queue.line = line.estimate
        for sequence in islice(waiting, len(batch.items)):
            queue.add(Job([sequence], NEVER))


def _first_come(sequences: Sequence[list[int]], _line: RunningLine) -> Batches:
    for at in range(0, len(sequences), BATCH_SIZE):
        yield list(sequences[at : at + BATCH_SIZE])


def _alone(sequences: Sequence[list[int]], _line: RunningLine) -> Batches:
    for sequence in sequences:
        yield [sequence]


WAYS: Mapping[str, Callable[[Sequence[list[int]], RunningLine], Batches]] = {
    OURS: _by_length,
    FIRST_COME: _first_come,
    ALONE: _alone,
}

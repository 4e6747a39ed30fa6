"""What the engine gives without HTTP: the ceiling every server is held against."""

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import BenchError

PROCESSES = (1, 2)
BATCHES = (1, 8, 16, 32)
_ROOT = Path(__file__).parents[2]
_WORKER = (sys.executable, "-m", "tests.bench.engine_worker")


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to run the engine, and what it gave."""

    processes: int
    batch: int
    sentences_per_s: float


def measure_cell(model: Path, processes: int, batch: int, seconds: float) -> Cell:
    """Throughput of `processes` one-thread processes at a batch size."""
    answers = _run_workers(model, "engine", processes, batch, seconds)
    return Cell(processes, batch, sum(answer["sentences"] / answer["elapsed_s"] for answer in answers))


def measure_call_ms(model: Path, seconds: float) -> float:
    """Median milliseconds of one sentence from text to vector, within a process."""
    return float(_run_workers(model, "call", 1, 1, seconds)[0]["p50_ms"])


def compute_reference(model: Path) -> tuple[list[float], int]:
    """Vector and number of tokens of the first sentence: what every server must answer."""
    done = subprocess.run(
        [*_WORKER, model, "vector", "1", "0"], cwd=_ROOT, capture_output=True, timeout=60, check=False
    )
    if done.returncode:
        raise BenchError(f"the engine does not load {model}: {done.stderr.decode()[-300:]}")
    answer = json.loads(done.stdout)
    return answer["vector"], answer["tokens"]


def _run_workers(
    model: Path, mode: str, processes: int, batch: int, seconds: float
) -> list[dict[str, float]]:
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [*_WORKER, model, mode, str(batch), str(seconds)], cwd=_ROOT,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
                )
            )
            for _ in range(processes)
        ]  # fmt: skip
        try:
            return _measure_together(workers)
        finally:
            for worker in workers:
                worker.kill()


def _measure_together(workers: list[subprocess.Popen[bytes]]) -> list[dict[str, float]]:
    """Start all at one moment, once all are warm."""
    for worker in workers:
        assert worker.stdout is not None
        if worker.stdout.readline().strip() != b"ready":
            raise BenchError("an engine process did not start; its reason is on stderr")
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"go\n")
        worker.stdin.flush()
    return [json.loads(worker.stdout.readline()) for worker in workers if worker.stdout is not None]

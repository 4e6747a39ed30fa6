"""The threads that compute: each takes what waits, computes it, hands it over, and takes the next.

A worker takes its next batch itself, so no engine idles while the event loop is busy; a whole
batch is handed to the event loop at once.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents.batching import NEVER, Batch, BatchQueue, Job
from agents.engines.base import Engine, Matrix
from agents.service_line import RunningLine

logger = logging.getLogger(__name__)

Reduce = Callable[[Matrix, Sequence[int]], Matrix]


@dataclass(frozen=True, slots=True)
class Done:
    """What a worker hands over: `rows` in the order of the batch's items, None where the engine failed.

    `expired` are jobs dropped because their deadline had passed.
    """

    batch: Batch | None
    rows: Matrix | None
    expired: tuple[Job, ...]
    busy_s: float = 0.0


class WorkerPool:
    """`workers` threads over one engine. `deliver` is called in a worker's thread and must be quick."""

    def __init__(
        self,
        engine: Engine,
        reduce: Reduce,
        workers: int,
        batch_size: int,
        deliver: Callable[[Done], None],
        *,
        budget_s: float = NEVER,
    ) -> None:
        self._engine = engine
        self._reduce = reduce
        self._deliver = deliver
        self._queue = BatchQueue(batch_size, budget_s)
        self._learned = RunningLine()
        lock = threading.Lock()  # guards everything of this object
        self._changed = threading.Condition(lock)
        self._quiet = threading.Condition(lock)
        self._idle = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"worker-{number}", daemon=True)
            for number in range(workers)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:  # the system gives no more
            self._threads = [thread for thread in self._threads if thread.ident is not None]
            self.close()
            raise

    @property
    def executing(self) -> int:
        """How many jobs have a sequence in the engine."""
        return self._queue.executing

    @property
    def learned(self) -> RunningLine:
        """How long batches take, from those that were computed. To be read only."""
        return self._learned

    def add(self, job: Job) -> None:
        """Put a job in the line; `wake` must follow, once for however many were added."""
        with self._changed:
            self._queue.add(job)

    def wake(self) -> None:
        """Tell idle workers that there is work."""
        with self._changed:
            self._changed.notify(min(self._idle, self._queue.waiting))

    def drop(self, job: Job) -> None:
        """Do not start what of a job has not been started."""
        with self._changed:
            self._queue.drop(job)

    def set_batches(self, batch_size: int, free_tokens: int) -> None:
        """What the next batches may be: sequences at most, and tokens that are free of the latency budget."""
        with self._changed:
            self._queue.batch_size = batch_size
            self._queue.free_tokens = free_tokens

    def wait_quiet(self) -> None:
        """Until nothing is being computed, also none of what was cancelled; or the pool is closed."""
        with self._quiet:
            while self._queue.executing and not self._closed:
                self._quiet.wait()

    def close(self, timeout_s: float = 10.0) -> None:
        """End the threads after what they compute now."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._quiet.notify_all()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def _run(self) -> None:
        while (taken := self._next()) is not None:
            batch, expired = taken
            if batch is None:
                self._deliver(Done(None, None, expired))
                continue
            started = time.monotonic()
            rows = self._compute(batch)
            busy_s = time.monotonic() - started
            with self._changed:
                self._queue.finish(batch)
                if not self._queue.executing:
                    self._quiet.notify_all()
                if rows is not None:
                    self._learned.add(batch.rectangle, busy_s)
                    self._queue.line = self._learned.line
            self._deliver(Done(batch, rows, expired, busy_s))

    def _next(self) -> tuple[Batch | None, tuple[Job, ...]] | None:
        """Wait for a batch or for jobs that came too late; None at the end."""
        with self._changed:
            while not self._closed:
                taken = self._queue.take(time.monotonic(), self._idle + 1)
                if taken.batch is not None or taken.expired:
                    return taken.batch, taken.expired
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return None

    def _compute(self, batch: Batch) -> Matrix | None:
        sequences = batch.sequences()
        try:
            return self._reduce(self._engine.infer(sequences), [len(ids) for ids in sequences])
        except Exception as error:  # noqa: BLE001 - whatever an engine raises fails this batch, not the worker
            logger.error("a batch of %d sequences failed: %r", len(sequences), error)  # noqa: TRY400 - one-line records
            return None

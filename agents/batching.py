"""Forms batches out of what is already waiting; it never waits for more. Pure.

Requests take turns in the order they came. The one whose turn it is always goes, so nobody
starves; the rest of the batch are those of the waiting whose length is closest to its own, as long as it is
expected to take no longer than the latency budget. A request with more sequences than it got into
the batch goes to the back of the line.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.service_line import Line, allowed_s

#: Padding that costs less than the batch of its own which it saves: per sequence, and as a share.
PADDING_TOKENS = 8
PADDING_SHARE = 0.25

NEVER = float("inf")


@dataclass(slots=True, eq=False)
class Job:
    """One request's work: token ids per sequence, none empty. `deadline` is on the caller's clock.

    `pending` are the indices not handed out yet, the longest first; `running` counts those in
    an engine now. `dropped` work is not handed out any more.
    """

    sequences: Sequence[Sequence[int]]
    deadline: float = NEVER
    pending: deque[int] = field(init=False)
    running: int = field(default=0, init=False)
    dropped: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        lengths = [len(sequence) for sequence in self.sequences]
        self.pending = deque(sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True))


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences to compute together, as (job, index in it), the first one's turn it was."""

    items: tuple[tuple[Job, int], ...]

    def sequences(self) -> list[Sequence[int]]:
        """The token ids, in the order of `items`."""
        return [job.sequences[index] for job, index in self.items]

    @property
    def rectangle(self) -> int:
        """Tokens with padding: sequences x the longest."""
        return len(self.items) * max(len(job.sequences[index]) for job, index in self.items)


@dataclass(frozen=True, slots=True)
class Taken:
    """What `BatchQueue.take` found: a batch, or None where nothing waits; and jobs that came too late."""

    batch: Batch | None
    expired: tuple[Job, ...]


class BatchQueue:
    """The line of jobs. Not safe between threads: the caller holds a lock around every call.

    `executing` counts jobs with a sequence in an engine, `waiting` the sequences not handed out. Once it is
    known how long a batch takes (`line`), none takes longer than `budget_s` allows (`allowed_s`); one of
    `free_tokens` at most may, whatever it takes.
    """

    def __init__(self, batch_size: int, budget_s: float = NEVER) -> None:
        self.batch_size = batch_size
        self.budget_s = budget_s
        self.free_tokens = 0
        self.line: Line | None = None
        self.executing = 0
        self.waiting = 0
        self._line: deque[Job] = deque()

    def add(self, job: Job) -> None:
        """Put a job at the end of the line."""
        self._line.append(job)
        self.waiting += len(job.pending)

    def drop(self, job: Job) -> None:
        """Forget what of a job has not been handed out; what runs is not disturbed."""
        if not job.dropped:
            job.dropped = True
            self.waiting -= len(job.pending)
            job.pending.clear()
            if job in self._line:
                self._line.remove(job)

    def take(self, now: float, idle_workers: int = 1) -> Taken:
        """Hand out the next batch, at most `batch_size` sequences and a fair share of `idle_workers`."""
        expired = tuple(job for job in self._line if job.deadline <= now)
        for job in expired:
            self.drop(job)
        if not self._line:
            return Taken(None, expired)
        limit = min(self.batch_size, -(-self.waiting // max(idle_workers, 1)))
        first = self._line[0]
        items = [(first, first.pending[0])]
        if limit > 1:
            items += self._companions(first, limit - 1)
        for job, index in items:
            self._hand_out(job, index)
        self._let_next_one(first)
        return Taken(Batch(tuple(items)), expired)

    def finish(self, batch: Batch) -> None:
        """An engine is done with a batch that `take` gave."""
        for job, _ in batch.items:
            job.running -= 1
            if job.running == 0:
                self.executing -= 1

    def _companions(self, first: Job, most: int) -> list[tuple[Job, int]]:
        """Up to `most` sequences that go well with the first of `first`; close lengths, then age, decide."""
        length = len(first.sequences[first.pending[0]])
        candidates: list[tuple[int, int, Job, int]] = []
        for job in self._line:
            skip = 1 if job is first else 0
            for place, index in enumerate(job.pending):
                if place < skip:
                    continue
                if place >= most + skip or len(candidates) >= 8 * self.batch_size:
                    break
                distance = abs(len(job.sequences[index]) - length)
                candidates.append((distance, len(candidates), job, index))
        candidates.sort(key=lambda candidate: candidate[:2])
        chosen: list[tuple[Job, int]] = []
        longest = real = length
        most_tokens = self._most_tokens(length)
        for _, _, job, index in candidates:
            own = len(job.sequences[index])
            count = len(chosen) + 2
            rectangle = max(longest, own) * count
            if rectangle > min(most_tokens, (real + own) * (1 + PADDING_SHARE) + PADDING_TOKENS * count):
                continue
            chosen.append((job, index))
            longest, real = max(longest, own), real + own
            if len(chosen) == most:
                break
        return chosen

    def _most_tokens(self, length: int) -> float:
        """Of a batch that begins with a sequence of `length`: within the latency budget, or free of it."""
        line = self.line
        if line is None or line.per_token_s <= 0:
            return NEVER
        timely = (allowed_s(self.budget_s, line.at(length)) - line.fixed_s) / line.per_token_s
        return max(timely, self.free_tokens)

    def _hand_out(self, job: Job, index: int) -> None:
        job.pending.remove(index)
        self.waiting -= 1
        if job.running == 0:
            self.executing += 1
        job.running += 1

    def _let_next_one(self, first: Job) -> None:
        self._line.popleft()
        if first.pending:
            self._line.append(first)
        if any(not job.pending for job in self._line):
            self._line = deque(job for job in self._line if job.pending)

"""Batches: of what waits, within the bound, fair, and without much padding."""

from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.batching import PADDING_SHARE, PADDING_TOKENS, Batch, BatchQueue, Job
from agents.service_line import Line


def job(*lengths: int, deadline: float = float("inf")) -> Job:
    return Job([[0] * length for length in lengths], deadline)


def taken_lengths(queue: BatchQueue, idle: int = 1) -> list[int]:
    batch = queue.take(0.0, idle).batch
    return [len(ids) for ids in batch.sequences()] if batch else []


@pytest.mark.parametrize(
    ("jobs", "batches"),
    [
        pytest.param([], [[]], id="nothing waits"),
        pytest.param([[5]], [[5], []], id="one goes alone, at once"),
        pytest.param([[5], [6], [7]], [[5, 6, 7], []], id="what waits goes together"),
        pytest.param([[5], [5], [5], [5], [5]], [[5, 5, 5, 5], [5], []], id="not more than the bound"),
        pytest.param([[9, 3, 6, 5, 4, 7]], [[9, 7, 6, 5], [4, 3], []], id="many inputs, longest first"),
        pytest.param([[10], [200], [11], [210]], [[10, 11], [200, 210], []], id="by length"),
        pytest.param([[300], [10], [10]], [[300], [10, 10], []], id="an odd one goes alone, and first"),
        pytest.param(
            [[10], [30], [28], [12], [11], [10]], [[10, 10, 11, 12], [30, 28], []], id="closest lengths first"
        ),
        pytest.param(
            [[100] * 9, [10]],
            [[100] * 4, [10], [100] * 4, [100], []],
            id="a large request lets others through",
        ),
    ],
)
def test_batches(jobs, batches):
    """Which sequences are computed together, batches of 4."""
    queue = BatchQueue(4)
    for lengths in jobs:
        queue.add(job(*lengths))
    assert [taken_lengths(queue) for _ in batches] == batches


@pytest.mark.parametrize(("idle", "first"), [(1, 4), (2, 4), (3, 3), (4, 2), (8, 1)])
def test_idle_workers_share(idle, first):
    """Eight sequences for several idle workers: each takes its part."""
    queue = BatchQueue(4)
    queue.add(job(*[5] * 8))
    assert len(taken_lengths(queue, idle)) == first


def test_late_work_is_dropped_before_batching():
    """A job whose deadline has come is given back, not computed."""
    queue = BatchQueue(4)
    late, timely = job(5, 5, deadline=10.0), job(5, deadline=10.1)
    queue.add(late)
    queue.add(timely)
    taken = queue.take(10.0)
    assert taken.expired == (late,)
    assert taken.batch is not None
    assert [owner for owner, _ in taken.batch.items] == [timely]
    assert queue.waiting == 0


def test_dropped_work_is_not_handed_out():
    """What a client has left is forgotten; what runs of it ends by itself."""
    queue = BatchQueue(2)
    leaving, staying = job(5, 5, 5), job(5)
    queue.add(leaving)
    queue.add(staying)
    running = queue.take(0.0).batch
    assert running is not None
    assert {owner for owner, _ in running.items} == {leaving}
    queue.drop(leaving)
    queue.drop(leaving)
    assert (queue.waiting, queue.executing) == (1, 1)
    rest = queue.take(0.0).batch
    assert rest is not None
    assert [owner for owner, _ in rest.items] == [staying]
    queue.finish(running)
    queue.finish(rest)
    assert (queue.waiting, queue.executing) == (0, 0)


LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), LENGTHS),
        st.tuples(st.just("take"), st.integers(1, 4)),
        st.tuples(st.just("drop"), st.integers(0, 30)),
        st.tuples(st.just("finish"), st.integers(0, 30)),
    ),
    max_size=60,
)


@given(st.integers(1, 9), STEPS)
def test_nothing_lost_nothing_twice(batch_size, steps):
    """Every sequence is computed exactly once, unless dropped; bounds and counts hold throughout."""
    story = Story(batch_size)
    for action, value in steps:
        getattr(story, action)(value)
    story.end()


class Story:
    """A queue, and what happens to it."""

    def __init__(self, batch_size: int) -> None:
        self.queue = BatchQueue(batch_size)
        self.jobs: list[Job] = []
        self.running: list[Batch] = []
        self.handed: list[tuple[Job, int]] = []

    def add(self, lengths: list[int]) -> None:
        self.jobs.append(job(*lengths))
        self.queue.add(self.jobs[-1])

    def drop(self, number: int) -> None:
        if self.jobs:
            self.queue.drop(self.jobs[number % len(self.jobs)])

    def finish(self, number: int) -> None:
        if self.running:
            self.queue.finish(self.running.pop(number % len(self.running)))

    def take(self, idle: int) -> None:
        waiting = self.queue.waiting
        batch = self.queue.take(0.0, idle).batch
        assert (batch is None) == (waiting == 0)
        if batch is None:
            return
        lengths = [len(ids) for ids in batch.sequences()]
        count, padded = len(lengths), max(lengths) * len(lengths)
        assert count <= min(self.queue.batch_size, -(-waiting // idle))
        assert count == 1 or padded <= sum(lengths) * (1 + PADDING_SHARE) + PADDING_TOKENS * count
        assert not any(owner.dropped for owner, _ in batch.items)
        self.running.append(batch)
        self.handed.extend(batch.items)

    def end(self) -> None:
        while self.queue.waiting:
            self.take(1)
        assert len(set(self.handed)) == len(self.handed)
        for one in self.jobs:
            handed = {index for owner, index in self.handed if owner is one}
            assert one.dropped or handed == set(range(len(one.sequences)))
        while self.running:
            self.finish(0)
        assert self.queue.executing == 0
        assert all(one.running == 0 for one in self.jobs)


@pytest.mark.slow
@given(st.lists(LENGTHS, min_size=2, max_size=12))
def test_nobody_starves(requests):
    """However others' lengths fit, each request has a turn within as many batches as stand before it."""
    queue = BatchQueue(3)
    jobs = [job(*lengths) for lengths in requests]
    for one in jobs:
        queue.add(one)
    for number, one in enumerate(jobs):
        queue.take(0.0)
        assert len(one.pending) < len(one.sequences), number


@pytest.mark.parametrize(
    ("budget_s", "batches"),
    [
        pytest.param(0.0, [[100, 100], [100]], id="what is too long alone may take twice as long"),
        pytest.param(0.023, [[100, 100], [100]], id="two within the budget"),
        pytest.param(1.0, [[100, 100, 100], []], id="as if there were none"),
    ],
)
def test_latency_budget(budget_s, batches):
    """A batch is not made larger than what is expected to be done within the budget: 2 ms and 0.1 a token."""
    queue = BatchQueue(8, budget_s)
    queue.line = Line(0.002, 0.0001)
    queue.add(job(100, 100, 100))
    assert [taken_lengths(queue) for _ in batches] == batches


def test_engine_that_charges_by_the_batch_keeps_its_batches():
    """A second for whatever it is given: to split what waits would only make everybody wait longer."""
    queue = BatchQueue(8, 0.1)
    queue.line = Line(1.0, 0.0001)
    queue.add(job(*[100] * 8))
    assert taken_lengths(queue) == [100] * 8


def padding_share(batches) -> float:
    """Of all tokens that are computed, those that are padding."""
    real = sum(map(sum, batches))
    return 1 - real / sum(len(lengths) * max(lengths) for lengths in batches)


@pytest.mark.parametrize("spread", ["even", "mostly short", "two kinds"])
def test_padding_is_bounded(spread):
    """On mixed lengths a fifth of the tokens is padding at most, where first come first served has half."""
    random = Random(7)
    draw = {
        "even": lambda: random.randint(4, 256),
        "mostly short": lambda: min(256, 4 + int(random.expovariate(1 / 30))),
        "two kinds": lambda: random.choice((8, 200)),
    }[spread]
    lengths = [draw() for _ in range(2000)]
    queue, line, grouped = BatchQueue(8), iter(lengths), []
    for length in islice(line, 32):
        queue.add(job(length))
    while taken := taken_lengths(queue):
        grouped.append(taken)
        for length in islice(line, len(taken)):
            queue.add(job(length))
    first_come = [lengths[at : at + 8] for at in range(0, len(lengths), 8)]
    assert sorted(length for batch in grouped for length in batch) == sorted(lengths)
    assert padding_share(grouped) <= PADDING_SHARE / (1 + PADDING_SHARE)
    assert padding_share(first_come) > 2 * padding_share(grouped)

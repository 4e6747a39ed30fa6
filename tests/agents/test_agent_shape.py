"""An agent that changes its shape: the batch size while it serves, threads by loading again."""

import asyncio
import json
import threading
from random import Random

import pytest
from agent_builders import WAIT_S, wait_for
from test_agent_service import GatedEngine, send, serving

from agents import model
from agents.batching import BatchQueue, Job
from agents.engines.fake import FakeEngine
from agents.errors import BadTransition, ModelError, RequestError
from agents.lifecycle import Event
from agents.load import render_metrics
from agents.protocol import AgentState, Refusal
from agents.service_line import EVIDENCE, Line, capacity_of
from agents.shape import Shape, parse_shape


class CountedEngine(GatedEngine):
    """Tells in which shapes it was loaded; in those `unloadable` it is not. Copies share what they tell."""

    def __init__(self, shape=(2, 1)) -> None:
        super().__init__()
        self.shape = shape
        self.unloadable: list[tuple[int, int]] = []
        self.told: list[str] = []
        self.loaded_now: list[tuple[int, int]] = []

    def load(self):
        if self.shape in self.unloadable:
            raise MemoryError("no room")
        super().load()
        if self.shape not in self.loaded_now:
            self.loaded_now.append(self.shape)
            self.told.append("load {} x {}".format(*self.shape))
        assert len(self.loaded_now) == 1

    def unload(self):
        super().unload()
        if self.shape in self.loaded_now:
            self.loaded_now.remove(self.shape)

    def reshaped(self, workers, threads):
        other = super().reshaped(workers, threads)
        other.shape = (workers, threads)
        return other


def computing_threads(others: set[threading.Thread]) -> list[str]:
    """Names of workers' threads that are not among `others`."""
    now = set(threading.enumerate()) - others
    return sorted(one.name for one in now if one.name.startswith("worker-"))


def shape_now(service) -> tuple[int, int, int, int]:
    """As its report says it: workers, threads, batch size, and what it admits."""
    report = service.report()
    assert report.admits == service.admission.admits
    return report.workers, report.threads, report.batch_size, report.admits


async def answered(service, engine, count=1) -> list[int]:
    """Statuses of some requests that are let through."""
    answers: list = []
    for _ in range(count):
        send(service, answers)
        engine.gate.release()
    await wait_for(lambda: len(answers) == count)
    return [answer.status for answer in answers]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", ["workers, threads, batch_size"]),
        (b"[1]", ["[1]", "workers, threads, batch_size"]),
        (b"[" * 3000, ["object"]),
        (b'{"workers": 1, "threads": 1}', ["object"]),
        (b'{"workers": 1, "threads": 1, "batch_size": 8, "x": 1}', ["object"]),
        (b'{"workers": 0, "threads": 1, "batch_size": 8}', ["workers is 0", "1 to 256"]),
        (b'{"workers": 1, "threads": true, "batch_size": 8}', ["threads is True", "1 to 256"]),
        (b'{"workers": 1, "threads": 1, "batch_size": 1025}', ["batch_size is 1025", "1 to 1024"]),
        (b'{"workers": 64, "threads": 64, "batch_size": 8}', ["4096 engine threads", "at most 1024"]),
        (b'{"workers": 256, "threads": 1, "batch_size": 1024}', ["263168 requests", "at most 100000"]),
    ],
)
def test_shapes_that_are_none(raw, words):
    """What is not accepted is named, with what is."""
    with pytest.raises(RequestError) as caught:
        parse_shape(raw)
    assert caught.value.status == 400
    assert all(word in caught.value.message for word in words), caught.value.message


def test_a_shape_admits_a_batch_for_each_worker_and_one_that_waits():
    """Two workers with batches of 8 hold 24 requests."""
    shape = parse_shape(b'{"workers": 2, "threads": 1, "batch_size": 8}')
    assert (shape, shape.admits, str(shape)) == (Shape(2, 1, 8), 24, "2 x 1 threads, batch 8")


async def test_the_batch_size_changes_while_it_serves():
    """Nothing pauses: what waits goes into larger batches, more is admitted, the reports say so at once."""
    engine = CountedEngine()
    async with serving(engine, workers=1, admits=8) as service:
        reports: list = []
        service.listeners.add(reports.append)
        answers: list = []
        for _ in range(8):
            send(service, answers)
        assert send(service, answers) is Refusal.FULL
        await service.model.reshape(Shape(1, 1, 7))
        assert (service.state, shape_now(service)) == (AgentState.READY, (1, 1, 7, 14))
        assert [(report.state, report.batch_size) for report in reports] == [(AgentState.READY, 7)]
        for _ in range(6):
            send(service, answers)
        assert send(service, answers) is Refusal.FULL
        await service.model.reshape(Shape(1, 1, 2))
        assert send(service, answers) is Refusal.FULL
        await service.model.reshape(Shape(1, 1, 7))
        for _ in range(14):
            engine.gate.release()
        await wait_for(lambda: len(answers) == 14)
        assert engine.batches[1] == 7
        await service.model.reshape(Shape(1, 1, 4))
        assert shape_now(service) == (1, 1, 4, 8)  # as it was configured
        assert engine.told == ["load 2 x 1"]


async def test_other_threads_take_another_engine():
    """New work is refused, what is held is answered by the old engine, and then the new one computes."""
    engine, others = CountedEngine(), set(threading.enumerate())
    async with serving(engine) as service:
        assert computing_threads(others) == ["worker-0", "worker-1"]
        reports: list = []
        answers: list = []
        service.listeners.add(reports.append)
        send(service, answers)
        changing = asyncio.ensure_future(service.model.reshape(Shape(3, 2, 8)))
        await wait_for(lambda: service.state is AgentState.LOADING)
        assert send(service, answers) is Refusal.LOADING
        assert not changing.done()
        assert engine.told == ["load 2 x 1"]
        engine.gate.release()
        await changing
        assert (len(answers), engine.told) == (1, ["load 2 x 1", "load 3 x 2"])
        assert shape_now(service) == (3, 2, 8, 32)
        told = [(report.state, report.workers) for report in reports]
        assert told[0] == (AgentState.LOADING, 2)
        assert told[-1] == (AgentState.READY, 3)
        assert await answered(service, engine, 20) == [200] * 20
        assert computing_threads(others) == ["worker-0", "worker-1", "worker-2"]
        text = render_metrics(service.report(), service.admission.refused_totals, service.counters)
        assert 'millwright_agent_threads{agent="tiny-000001",deployment="tiny"} 2' in text
    assert computing_threads(others) == []


async def test_told_what_it_is_it_does_nothing():
    """The same order again costs nothing."""
    engine = CountedEngine()
    async with serving(engine) as service:
        reports: list = []
        service.listeners.add(lambda report: reports.append(report.state))
        await service.model.reshape(Shape(2, 1, 4))
        assert set(reports) <= {AgentState.READY}
        assert engine.told == ["load 2 x 1"]


async def test_a_shape_that_does_not_load_leaves_the_old_one():
    """It serves on as before and says why; asked again soon, it says the same without a pause."""
    engine = CountedEngine()
    async with serving(engine) as service:
        engine.unloadable.append((4, 4))
        with pytest.raises(ModelError, match=r"4 x 4 threads.* serves on with 2 x 1 .*no room"):
            await service.model.reshape(Shape(4, 4, 8))
        assert (service.state, shape_now(service)) == (AgentState.READY, (2, 1, 4, 12))
        assert await answered(service, engine, 3) == [200] * 3
        assert engine.told == ["load 2 x 1"] * 2
        with pytest.raises(ModelError, match="no room"):
            await service.model.reshape(Shape(4, 4, 16))
        assert (service.state, engine.told) == (AgentState.READY, ["load 2 x 1"] * 2)


async def test_a_shape_that_did_not_load_is_tried_again_later(monkeypatch):
    """What was in the way may be gone."""
    monkeypatch.setattr(model, "TRY_AGAIN_S", 0.0)
    engine = CountedEngine()
    async with serving(engine) as service:
        engine.unloadable.append((4, 4))
        with pytest.raises(ModelError):
            await service.model.reshape(Shape(4, 4, 8))
        engine.unloadable.clear()
        await service.model.reshape(Shape(4, 4, 8))
        assert shape_now(service) == (4, 4, 8, 40)


async def test_an_agent_that_loads_in_no_shape_ends():
    """Where the old one does not load again either, somebody must look."""
    engine = CountedEngine()
    async with serving(engine) as service:
        engine.unloadable += [(2, 1), (1, 2)]
        with pytest.raises(ModelError):
            await service.model.reshape(Shape(1, 2, 4))
        assert service.state is AgentState.LOADING
        with pytest.raises(ModelError, match="not loaded again"):
            await service.model.fatal


async def test_a_parked_agent_loads_in_its_new_shape_when_it_is_resumed():
    """Told while parked, it stays so; the shape it says is the one that it will have."""
    engine = CountedEngine()
    async with serving(engine) as service:
        await service.model.park()
        await service.model.reshape(Shape(1, 2, 4))
        assert (service.state, shape_now(service)) == (AgentState.PARKED, (1, 2, 4, 8))
        assert engine.loaded_now == []
        await service.model.resume()
        assert engine.loaded_now == [(1, 2)]
        assert await answered(service, engine) == [200]
        await service.model.park()
        engine.unloadable.append((3, 3))
        await service.model.reshape(Shape(3, 3, 4))
        await service.model.resume()
        assert (service.state, shape_now(service)) == (AgentState.READY, (1, 2, 4, 8))
        assert await answered(service, engine) == [200]
        await service.model.park()
        with pytest.raises(ModelError, match="no room"):
            await service.model.reshape(Shape(3, 3, 4))


async def test_told_and_resumed_while_it_still_parks():
    """What it holds is answered in the old shape, whatever is ordered meanwhile; the last order holds."""
    engine = CountedEngine()
    async with serving(engine) as service:
        answers: list = []
        send(service, answers)
        parking = asyncio.ensure_future(service.model.park())
        await wait_for(lambda: service.state is AgentState.PARKED)
        await service.model.reshape(Shape(1, 2, 4))
        service.model.resume_soon()
        await asyncio.sleep(0)
        assert engine.loaded_now == [(2, 1)]
        engine.gate.release()
        await parking
        await wait_for(lambda: service.state is AgentState.READY)
        assert (len(answers), engine.loaded_now) == (1, [(1, 2)])
        assert await answered(service, engine) == [200]


async def test_only_ready_and_parked_agents_change():
    """One that loads or ends is told so."""
    engine = CountedEngine()
    async with serving(engine) as service:
        answers: list = []
        send(service, answers)
        changing = asyncio.ensure_future(service.model.reshape(Shape(1, 2, 4)))
        await wait_for(lambda: service.state is AgentState.LOADING)
        for order in (service.model.reshape(Shape(1, 1, 4)), service.model.park(), service.model.calibrate()):
            with pytest.raises(BadTransition, match="loading cannot"):
                await order
        engine.gate.release()
        await changing
        await service.drain()
        with pytest.raises(BadTransition, match="draining cannot change its shape"):
            await service.model.reshape(Shape(2, 1, 4))


async def test_told_to_end_while_it_changes():
    """What it holds is answered; no engine is loaded for nobody."""
    engine = CountedEngine()
    async with serving(engine) as service:
        answers: list = []
        send(service, answers)
        changing = asyncio.ensure_future(service.model.reshape(Shape(1, 2, 4)))
        await wait_for(lambda: service.state is AgentState.LOADING)
        draining = asyncio.ensure_future(service.drain())
        await asyncio.sleep(0)
        engine.gate.release()
        await asyncio.wait_for(draining, WAIT_S)
        with pytest.raises(BadTransition):
            await changing
        assert (len(answers), service.state) == (1, AgentState.DRAINING)
        assert engine.told == ["load 2 x 1"]


async def test_the_change_goes_on_when_its_caller_has_left():
    """Nobody waits for it any more: it ends as if somebody did."""
    engine = CountedEngine()
    async with serving(engine) as service:
        answers: list = []
        send(service, answers)
        caller = asyncio.ensure_future(service.model.reshape(Shape(1, 2, 4)))
        await wait_for(lambda: service.state is AgentState.LOADING)
        caller.cancel()
        engine.gate.release()
        await wait_for(lambda: service.state is AgentState.READY)
        assert shape_now(service)[:2] == (1, 2)


@pytest.mark.parametrize("order", [Event.RESHAPE, Event.PARK])
async def test_nothing_is_unloaded_under_what_computes(order):
    """A batch whose clients have left is still in the engine: it is waited for."""
    engine = CountedEngine()
    async with serving(engine) as service:
        ticket = send(service, [])
        await wait_for(lambda: engine.batches == [1])
        ticket.cancel()
        work = service.model.park() if order is Event.PARK else service.model.reshape(Shape(1, 2, 4))
        told = asyncio.ensure_future(work)
        await wait_for(lambda: service.state is not AgentState.READY)
        await asyncio.sleep(0.01)  # as long as an unload would have taken
        assert engine.loaded_now == [(2, 1)]
        engine.gate.release()
        await told
        assert engine.loaded_now == ([] if order is Event.PARK else [(1, 2)])


async def test_an_engine_that_hangs_does_not_keep_the_agent_from_ending():
    """Whoever waits for it to be quiet waits no longer when the agent is closed."""
    engine = CountedEngine()
    async with serving(engine) as service:
        ticket = send(service, [])
        await wait_for(lambda: engine.batches == [1])
        ticket.cancel()
        waiting = asyncio.ensure_future(asyncio.to_thread(service.model.pool.wait_quiet))
        await asyncio.to_thread(service.model.pool.close, 0.0)
        await asyncio.wait_for(waiting, WAIT_S)
        assert service.model.pool.executing == 1


async def test_what_was_learned_holds_for_its_own_threads():
    """Another batch size keeps how long batches take; with other threads it is learned anew."""
    async with serving(FakeEngine(0.0)) as service:
        answers: list = []
        for number in range(2 * EVIDENCE):
            send(service, answers, "word " * (1 + number % 8))
            await wait_for(lambda wanted=number + 1: len(answers) == wanted)
        assert service.report().capacity_rps > 0
        await service.model.reshape(Shape(2, 1, 8))
        assert service.report().capacity_rps > 0
        await service.model.reshape(Shape(1, 2, 8))
        assert (service.report().capacity_rps, service.report().fixed_s) == (0.0, 0.0)
        assert service.report().batches_total == 2 * EVIDENCE


async def test_larger_batches_than_it_began_with_are_free_of_the_budget():
    """Asked to do more in each batch, it does although it takes longer; back at its size the budget holds."""
    async with serving(FakeEngine(0.0), batch_budget_ms=1) as service:
        assert service.model.free_tokens == 0
        await service.model.reshape(Shape(2, 1, 16))
        assert service.model.free_tokens == 16 * 32
        await service.model.reshape(Shape(1, 2, 16))
        assert service.model.free_tokens == 16 * 32
        await service.model.reshape(Shape(1, 2, 4))
        assert service.model.free_tokens == 0


async def test_a_shape_with_more_threads_than_there_can_be_leaves_the_old_one(monkeypatch):
    """Threads that do not start are as weights that do not load; those that did start end."""
    engine, others = CountedEngine(), set(threading.enumerate())
    start = threading.Thread.start

    def start_few(thread):
        if thread.name == "worker-5":
            raise RuntimeError("can't start new thread")
        start(thread)

    async with serving(engine) as service:
        monkeypatch.setattr(threading.Thread, "start", start_few)
        with pytest.raises(ModelError, match="new thread"):
            await service.model.reshape(Shape(8, 1, 4))
        assert (service.state, engine.loaded_now) == (AgentState.READY, [(2, 1)])
        assert computing_threads(others) == ["worker-0", "worker-1"]
        assert await answered(service, engine, 3) == [200] * 3


@pytest.mark.parametrize(("free_tokens", "taken"), [(0, 2), (64, 4), (160, 10), (10_000, 16)])
def test_batches_of_free_tokens_take_as_long_as_they_do(free_tokens, taken):
    """16 tokens a sequence and 10 ms each, budget 20 ms: two, or as many as are free."""
    line = Line(0.0, 0.000625)
    queue = BatchQueue(16, 0.02)
    queue.line, queue.free_tokens = line, free_tokens
    queue.add(Job([[1] * 16] * 20))
    batch = queue.take(0.0).batch
    assert batch is not None
    assert len(batch.items) == taken
    rate = capacity_of(
        line, workers=1, batch_size=16, sequence_tokens=16, budget_s=0.02, free_tokens=free_tokens
    )
    assert rate == pytest.approx((100, 1600))


async def test_no_request_is_lost_while_the_shape_changes_again_and_again():
    """Requests keep coming through twenty changes: each is answered or refused, none twice, none fails."""
    random = Random(5)
    engine = FakeEngine(0.0005, load_s=0.002)
    async with serving(engine, workers=1) as service:
        sent = refused = 0
        changing = True

        async def keep_sending() -> None:
            nonlocal sent, refused
            while changing:
                for _ in range(random.randint(1, 6)):
                    sent += 1
                    text = ["the fox"] * random.choice([1] * 20 + [5, 300])
                    if isinstance(send(service, answers, text), Refusal):
                        refused += 1
                await asyncio.sleep(0.001)

        answers: list = []
        sender = asyncio.ensure_future(keep_sending())
        for number in range(20):
            done = len(answers)
            shape = [Shape(2, 1, 8), Shape(1, 2, 4), Shape(1, 2, 16), Shape(1, 1, 4)][number % 4]
            await asyncio.wait_for(service.model.reshape(shape), WAIT_S)
            assert shape_now(service)[:3] == (shape.workers, shape.threads, shape.batch_size)
            await wait_for(lambda done=done: len(answers) > done)
        changing = False
        await sender
        await wait_for(lambda: len(answers) + refused == sent)
        assert {answer.status for answer in answers} == {200}
        assert refused == service.report().refused_total
        assert service.admission.refused_totals[Refusal.LOADING] > 0
        assert (service.admission.in_hand, service.report().waiting) == (0, 0)
        assert {len(json.loads(answer.body)["data"]) for answer in answers} <= {1, 5, 300}

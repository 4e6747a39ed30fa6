"""The core on the event loop, with the fake engine: every request admitted is settled, once."""

import asyncio
import contextlib
import json
import threading

import pytest
from agent_builders import WAIT_S, config_json, wait_for

from agents.config import parse_config
from agents.engines.fake import FakeEngine
from agents.errors import BadTransition, ModelError
from agents.load import render_metrics
from agents.protocol import AgentState, Answer, Refusal, Request
from agents.service import INLINE_BODY_BYTES, MAX_BODY_BYTES, AgentService

TLS = {"ca": "/ca", "certificate": "/cert", "key": "/key"}


class GatedEngine(FakeEngine):
    """Computes only when it is let, and can be made to fail."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.gate = threading.Semaphore(0)
        self.batches: list[int] = []
        self.failing = False
        self.broken = False

    def load(self):
        if self.broken:
            raise ModelError("no weights")
        super().load()

    def infer(self, sequences):
        self.batches.append(len(sequences))
        assert self.gate.acquire(timeout=WAIT_S)
        if self.failing:
            raise RuntimeError("out of cheese")
        return super().infer(sequences)


@contextlib.asynccontextmanager
async def serving(engine, **changes):
    """A service that is ready."""
    config = parse_config(json.dumps(config_json({"tls": TLS} | changes)).encode())
    service = AgentService(config, engine)
    service.start()
    try:
        await wait_for(lambda: service.state is AgentState.READY)
        yield service
    finally:
        for _ in range(1000):
            getattr(engine, "gate", threading.Semaphore()).release()
        await service.close()


def send(service, answers, text="the fox", **more):
    """Submit one request; its answer is appended to `answers`."""
    fields = {"model": "tiny", "input": text} | more.pop("fields", {})
    request = Request(
        more.pop("deadline_ms", 0), more.pop("path", "/v1/embeddings"), "", json.dumps(fields).encode()
    )
    return service.submit(request, answers.append)


async def test_answers():
    """A burst is answered whole, each with its own vectors and tokens."""
    async with serving(FakeEngine(0.0)) as service:
        answers: list[Answer] = []
        for number in range(12):
            send(service, answers, "word " * (number + 1))
        await wait_for(lambda: len(answers) == 12)
        assert sorted(answer.prompt_tokens for answer in answers) == [number + 3 for number in range(12)]
        assert {answer.status for answer in answers} == {200}
        report = service.report()
        assert (report.accepted_total, report.answered_total, report.sequences_total) == (12, 12, 12)
        assert (report.executing, report.waiting, service.admission.in_hand) == (0, 0, 0)
        assert report.tokens_total == sum(answer.prompt_tokens for answer in answers)


async def test_burst_is_shared_and_batched():
    """Two idle workers share a burst; what comes while they compute goes in full batches."""
    engine = GatedEngine()
    async with serving(engine) as service:
        answers: list[Answer] = []
        for _ in range(4):
            send(service, answers)
        await wait_for(lambda: len(engine.batches) == 2)
        assert engine.batches == [2, 2]
        assert (service.report().executing, service.report().waiting) == (4, 0)
        for _ in range(6):
            send(service, answers)
        assert (service.report().executing, service.report().waiting) == (4, 6)
        engine.gate.release()
        await wait_for(lambda: len(engine.batches) == 3)
        assert engine.batches[2] == 4


async def test_large_requests_are_prepared_and_answered_in_threads():
    """Many inputs are split over batches, and come back in order."""
    async with serving(FakeEngine(0.0)) as service:
        answers: list[Answer] = []
        texts = [f"input number{number} " + "word " * (number % 7) for number in range(150)]
        assert len(json.dumps(texts)) > INLINE_BODY_BYTES
        send(service, answers, texts)
        for text in texts[:3]:
            send(service, answers, text)
        await wait_for(lambda: len(answers) == 4)
        answers.sort(key=lambda answer: -len(answer.body))
        entries = json.loads(answers[0].body)["data"]
        assert [entry["index"] for entry in entries] == list(range(150))
        alone = [json.loads(answer.body)["data"][0]["embedding"] for answer in answers[1:]]
        assert all(entry["embedding"] in alone for entry in entries[:3])


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        pytest.param({"fields": {"model": "x"}}, 404, "model_not_found", id="model"),
        pytest.param({"path": "/v1/chat/completions"}, 404, "not_found", id="path"),
        pytest.param({"text": ""}, 400, None, id="empty"),
        pytest.param({"text": ["a"] * 3000}, 400, None, id="prepared in a thread"),
        pytest.param({"text": "a" * MAX_BODY_BYTES}, 413, "request_too_large", id="too large"),
    ],
)
async def test_bad_requests_are_answers(more, status, code):
    """A bad request is answered, counted, and its permit comes back."""
    async with serving(FakeEngine(0.0)) as service:
        answers: list[Answer] = []
        send(service, answers, **more)
        await wait_for(lambda: bool(answers))
        assert (answers[0].status, json.loads(answers[0].body)["error"]["code"]) == (status, code)
        assert (service.admission.in_hand, service.report().answered_total) == (0, 1)


async def test_full():
    """One more than it admits is refused at once, and counted by its cause."""
    engine = GatedEngine()
    async with serving(engine, admits=3) as service:
        answers: list[Answer] = []
        taken = [send(service, answers) for _ in range(5)]
        assert taken[3:] == [Refusal.FULL, Refusal.FULL]
        assert service.report().refused_total == 2
        text = render_metrics(service.report(), service.admission.refused_totals, service.counters)
        assert 'millwright_agent_refused_total{agent="tiny-000001",deployment="tiny",reason="full"} 2' in text


async def test_cancelled_work_is_not_computed():
    """Who leaves before the work began costs nothing; who leaves later is not answered."""
    engine = GatedEngine()
    async with serving(engine, workers=1) as service:
        answers: list[Answer] = []
        left: list[Answer] = []
        running = send(service, left)
        await wait_for(lambda: engine.batches == [1])
        waiting = [send(service, left) for _ in range(2)]
        send(service, answers)
        for ticket in (running, *waiting, running):
            ticket.cancel()
        engine.gate.release(2)
        await wait_for(lambda: len(answers) == 1)
        assert engine.batches == [1, 1]
        assert left == []
        assert (service.counters.cancelled, service.admission.in_hand) == (3, 0)


async def test_cancelled_while_prepared():
    """Who leaves while a thread reads the body is forgotten as well."""
    engine = GatedEngine()
    async with serving(engine) as service:
        left: list[Answer] = []
        send(service, left, ["word"] * 1000).cancel()
        assert service.admission.in_hand == 0
        answers: list[Answer] = []
        send(service, answers)
        engine.gate.release()
        await wait_for(lambda: len(answers) == 1)
        assert engine.batches == [1]


async def test_deadline():
    """A request whose time has passed before an engine was free is answered 504, uncomputed."""
    engine = GatedEngine()
    async with serving(engine, workers=1) as service:
        first: list[Answer] = []
        late: list[Answer] = []
        send(service, first)
        await wait_for(lambda: engine.batches == [1])
        send(service, late, deadline_ms=1)
        await asyncio.sleep(0.01)  # the deadline itself
        engine.gate.release()
        await wait_for(lambda: len(late) == 1)
        assert (late[0].status, json.loads(late[0].body)["error"]["code"]) == (504, "deadline_exceeded")
        assert engine.batches == [1]


async def test_failing_engine():
    """A batch that fails is a 500 for its requests alone; the worker goes on."""
    engine = GatedEngine()
    async with serving(engine, workers=1) as service:
        answers: list[Answer] = []
        engine.failing = True
        send(service, answers)
        engine.gate.release()
        await wait_for(lambda: len(answers) == 1)
        engine.failing = False
        send(service, answers)
        engine.gate.release()
        await wait_for(lambda: len(answers) == 2)
        assert [answer.status for answer in answers] == [500, 200]
        assert b"cheese" not in answers[0].body


async def test_park_finishes_what_it_holds_and_resume_serves_again():
    """Parking refuses at once, answers what was admitted, then unloads; resume loads again."""
    engine = GatedEngine()
    async with serving(engine) as service:
        reports: list[AgentState] = []
        answers: list[Answer] = []
        service.listeners.add(lambda report: reports.append(report.state))
        send(service, answers)
        parking = asyncio.ensure_future(service.model.park())
        await wait_for(lambda: service.state is AgentState.PARKED)
        assert send(service, answers) is Refusal.PARKED
        assert not parking.done()
        engine.gate.release()
        await parking
        assert len(answers) == 1
        assert engine._loaded is False
        await service.model.resume()
        send(service, answers)
        engine.gate.release()
        await wait_for(lambda: len(answers) == 2)
        changes = [state for number, state in enumerate(reports) if reports[number - 1 : number] != [state]]
        assert changes == [AgentState.PARKED, AgentState.LOADING, AgentState.READY]


async def test_resume_while_still_parking():
    """A resume that comes before the weights are gone wins."""
    engine = GatedEngine()
    async with serving(engine) as service:
        answers: list[Answer] = []
        send(service, answers)
        parking = asyncio.ensure_future(service.model.park())
        await wait_for(lambda: service.state is AgentState.PARKED)
        resuming = asyncio.ensure_future(service.model.resume())
        await wait_for(lambda: service.state is AgentState.LOADING)
        engine.gate.release()
        await asyncio.gather(parking, resuming)
        assert service.state is AgentState.READY
        send(service, answers)
        engine.gate.release()
        await wait_for(lambda: len(answers) == 2)


async def test_parking_and_resuming_again_and_again_ends_as_the_last_was_told():
    """Orders may be repeated and cross each other: each is harmless, and the last one holds."""
    engine = GatedEngine()
    async with serving(engine) as service:
        for _ in range(10):
            park, resume = service.model.park, service.model.resume
            orders = [park(), park(), resume(), resume(), park()]
            told = await asyncio.gather(*orders, return_exceptions=True)
            assert all(one is None or isinstance(one, BadTransition) for one in told)
            await service.model.resume()
        assert (service.state, engine._loaded) == (AgentState.READY, True)
        answers: list[Answer] = []
        send(service, answers)
        engine.gate.release()
        await wait_for(lambda: len(answers) == 1)


async def test_a_parked_agent_drains_at_once():
    """It holds nothing; told to stop while it is still parking, it answers first what it has."""
    engine = GatedEngine()
    async with serving(engine) as service:
        answers: list[Answer] = []
        send(service, answers)
        parking = asyncio.ensure_future(service.model.park())
        await wait_for(lambda: service.state is AgentState.PARKED)
        draining = asyncio.ensure_future(service.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        engine.gate.release()
        await asyncio.wait_for(asyncio.gather(parking, draining), WAIT_S)
        assert (len(answers), service.state) == (1, AgentState.DRAINING)
        with pytest.raises(BadTransition):
            await service.model.resume()


async def test_drain_waits_for_what_it_holds():
    """Draining refuses at once and ends when the last admitted request is answered."""
    engine = GatedEngine()
    async with serving(engine) as service:
        answers: list[Answer] = []
        send(service, answers)
        draining = asyncio.ensure_future(service.drain())
        await wait_for(lambda: service.state is AgentState.DRAINING)
        assert send(service, answers) is Refusal.DRAINING
        assert not draining.done()
        engine.gate.release()
        await asyncio.wait_for(draining, WAIT_S)
        assert len(answers) == 1
        with pytest.raises(BadTransition):
            await service.model.park()


async def test_a_resume_that_fails_ends_the_agent():
    """Weights that do not come back are fatal: somebody must look."""
    engine = GatedEngine()
    async with serving(engine) as service:
        await service.model.park()
        engine.broken = True
        await service.model.resume()
        with pytest.raises(ModelError, match="no weights"):
            await service.model.fatal

"""The agent's core on the event loop: admits, prepares, queues, answers, reports, drains.

Both sides, links and HTTP, come through `submit`. All methods belong to the event loop's thread.
What the model goes through meanwhile is `model.py`'s.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

from agents.admission import Admission
from agents.batching import NEVER, Job
from agents.config import AgentConfig
from agents.engines.base import Engine
from agents.errors import RequestError, deadline_exceeded, server_error, too_large, unknown_path
from agents.load import Counters, Sensed, build_report
from agents.model import ServedModel
from agents.protocol import AgentState, Answer, Beat, LoadReport, Refusal, Request
from agents.sensors import Sensors
from agents.tasks.base import Prepared
from agents.turn import Turn
from agents.worker import Done

logger = logging.getLogger(__name__)

JSON: Final = "application/json"
#: The largest body that is read; 2,048 inputs of 512 tokens are about half of it.
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
#: Bodies up to this are prepared on the event loop (tokenising 2 KB takes about 0.4 ms), larger in a thread.
INLINE_BODY_BYTES: Final = 2048
#: Answers of more rows than this are written in a thread.
INLINE_ROWS: Final = 32
REPORT_EVERY_S: Final = 1.0

Reply = Callable[[Answer], None]


class Ticket:
    """A request that was admitted. `reply` is called once, unless the ticket was cancelled before."""

    __slots__ = ("_service", "admitted_at", "body_bytes", "deadline", "job", "left", "prepared", "reply",
                 "rows", "settled")  # fmt: skip

    def __init__(self, service: "AgentService", request: Request, reply: Reply, now: float) -> None:
        self._service = service
        self.reply = reply
        self.admitted_at = now
        self.deadline = now + request.deadline_ms / 1000 if request.deadline_ms else NEVER
        self.body_bytes = len(request.body)
        self.prepared: Prepared[Any] | None = None
        self.job: Job | None = None
        self.rows: list[Any] = []  # vectors, None until computed
        self.left = 0
        self.settled = False

    def cancel(self) -> None:
        """The client has left: what has not begun is dropped, nothing is answered."""
        self._service.cancel(self)


class AgentService:
    """One model revision being served."""

    def __init__(self, config: AgentConfig, engine: Engine) -> None:
        self.counters = Counters()
        self.admission = Admission(config.admits)
        self.listeners: set[Callable[[LoadReport], None]] = set()
        self._loop = asyncio.get_running_loop()
        self._tickets: dict[Job, Ticket] = {}
        self.turn = Turn(self._loop.call_soon)
        self._idle = asyncio.Event()
        self._idle.set()
        self._preparing = ThreadPoolExecutor(2, thread_name_prefix="prepare")
        self._sensors = Sensors()
        self._sensed = Sensed()
        self._started_at = time.monotonic()
        self.model = ServedModel(
            config, engine, idle=self._idle, deliver=self._deliver, changed=self._model_changed
        )

    # --- life ---------------------------------------------------------------------------------

    @property
    def state(self) -> AgentState:
        """Only a ready agent takes requests."""
        return self.model.state

    def start(self) -> None:
        """Begin to report, and to load the model."""
        self.model.background.spawn(self._report_regularly())
        self.model.load_soon()

    async def drain(self) -> None:
        """Refuse new work and return when what was admitted is answered."""
        self.model.drain()
        await self._idle.wait()

    async def close(self) -> None:
        """End threads and timers; after `drain`, or when serving has failed."""
        self._preparing.shutdown(wait=False, cancel_futures=True)
        await self.model.close()

    def report(self) -> LoadReport:
        """What the agent says of itself now; the sensors' part is up to a second old."""
        model, pool = self.model, self.model.pool
        return build_report(
            model.config,
            model.state,
            self.counters,
            self._sensed,
            executing=pool.executing if pool else 0,
            in_hand=self.admission.in_hand,
            accepted_total=self.admission.accepted_total,
            refused_total=self.admission.refused_total,
            uptime_s=time.monotonic() - self._started_at,
            engine_version=model.engine_version,
            line=pool.learned.line if pool else None,
            free_tokens=model.free_tokens,
        )

    def beat(self) -> Beat:
        """The little that changes fast, fresh to about 100 ms."""
        executing = self.model.pool.executing if self.model.pool else 0
        cpu, node_cpu = self._sensors.read_cpu(time.monotonic())
        return Beat(executing, max(self.admission.in_hand - executing, 0), cpu, node_cpu)

    # --- requests -----------------------------------------------------------------------------

    def submit(self, request: Request, reply: Reply) -> Ticket | Refusal:
        """Take a request or refuse it. `reply` may be called before this returns: `settled` tells."""
        refusal = self.admission.admit(self.state)
        if refusal is not None:
            return refusal
        self._idle.clear()
        ticket = Ticket(self, request, reply, time.monotonic())
        task = self.model.task
        assert task is not None  # admission lets nobody in before the model is loaded
        if request.path != task.path:
            self._answer_error(ticket, unknown_path(request.path, task.path))
        elif ticket.body_bytes > MAX_BODY_BYTES:
            self._answer_error(ticket, too_large(ticket.body_bytes, MAX_BODY_BYTES))
        elif ticket.body_bytes <= INLINE_BODY_BYTES:
            self._prepare(ticket, request.body)
        else:
            work = self._loop.run_in_executor(self._preparing, task.prepare, request.body)
            work.add_done_callback(lambda done: self._prepared(ticket, done))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Forget a request whose client has left."""
        if ticket.settled:
            return
        self.counters.cancelled += 1
        self._let_go(ticket)

    def _prepare(self, ticket: Ticket, body: bytes) -> None:
        assert self.model.task is not None
        try:
            prepared = self.model.task.prepare(body)
        except RequestError as error:
            self._answer_error(ticket, error)
        except Exception as error:  # noqa: BLE001 - a fault of ours is an answer too
            self._answer_fault(ticket, error)
        else:
            self._enqueue(ticket, prepared)

    def _prepared(self, ticket: Ticket, done: "asyncio.Future[Prepared[Any]]") -> None:
        """The same, when a thread has prepared it."""
        error = None if done.cancelled() else done.exception()
        if ticket.settled or done.cancelled():
            return
        if error is None:
            self._enqueue(ticket, done.result())
        elif isinstance(error, RequestError):
            self._answer_error(ticket, error)
        else:
            self._answer_fault(ticket, error)

    def _enqueue(self, ticket: Ticket, prepared: Prepared[Any]) -> None:
        assert self.model.pool is not None
        ticket.prepared = prepared
        ticket.left = len(prepared.sequences)
        ticket.rows = [None] * ticket.left
        ticket.job = Job(prepared.sequences, ticket.deadline)
        self._tickets[ticket.job] = ticket
        self.model.pool.add(ticket.job)
        self.turn.put_off(self._wake)  # all requests of one read go before the workers look

    def _wake(self) -> None:
        if self.model.pool is not None:
            self.model.pool.wake()

    def _deliver(self, done: Done) -> None:
        """From a worker's thread: one hand-over per batch."""
        try:
            self._loop.call_soon_threadsafe(self._done, done)
        except RuntimeError:
            logger.warning("a batch ended after the agent did")

    def _done(self, done: Done) -> None:
        with self.turn:  # all answers of a batch go together
            self._settle(done)

    def _settle(self, done: Done) -> None:
        for job in done.expired:
            if (ticket := self._tickets.get(job)) is not None:
                self._answer_error(ticket, deadline_exceeded())
        if done.batch is None:
            return
        self.counters.batches += 1
        self.counters.sequences += len(done.batch.items)
        self.counters.batch_tokens += done.batch.rectangle
        self.counters.busy_s += done.busy_s
        for number, (job, index) in enumerate(done.batch.items):
            ticket = self._tickets.get(job)
            if ticket is None:
                continue  # cancelled meanwhile
            if done.rows is None:
                self._answer_error(ticket, server_error("the engine failed on this request"))
                continue
            ticket.rows[index] = done.rows[number]
            ticket.left -= 1
            if ticket.left == 0:
                self._finish(ticket)

    def _finish(self, ticket: Ticket) -> None:
        task = self.model.task
        assert task is not None
        assert ticket.prepared is not None
        if len(ticket.rows) > INLINE_ROWS:
            work = self._loop.run_in_executor(self._preparing, task.respond, ticket.prepared, ticket.rows)
            work.add_done_callback(lambda done: self._responded(ticket, done))
            return
        try:
            body = task.respond(ticket.prepared, ticket.rows)
        except Exception as error:  # noqa: BLE001 - a fault of ours is an answer too
            self._answer_fault(ticket, error)
        else:
            self._answer_success(ticket, body)

    def _responded(self, ticket: Ticket, done: "asyncio.Future[bytes]") -> None:
        error = None if done.cancelled() else done.exception()
        if ticket.settled or done.cancelled():
            return
        if error is not None:
            self._answer_fault(ticket, error)
        else:
            self._answer_success(ticket, done.result())

    def _answer_success(self, ticket: Ticket, body: bytes) -> None:
        assert ticket.prepared is not None
        tokens = ticket.prepared.prompt_tokens
        self.counters.tokens += tokens
        self.counters.body_bytes += ticket.body_bytes
        self._answer(ticket, 200, tokens, body)

    def _answer_error(self, ticket: Ticket, error: RequestError) -> None:
        if error.status >= 500 and error.code == "server_error":
            self.counters.failed += 1
        self._answer(ticket, error.status, 0, error.to_body())

    def _answer_fault(self, ticket: Ticket, error: BaseException) -> None:
        logger.error("a request failed: %r", error)
        self._answer_error(ticket, server_error("the agent failed on this request"))

    def _answer(self, ticket: Ticket, status: int, tokens: int, body: bytes) -> None:
        if ticket.settled:
            return
        self.counters.answered += 1
        took_us = int((time.monotonic() - ticket.admitted_at) * 1_000_000)
        self._let_go(ticket)
        ticket.reply(Answer(status, tokens, 0, took_us, JSON, body))

    def _let_go(self, ticket: Ticket) -> None:
        """Give the permit back, once; what of the work has not begun will not."""
        ticket.settled = True
        if ticket.job is not None:
            del self._tickets[ticket.job]
            if ticket.left and self.model.pool is not None:
                self.model.pool.drop(ticket.job)
        self.admission.release()
        if self.admission.in_hand == 0:
            self._idle.set()

    # --- inside -------------------------------------------------------------------------------

    def _model_changed(self) -> None:
        """State, shape or memory have: whoever counts on us is told at once."""
        self.admission.admits = self.model.config.admits
        try:
            self._sensed = replace(self._sensed, rss_bytes=self._sensors.read_rss())
        except Exception as error:  # noqa: BLE001 - as below
            logger.error("memory was not read: %r", error)  # noqa: TRY400 - one-line records
        self._report()

    def _report(self) -> None:
        report = self.report()
        for listener in list(self.listeners):
            listener(report)

    async def _report_regularly(self) -> None:
        while True:
            try:
                self._sensed = self._sensors.read()
            except Exception as error:  # noqa: BLE001 - old numbers are better than an agent that says nothing
                logger.error("processor and memory were not read: %r", error)  # noqa: TRY400 - one-line records
            self._report()
            await asyncio.sleep(REPORT_EVERY_S)

"""The agent's core on the event loop: admits, prepares, queues, answers; and parks, resumes, drains.

Both sides, links and HTTP, come through `submit`. All methods belong to the event loop's thread.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Final

from agents.admission import Admission
from agents.batching import NEVER, Job
from agents.calibrate import Calibration, calibrate_here
from agents.config import AgentConfig
from agents.engines.base import Engine
from agents.errors import ModelError, RequestError, deadline_exceeded, server_error, too_large, unknown_path
from agents.lifecycle import Event, next_state
from agents.load import Counters, Sensed, build_report
from agents.protocol import AgentState, Answer, Beat, LoadReport, Refusal, Request
from agents.sensors import Sensors
from agents.tasks.base import Prepared, Task
from agents.tasks.embed import EmbedTask
from agents.turn import Turn
from agents.worker import Done, WorkerPool

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
    """One model revision being served.

    `fatal` is done with an exception when the agent can serve no more: the model does not load.
    """

    def __init__(self, config: AgentConfig, engine: Engine) -> None:
        self.config = config
        self.counters = Counters()
        self.admission = Admission(config.admits)
        self.state = AgentState.LOADING
        self.listeners: set[Callable[[LoadReport], None]] = set()
        self._loop = asyncio.get_running_loop()
        self.fatal: asyncio.Future[None] = self._loop.create_future()
        self._engine = engine
        self._task: Task[Any] | None = None
        self._pool: WorkerPool | None = None
        self._tickets: dict[Job, Ticket] = {}
        self.turn = Turn(self._loop.call_soon)
        self._idle = asyncio.Event()
        self._idle.set()
        self._model_lock = asyncio.Lock()
        self._preparing = ThreadPoolExecutor(2, thread_name_prefix="prepare")
        self._sensors = Sensors()
        self._sensed = Sensed()
        self._started_at = time.monotonic()
        self._stop_measuring = threading.Event()
        self._background: set[asyncio.Task[None]] = set()

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to report, and to load the model."""
        self._spawn(self._report_regularly())
        self._spawn(self._load_first())

    async def park(self) -> None:
        """Refuse new work, finish the present, free the weights. Raises BadTransition."""
        self._move(Event.PARK)
        async with self._model_lock:
            await self._idle.wait()
            if self.state is AgentState.PARKED:
                await self._loop.run_in_executor(None, self._engine.unload)
                warm_mb, rss_bytes = self._sensed.rss_bytes / 1e6, self._sensors.read_rss()
                self._sensed = replace(self._sensed, rss_bytes=rss_bytes)
                logger.info("memory: %.0f MB, warm %.0f MB", rss_bytes / 1e6, warm_mb)
                self._report()

    async def resume(self) -> None:
        """Load the weights again; returns when the agent is ready. Raises BadTransition."""
        self._move(Event.RESUME)
        await self._load_again()

    def resume_soon(self) -> None:
        """As `resume`, without waiting; ignored where it is not possible."""
        if self.state is AgentState.PARKED:
            self._move(Event.RESUME)
            self._spawn(self._load_again())

    async def calibrate(self) -> Calibration:
        """Refuse new work, finish the present, measure this machine, and serve again.

        Raises BadTransition, ModelError where the model does not load in some shape, and Stopped.
        """
        self._move(Event.MEASURE)
        async with self._model_lock:
            try:
                await self._idle.wait()
                await self._loop.run_in_executor(None, self._engine.unload)
                measure = partial(calibrate_here, self.config, self._stop_measuring)
                return await self._loop.run_in_executor(None, measure)
            finally:
                self._spawn(self._load_again())

    async def drain(self) -> None:
        """Refuse new work and return when what was admitted is answered."""
        self._stop_measuring.set()
        self._move(Event.DRAIN)
        await self._idle.wait()

    async def close(self) -> None:
        """End threads and timers; after `drain`, or when serving has failed."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._preparing.shutdown(wait=False, cancel_futures=True)
        if self._pool is not None:
            await self._loop.run_in_executor(None, self._pool.close)
        self._engine.close()

    def report(self) -> LoadReport:
        """What the agent says of itself now; the sensors' part is up to a second old."""
        return build_report(
            self.config,
            self.state,
            self.counters,
            self._sensed,
            executing=self._pool.executing if self._pool else 0,
            in_hand=self.admission.in_hand,
            accepted_total=self.admission.accepted_total,
            refused_total=self.admission.refused_total,
            uptime_s=time.monotonic() - self._started_at,
            engine_version=self._engine.version,
            line=self._pool.learned.line if self._pool else None,
        )

    def beat(self) -> Beat:
        """The little that changes fast, fresh to about 100 ms."""
        executing = self._pool.executing if self._pool else 0
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
        assert self._task is not None  # admission lets nobody in before the model is loaded
        if request.path != self._task.path:
            self._answer_error(ticket, unknown_path(request.path, self._task.path))
        elif ticket.body_bytes > MAX_BODY_BYTES:
            self._answer_error(ticket, too_large(ticket.body_bytes, MAX_BODY_BYTES))
        elif ticket.body_bytes <= INLINE_BODY_BYTES:
            self._prepare(ticket, request.body)
        else:
            work = self._loop.run_in_executor(self._preparing, self._task.prepare, request.body)
            work.add_done_callback(lambda done: self._prepared(ticket, done))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Forget a request whose client has left."""
        if ticket.settled:
            return
        self.counters.cancelled += 1
        self._let_go(ticket)

    def _prepare(self, ticket: Ticket, body: bytes) -> None:
        assert self._task is not None
        try:
            prepared = self._task.prepare(body)
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
        assert self._pool is not None
        ticket.prepared = prepared
        ticket.left = len(prepared.sequences)
        ticket.rows = [None] * ticket.left
        ticket.job = Job(prepared.sequences, ticket.deadline)
        self._tickets[ticket.job] = ticket
        self._pool.add(ticket.job)
        self.turn.put_off(self._wake)  # all requests of one read go before the workers look

    def _wake(self) -> None:
        if self._pool is not None:
            self._pool.wake()

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
        assert self._task is not None
        assert ticket.prepared is not None
        if len(ticket.rows) > INLINE_ROWS:
            work = self._loop.run_in_executor(
                self._preparing, self._task.respond, ticket.prepared, ticket.rows
            )
            work.add_done_callback(lambda done: self._responded(ticket, done))
            return
        try:
            body = self._task.respond(ticket.prepared, ticket.rows)
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
            if ticket.left and self._pool is not None:
                self._pool.drop(ticket.job)
        self.admission.release()
        if self.admission.in_hand == 0:
            self._idle.set()

    # --- inside -------------------------------------------------------------------------------

    def _move(self, event: Event) -> None:
        before, self.state = self.state, next_state(self.state, event)
        if self.state is not before:
            logger.info("%s: %s -> %s", event.value, before.value, self.state.value)
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

    async def _load_first(self) -> None:
        async with self._model_lock:
            try:
                await self._loop.run_in_executor(None, self._engine.load)
            except Exception as error:  # noqa: BLE001 - whatever it is, the agent cannot serve
                known = isinstance(error, ModelError)
                self._fail(error if known else ModelError(f"the model was not loaded: {error!r}"))
                return
            self._task = EmbedTask(self.config.deployment, self._engine.describe())
            self._pool = WorkerPool(
                self._engine, self._task.reduce, self.config.workers, self.config.batch_size, self._deliver,
                budget_s=self.config.batch_budget_ms / 1000,
            )  # fmt: skip
            self._move(Event.LOADED)

    async def _load_again(self) -> None:
        async with self._model_lock:
            if self.state is not AgentState.LOADING:
                return
            try:
                await self._loop.run_in_executor(None, self._engine.load)
            except Exception as error:  # noqa: BLE001 - whatever it is, the agent cannot serve
                self._fail(ModelError(f"the model was not loaded again: {error}"))
                return
            self._move(Event.LOADED)

    def _fail(self, error: Exception) -> None:
        if not self.fatal.done():
            self.fatal.set_exception(error)

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

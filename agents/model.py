"""The model in an agent: loaded, parked, measured, and served in another shape, one of these at a time.

All methods belong to the event loop's thread; what takes long runs in threads. Weights are given back when
nothing computes, and never in memory twice. What was begun goes on when its caller leaves.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from agents.background import Background
from agents.calibrate import Calibration, calibrate_here
from agents.config import AgentConfig
from agents.engines.base import Engine
from agents.errors import BadTransition, ModelError
from agents.lifecycle import Event, next_state
from agents.protocol import AgentState
from agents.service_line import REFERENCE_TOKENS
from agents.shape import Shape, shape_of
from agents.tasks.base import Task
from agents.tasks.embed import EmbedTask
from agents.worker import Done, WorkerPool

logger = logging.getLogger(__name__)

#: A shape that did not load is not tried again before: each attempt costs the time of two loads.
TRY_AGAIN_S: Final = 60.0

Result = TypeVar("Result")


class ServedModel:
    """State and shape of the model; what computes it.

    `idle` is set while no request is in hand; `deliver` is called by workers. `changed` is called when state,
    shape or memory have changed. `fatal` is done with an exception when the agent can serve no more.
    """

    def __init__(
        self,
        config: AgentConfig,
        engine: Engine,
        *,
        idle: asyncio.Event,
        deliver: Callable[[Done], None],
        changed: Callable[[], None],
    ) -> None:
        self.config = config  # with the present shape
        self.state = AgentState.LOADING
        self.task: Task[Any] | None = None
        self.pool: WorkerPool | None = None
        self.background = Background()
        self._loop = asyncio.get_running_loop()
        self.fatal: asyncio.Future[None] = self._loop.create_future()
        self._first = config
        self._engine = engine
        self._engine_shape = shape_of(config)
        self._idle = idle
        self._deliver = deliver
        self._changed = changed
        self._one_at_a_time = asyncio.Lock()
        self._stop_measuring = threading.Event()
        self._did_not_load: tuple[Shape, float, ModelError] | None = None

    @property
    def shape(self) -> Shape:
        """The present one; of a parked agent the one it will be loaded in."""
        return shape_of(self.config)

    @property
    def engine_version(self) -> str:
        """Of what computes."""
        return self._engine.version

    @property
    def free_tokens(self) -> int:
        """Of a batch that may take longer than the latency budget; 0: none may.

        Who asks for larger batches than the agent began with wants them although they take longer.
        """
        size = self.config.batch_size
        return size * REFERENCE_TOKENS if size > self._first.batch_size else 0

    # --- orders -------------------------------------------------------------------------------

    def load_soon(self) -> None:
        """Load for the first time, without waiting."""
        self.background.spawn(self._load_first())

    async def park(self) -> None:
        """Refuse new work, finish the present, free the weights. Raises BadTransition."""
        self._move(Event.PARK)
        await self.background.see_through(self._park())

    async def resume(self) -> None:
        """Load the weights again; returns when the agent is ready. Raises BadTransition."""
        self._move(Event.RESUME)
        await self.background.see_through(self._load_again())

    def resume_soon(self) -> None:
        """As `resume`, without waiting; ignored where it is not possible."""
        if self.state is AgentState.PARKED:
            self._move(Event.RESUME)
            self.background.spawn(self._load_again())

    async def calibrate(self) -> Calibration:
        """Refuse new work, finish the present, measure this machine, and serve again.

        Raises BadTransition, ModelError where the model does not load in some shape, and Stopped.
        """
        self._move(Event.MEASURE)
        return await self.background.see_through(self._measure())

    async def reshape(self, shape: Shape) -> None:
        """Serve in another shape from now on.

        Another batch size alone is taken at once. Else new work is refused, the present finished, the engine
        unloaded and one of the new shape loaded. Raises BadTransition, and ModelError where that one does
        not load: the old one serves on. A parked agent is loaded in the new shape when it is resumed.
        """
        parked = self.state is AgentState.PARKED
        if not parked:
            next_state(self.state, Event.RESHAPE)  # raises: one that loads or drains has no shape to change
        if not shape.has_engine_of(self._engine_shape):
            self._refuse_what_did_not_load(shape)
            if not parked:
                self._move(Event.RESHAPE)
                await self.background.see_through(self._reload(shape))
                return
        self._take(shape)

    def drain(self) -> None:
        """Take no new work, and do not go on measuring."""
        self._stop_measuring.set()
        self._move(Event.DRAIN)

    async def close(self) -> None:
        """End threads and what is under way; nothing may be in hand."""
        await self.background.close()
        if self.pool is not None:
            await self._in_thread(self.pool.close)
        self._engine.close()

    # --- what they do -------------------------------------------------------------------------

    async def _load_first(self) -> None:
        async with self._one_at_a_time:
            try:
                await self._in_thread(self._engine.load)
            except Exception as error:  # noqa: BLE001 - whatever it is, the agent cannot serve
                known = isinstance(error, ModelError)
                self._fail(error if known else ModelError(f"the model was not loaded: {error!r}"))
                return
            self.task = EmbedTask(self.config.deployment, self._engine.describe())
            self.pool = self._new_pool(self._engine, self.shape)
            self._move(Event.LOADED)

    async def _park(self) -> None:
        async with self._one_at_a_time:
            await self._nothing_computes()
            if self.state is AgentState.PARKED:
                await self._in_thread(self._engine.unload)
                self._changed()

    async def _measure(self) -> Calibration:
        async with self._one_at_a_time:
            try:
                await self._nothing_computes()
                await self._in_thread(self._engine.unload)
                return await self._in_thread(partial(calibrate_here, self.config, self._stop_measuring))
            finally:
                self.background.spawn(self._load_again())

    async def _load_again(self) -> None:
        """What was told while it was parked counts, if it can be loaded."""
        async with self._one_at_a_time:
            if self.state is not AgentState.LOADING:
                return
            if self.shape.has_engine_of(self._engine_shape):
                await self._load_present()
            else:
                before = self._engine_shape
                try:
                    await self._swap_engine(self.shape)
                except ModelError:
                    self._take(before)
            self._move_loaded()

    async def _reload(self, shape: Shape) -> None:
        async with self._one_at_a_time:
            await self._nothing_computes()
            self._go_on_if(AgentState.LOADING)
            try:
                await self._swap_engine(shape)
            except ModelError:
                self._move_loaded()
                raise
            self._move_loaded()
            self._go_on_if(AgentState.READY)

    async def _swap_engine(self, shape: Shape) -> None:
        """For one of another shape; where it does not load, the present one is again. Raises ModelError."""
        await self._nothing_computes()
        began = time.monotonic()
        old, old_pool = self._engine, self.pool
        new = old.reshaped(shape.workers, shape.threads)
        try:
            await self._in_thread(old.unload)
            await self._in_thread(new.load)
            # How long batches take is learned anew: with other threads it is another line.
            self.pool = self._new_pool(new, shape)
        except Exception as error:
            await self._in_thread(new.unload)
            await self._in_thread(new.close)
            await self._load_present()
            raise self._not_loaded(shape, error) from error
        self._engine, self._engine_shape = new, shape
        self._take(shape)
        if old_pool is not None:
            await self._in_thread(old_pool.close)
        await self._in_thread(old.close)
        logger.info("%s, after %.0f ms", shape, (time.monotonic() - began) * 1000)

    async def _load_present(self) -> None:
        try:
            await self._in_thread(self._engine.load)
        except Exception as error:  # noqa: BLE001 - whatever it is, the agent cannot serve
            self._fail(ModelError(f"the model was not loaded again: {error}"))

    async def _nothing_computes(self) -> None:
        """Until what was admitted is answered, and what was cancelled has left the engine."""
        await self._idle.wait()
        if self.pool is not None and self.pool.executing:
            await self._in_thread(self.pool.wait_quiet)

    # --- inside -------------------------------------------------------------------------------

    def _take(self, shape: Shape) -> None:
        """Say that this is the shape from now on; what needs no other engine is so at once."""
        admits = self._first.admits if shape == shape_of(self._first) else shape.admits
        self.config = replace(
            self.config, workers=shape.workers, threads=shape.threads, batch_size=shape.batch_size,
            admits=admits,
        )  # fmt: skip
        if shape.has_engine_of(self._engine_shape):
            self._engine_shape = shape
        if self.pool is not None:
            self.pool.set_batches(shape.batch_size, self.free_tokens)
        self._changed()

    def _new_pool(self, engine: Engine, shape: Shape) -> WorkerPool:
        assert self.task is not None
        return WorkerPool(
            engine, self.task.reduce, shape.workers, shape.batch_size, self._deliver,
            budget_s=self.config.batch_budget_ms / 1000,
        )  # fmt: skip

    def _not_loaded(self, shape: Shape, error: Exception) -> ModelError:
        """What is said of a shape that did not load, now and when it is asked for again too soon."""
        logger.error("%s was not loaded, so %s serves on: %s", shape, self._engine_shape, error)
        failure = ModelError(
            f"{shape} was not loaded, the agent serves on with {self._engine_shape}: {error}"
        )
        self._did_not_load = (shape, time.monotonic() + TRY_AGAIN_S, failure)
        return failure

    def _refuse_what_did_not_load(self, shape: Shape) -> None:
        if self._did_not_load is not None:
            failed, until, failure = self._did_not_load
            if shape.has_engine_of(failed) and time.monotonic() < until:
                raise failure

    def _go_on_if(self, state: AgentState) -> None:
        """Unless it was told to stop meanwhile. Raises BadTransition."""
        if self.state is not state:
            raise BadTransition(f"an agent that is {self.state.value} cannot {Event.RESHAPE.value}")

    def _move(self, event: Event) -> None:
        before, self.state = self.state, next_state(self.state, event)
        if self.state is not before:
            logger.info("%s: %s -> %s", event.value, before.value, self.state.value)
            self._changed()

    def _move_loaded(self) -> None:
        if not self.fatal.done():
            self._move(Event.LOADED)

    def _fail(self, error: Exception) -> None:
        if not self.fatal.done():
            self.fatal.set_exception(error)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await self._loop.run_in_executor(None, work)

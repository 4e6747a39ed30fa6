"""Work that goes on by itself on the event loop, whoever asked for it."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from agents.errors import AgentError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Background:
    """Tasks that are kept until they end. What they raise on purpose is for those who wait, if any do."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        """Begin, and do not wait."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def see_through(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for work that goes on where the caller is cancelled."""
        return await asyncio.shield(self.spawn(work))

    async def close(self) -> None:
        """Cancel what is still under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, AgentError):
            logger.error("work in the background failed: %r", error)

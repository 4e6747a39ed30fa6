"""TCP relays on the loopback that can be cut: bytes wait in them as on a link that is down."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"
_PIECE = 64 * 1024


class Relay:
    """From one port to another. While it is cut nothing passes, either way, on old connections or new."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._passing = asyncio.Event()
        self._passing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Let nothing pass."""
        self._passing.clear()

    def mend(self) -> None:
        """Let everything pass, what has waited first."""
        self._passing.set()

    def reset(self) -> None:
        """Break all connections off."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Stop listening, and break all connections off."""
        if self._server is not None:
            self._server.close()
        self.reset()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._passing.wait()
                there_reader, there_writer = await asyncio.open_connection(HOST, self._target)
                writers.append(there_writer)
                await self._join((reader, there_writer), (there_reader, writer))
        finally:
            self._tasks.discard(task)
            for one in writers:
                one.transport.abort()

    async def _join(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Pass on both ways until one of them ends."""
        pumps = [asyncio.ensure_future(self._pump(reader, writer)) for reader, writer in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            await self._passing.wait()
            writer.write(piece)
            await writer.drain()
        await self._passing.wait()  # a cut link does not tell of an end either


class Relays:
    """Relays by the port they lead to, in an event loop and thread of their own; a context."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._relays: dict[int, Relay] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for port in list(self._relays):
            self.close(port)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, port: int) -> int:
        """A relay to `port`; returns the port that it listens on."""
        relay = self._relays[port] = Relay(port)
        return int(self._run(relay.open()))

    def close(self, port: int) -> None:
        """End the relay to `port`."""
        self._run(self._relays.pop(port).close())

    def cut(self, port: int) -> None:
        """As `Relay.cut`."""
        self._loop.call_soon_threadsafe(self._relays[port].cut)

    def mend(self, port: int) -> None:
        """As `Relay.mend`."""
        self._loop.call_soon_threadsafe(self._relays[port].mend)

    def reset(self, port: int) -> None:
        """As `Relay.reset`."""
        self._loop.call_soon_threadsafe(self._relays[port].reset)

    def _run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

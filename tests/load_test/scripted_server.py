"""A small HTTP server inside the test's own event loop that does what the test says."""

import asyncio
import contextlib
from collections.abc import Callable

from appliance.load_test import Target

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#: Answers None: never answer. Answers b"": close the connection.
Answer = Callable[[int], bytes | None]


def build_answer(status: int, *, close: bool = False) -> bytes:
    connection = "Connection: close\r\n" if close else ""
    return f"HTTP/1.1 {status} Whatever\r\n{connection}Content-Length: 0\r\n\r\n".encode()


class ScriptedServer:
    """Keeps what it received; `answer(n)` is what the n-th request (from 0) gets, after `delay_s(n)`."""

    def __init__(self) -> None:
        self.answer: Answer = lambda _: OK
        self.delay_s: Callable[[int], float] = lambda _: 0.0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.received_at: list[float] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def target(self) -> Target:
        return Target("127.0.0.1", self.port, "/v1/embeddings", None, (("Authorization", "Bearer secret"),))

    @property
    def live_connections(self) -> int:
        return len(self._writers)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and break all connections."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._talk(reader, writer)
        finally:
            writer.close()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            self.bodies.append(await reader.readexactly(length))
            self.heads.append(head)
            self.received_at.append(asyncio.get_running_loop().time())
            n = len(self.heads) - 1
            answer = self.answer(n)
            await asyncio.sleep(self.delay_s(n))
            if answer is None:
                await reader.read()  # until the client leaves
                return
            writer.write(answer)
            if not answer or b"Connection: close" in answer:
                return

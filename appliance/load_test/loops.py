"""The two ways to load: closed (as many as there are connections) and open (on a schedule)."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from time import perf_counter

from appliance.load_test.connection import (
    AttentiveConnection,
    ConnectFailed,
    Connection,
    open_connection,
)
from appliance.load_test.plan import LoadPlan
from appliance.load_test.records import RecordFile
from appliance.load_test.summary import Recorder

BACKOFF_FIRST_S = 0.01
BACKOFF_LAST_S = 1.0
#: Servers close idle connections, often after 5 s; one that has idled this long is not used again.
IDLE_LIMIT_S = 4.0
#: How finely an event loop's timer can be set.
TIMER_S = 0.001


class Load(ABC):
    """What both loops share. `done` is set when no more is begun and every request begun has ended.

    With `records` a line of each request is kept.
    """

    def __init__(
        self, plan: LoadPlan, recorder: Recorder, started_at: float, records: RecordFile | None = None
    ) -> None:
        self.done = asyncio.Event()
        self._plan = plan
        self._recorder = recorder
        self._started_at = started_at
        self._records = records
        self._requests = plan.build_requests()
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    @abstractmethod
    def start(self) -> None:
        """Begin. Called once, inside the event loop."""

    @abstractmethod
    def answered(self, connection: Connection, status: int) -> None:
        """A connection's request was answered."""

    @abstractmethod
    def lost(self, connection: Connection, cause: str) -> None:
        """A connection broke; where it was busy its request failed for `cause`."""

    def stop(self) -> None:
        """Begin no further request."""
        self._stopped = True

    def sweep(self) -> None:
        """Give up requests that have run out of time; to be called several times within a timeout."""
        oldest = perf_counter() - self._plan.timeout_s
        for connection in [c for c in self._open if c.busy and c.due_at < oldest]:
            connection.give_up("timeout")

    def abandon(self) -> None:
        """Break everything off; requests under way fail as `interrupted`."""
        self.stop()
        for task in self._tasks:
            task.cancel()
        for connection in list(self._open):
            if connection.busy:
                connection.give_up("interrupted")
            else:
                self._drop(connection)

    def _now(self) -> float:
        return perf_counter() - self._started_at

    def _ended(self, now: float) -> bool:
        return self._stopped or now >= self._plan.deadline_s

    def _request(self, number: int) -> bytes:
        return self._requests[number % len(self._requests)]

    def _note_answer(self, connection: Connection, at: float, status: int) -> None:
        latency_s = at - connection.due_at
        self._recorder.answer(at - self._started_at, latency_s, status)
        if self._records is not None:
            due_s = connection.due_at - self._started_at
            self._records.answer(connection.number, due_s, latency_s, status, connection.served_by)

    def _note_failure(self, number: int, due_at: float, cause: str) -> None:
        now = self._now()
        self._recorder.fail(now, cause)
        if self._records is not None:
            due_s = due_at - self._started_at
            self._records.fail(number, due_s, now - due_s, cause)

    async def _connect(self) -> Connection:
        """A new connection, counted among the open ones. Raises ConnectFailed."""
        kind = Connection if self._records is None else AttentiveConnection
        connection = await open_connection(self._plan.target, self, self._plan.timeout_s, kind)
        if not connection.alive:  # accepted and closed at once
            raise ConnectFailed("closed")
        self._open.add(connection)
        return connection

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class ClosedLoop(Load):
    """Each connection sends its next request as soon as the last is answered.

    A connection that breaks is made again at once, later with a growing pause; each attempt that
    fails counts as one failed request.
    """

    def __init__(
        self, plan: LoadPlan, recorder: Recorder, started_at: float, records: RecordFile | None = None
    ) -> None:
        super().__init__(plan, recorder, started_at, records)
        self._begun = 0
        self._lanes = plan.connections

    def start(self) -> None:
        """Open all connections."""
        for _ in range(self._plan.connections):
            self._open_lane()

    def answered(self, connection: Connection, status: int) -> None:
        """Record, and send the next."""
        self._note_answer(connection, perf_counter(), status)
        if connection.reusable:
            self._next(connection)
            return
        self._drop(connection)
        self._reopen()

    def lost(self, connection: Connection, cause: str) -> None:
        """Record the failure, and connect again."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        if connection.busy:
            connection.busy = False
            self._note_failure(connection.number, connection.due_at, cause)
        self._reopen()

    def _next(self, connection: Connection) -> None:
        now = self._now()
        if not self._take(now):
            self._drop(connection)
            self._close_lane()
            return
        self._recorder.begin(now)
        number = self._begun - 1
        connection.send(self._request(number), self._started_at + now, number)

    def _take(self, now: float) -> bool:
        """Whether one more request may be begun, counting it."""
        if self._ended(now) or (self._plan.count is not None and self._begun >= self._plan.count):
            return False
        self._begun += 1
        return True

    def _reopen(self) -> None:
        if self._ended(self._now()):
            self._close_lane()
            return
        self._recorder.reconnects += 1
        self._open_lane()

    def _open_lane(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect_lane())
        # A task cancelled before its first step runs none of its code: only the callback is sure.
        task.add_done_callback(self._lane_tried)
        self._keep(task)

    async def _connect_lane(self) -> None:
        """Connect and send the first request; ends the lane where the run ends first."""
        pause_s = BACKOFF_FIRST_S
        while not self._ended(self._now()):
            try:
                connection = await self._connect()
            except ConnectFailed as error:
                now = self._now()
                if not self._take(now):
                    break
                self._note_failure(self._begun - 1, self._started_at + now, error.cause)
            else:
                self._next(connection)
                return
            await asyncio.sleep(min(pause_s, max(0.0, self._plan.deadline_s - self._now())))
            pause_s = min(2 * pause_s, BACKOFF_LAST_S)
        self._close_lane()

    def _lane_tried(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._close_lane()

    def _close_lane(self) -> None:
        self._lanes -= 1
        if self._lanes == 0:
            self.done.set()


class OpenLoop(Load):
    """Requests arrive on a schedule, whether or not earlier ones are answered.

    They take the connection used last (so that surplus ones idle out), else wait for one; the
    wait is part of their latency, and of their timeout.
    """

    def __init__(
        self, plan: LoadPlan, recorder: Recorder, started_at: float, records: RecordFile | None = None
    ) -> None:
        super().__init__(plan, recorder, started_at, records)
        self._arrivals = plan.arrival_times()
        self._idle: list[Connection] = []
        self._waiting: deque[tuple[int, float]] = deque()  # number and when it was due
        self._busy = 0
        self._dialing = 0

    def start(self) -> None:
        """Let requests arrive; connections are made as they need them."""
        self._keep(asyncio.get_running_loop().create_task(self._run()))

    def answered(self, connection: Connection, status: int) -> None:
        """Record, and give the connection to whoever waits."""
        at = perf_counter()
        self._busy -= 1
        self._note_answer(connection, at, status)
        if connection.reusable:
            self._release(connection, at)
        else:
            self._recorder.reconnects += 1
            self._drop(connection)
            self._dial_if_needed()
        self._settle()

    def lost(self, connection: Connection, cause: str) -> None:
        """Record the failure; another connection is made when it is needed."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        if connection.busy:
            connection.busy = False
            self._busy -= 1
            self._note_failure(connection.number, connection.due_at, cause)
        else:
            self._idle.remove(connection)
        self._recorder.reconnects += 1
        self._dial_if_needed()
        self._settle()

    def sweep(self) -> None:
        """As above, and those still waiting for a connection too."""
        super().sweep()
        oldest = perf_counter() - self._plan.timeout_s
        while self._waiting and self._waiting[0][1] < oldest:
            self._note_failure(*self._waiting.popleft(), "timeout")
        self._settle()

    def abandon(self) -> None:
        """As above, and those still waiting for a connection too."""
        for number, due_at in self._waiting:
            self._note_failure(number, due_at, "interrupted")
        self._waiting.clear()
        super().abandon()
        self._settle()

    async def _run(self) -> None:
        """Let each request arrive when it is due. A late timer delays none of those behind it."""
        for number, offset_s in enumerate(self._arrivals):
            while (wait_s := offset_s - self._now()) > 0 and not self._stopped:  # noqa: ASYNC110 - a schedule
                await asyncio.sleep(max(TIMER_S, min(wait_s, 0.25)))
            if self._stopped:
                break
            self._arrive(number, self._started_at + offset_s)
        self._stopped = True
        self._settle()

    def _arrive(self, number: int, due_at: float) -> None:
        if self._busy + len(self._waiting) >= self._plan.outstanding:
            self._note_failure(number, due_at, "overflow")
            return
        self._waiting.append((number, due_at))
        oldest_use = perf_counter() - IDLE_LIMIT_S
        while self._waiting and self._idle:
            connection = self._idle.pop()
            if connection.used_at < oldest_use:
                self._drop(connection)
            else:
                self._send(connection)
        self._dial_if_needed()

    def _send(self, connection: Connection) -> None:
        (number, due_at), at = self._waiting.popleft(), perf_counter()
        self._busy += 1
        self._recorder.begin(at - self._started_at, at - due_at)
        connection.send(self._request(number), due_at, number)

    def _release(self, connection: Connection, at: float) -> None:
        connection.used_at = at
        if self._waiting:
            self._send(connection)
        else:
            self._idle.append(connection)

    def _dial_if_needed(self) -> None:
        room = self._plan.connections - len(self._open) - self._dialing
        for _ in range(min(room, len(self._waiting) - self._dialing)):
            self._dialing += 1
            self._keep(asyncio.get_running_loop().create_task(self._dial()))

    async def _dial(self) -> None:
        try:
            connection = await self._connect()
        except ConnectFailed as error:
            if self._waiting:  # one request fails for each attempt, the one that has waited longest
                self._note_failure(*self._waiting.popleft(), error.cause)
            self._dialing -= 1
        except asyncio.CancelledError:
            self._dialing -= 1
            raise
        else:
            self._dialing -= 1
            self._release(connection, perf_counter())
        self._dial_if_needed()
        self._settle()

    def _settle(self) -> None:
        if self._stopped and not self._busy and not self._waiting:
            self.done.set()

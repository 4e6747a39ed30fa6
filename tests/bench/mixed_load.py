"""Open-loop load of several kinds of request at once, from a process of its own.

`python -m tests.bench.mixed_load` reads a plan (JSON) on stdin and prints the figures (JSON) at its end.
Latency runs from when a request should have been sent. Times are seconds of the monotonic clock, which
all processes of a machine share.
"""

import asyncio
import contextlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any

import uvloop

from appliance.load_test import parse_url
from tests.bench.processes import BenchError
from tests.bench.servers import ROOT
from tests.bench.tally import Event, Tally
from tests.bench.wire import Wire

#: How finely an event loop's timer can be set.
TIMER_S = 0.001
#: The gateway closes connections that idle for longer.
IDLE_LIMIT_S = 4.0
MAX_EVENTS = 20_000


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request: `share` of all are of it; `leaving` of them (0..1) are given up in `leave_s`."""

    name: str
    share: float
    bodies: tuple[str, ...]
    headers: dict[str, str]
    deadline_s: float | None = None
    leaving: float = 0.0
    leave_s: float = 0.0


@dataclass(frozen=True, slots=True)
class MixedPlan:
    """One run. At most `connections` requests are under way; more fail as `overflow`.

    With `events` each request that was not answered with 200 is told of one by one.
    """

    url: str
    rps: float
    seconds: float
    kinds: tuple[Kind, ...]
    seed: int = 0
    connections: int = 4096
    timeout_s: float = 65.0
    events: bool = True


@contextlib.contextmanager
def mixed_load(plan: MixedPlan) -> Iterator["RunningLoad"]:
    """Start the load; it is ended with the context, whatever became of it."""
    with tempfile.TemporaryFile() as output:  # a pipe would hold it up until somebody reads
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.mixed_load"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=output, start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(plan)).encode())
            process.stdin.close()
            yield RunningLoad(process, plan, output)
        finally:
            process.kill()
            process.wait()


class RunningLoad:
    """A load under way."""

    def __init__(self, process: "subprocess.Popen[bytes]", plan: MixedPlan, output: IO[bytes]) -> None:
        self.pid = process.pid
        self._output = output
        self._process = process
        self._plan = plan

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def finish(self) -> dict[str, Any]:
        """Wait for its end; its figures, as `Figures` of `tally` name them. Raises BenchError."""
        try:
            self._process.wait(self._plan.seconds + self._plan.timeout_s + 30)
        except subprocess.TimeoutExpired:
            raise BenchError("the load generator does not end") from None
        if self._process.returncode:
            raise BenchError(f"the load generator ended with code {self._process.returncode}")
        self._output.seek(0)
        figures: dict[str, Any] = json.load(self._output)
        return figures


class _MixedLoad:
    def __init__(self, plan: MixedPlan) -> None:
        self._plan = plan
        target = parse_url(plan.url)
        self._host, self._port = target.host, target.port
        self._requests = {
            kind.name: [
                parse_url(plan.url, headers=tuple(kind.headers.items())).build_request(body.encode())
                for body in kind.bodies
            ]
            for kind in plan.kinds
        }
        self._idle: list[Wire] = []
        self._busy: set[Wire] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._chance = random.Random(plan.seed)
        self.started_at = time.monotonic()
        self.tally = Tally(
            [(kind.name, kind.deadline_s) for kind in plan.kinds], self.started_at, plan.seconds
        )
        self.events: list[Event] = []
        self.events_lost = 0

    async def run(self) -> None:
        """Begin requests as they are due, then wait for the last answers."""
        plan, chance = self._plan, self._chance
        sweeping = asyncio.create_task(self._sweep())
        shares = [kind.share for kind in plan.kinds]
        at = 0.0
        while (at := at + chance.expovariate(plan.rps)) < plan.seconds:
            while (wait_s := self.started_at + at - time.monotonic()) > 0:  # noqa: ASYNC110 - a schedule
                await asyncio.sleep(max(TIMER_S, min(wait_s, 0.25)))
            self._arrive(chance.choices(plan.kinds, shares)[0], self.started_at + at)
        while self._busy or self._dials:  # noqa: ASYNC110 - the last answers come within milliseconds
            await asyncio.sleep(0.01)
        sweeping.cancel()
        for wire in self._idle:
            wire.close()

    def _arrive(self, kind: Kind, due_at: float) -> None:
        self.tally.offer(kind.name)
        now = time.monotonic()
        while self._idle:
            wire = self._idle.pop()
            if wire.used_at > now - IDLE_LIMIT_S and wire.alive:
                self._send(wire, kind, due_at)
                return
            wire.close()
        if len(self._busy) + len(self._dials) >= self._plan.connections:
            self._fail(kind, due_at, "overflow")
            return
        task = asyncio.get_running_loop().create_task(self._dial(kind, due_at))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, kind: Kind, due_at: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            connecting = loop.create_connection(lambda: Wire(self), self._host, self._port)
            _, wire = await asyncio.wait_for(connecting, self._plan.timeout_s)
        except (OSError, TimeoutError) as error:
            self._fail(kind, due_at, f"connect:{type(error).__name__}")
            return
        self._send(wire, kind, due_at)

    def _send(self, wire: Wire, kind: Kind, due_at: float) -> None:
        wire.kind, wire.due_at, wire.sent_at = kind, due_at, time.monotonic()
        self.tally.lag(wire.sent_at - due_at)
        self._busy.add(wire)
        wire.send(self._chance.choice(self._requests[kind.name]))
        if kind.leaving and self._chance.random() < kind.leaving:
            asyncio.get_running_loop().call_later(
                self._chance.random() * kind.leave_s, self._leave, wire, due_at
            )

    def _leave(self, wire: Wire, due_at: float) -> None:
        if wire.busy and wire.due_at == due_at:
            wire.give_up("left")

    # The connections tell these.

    def answered(self, wire: Wire, status: int) -> None:
        now = time.monotonic()
        self._busy.discard(wire)
        self.tally.answer(wire.kind.name, status, now, now - wire.due_at, now - wire.sent_at)
        if status != 200 and self._plan.events:
            self._note(wire.kind, wire.due_at, now, str(status), _read_code(wire.body))
        if wire.reusable:
            wire.used_at = now
            self._idle.append(wire)
        else:
            wire.close()

    def lost(self, wire: Wire, cause: str) -> None:
        if wire in self._busy:
            self._busy.discard(wire)
            wire.busy = False
            self._fail(wire.kind, wire.due_at, cause)
        elif wire in self._idle:
            self._idle.remove(wire)

    def _fail(self, kind: Kind, due_at: float, cause: str) -> None:
        self.tally.fail(kind.name, cause)
        if cause != "left" and self._plan.events:
            self._note(kind, due_at, time.monotonic(), cause, "")

    def _note(self, kind: Kind, due_at: float, at: float, outcome: str, code: str) -> None:
        if len(self.events) < MAX_EVENTS:
            self.events.append(Event(due_at, at, kind.name, outcome, code))
        else:
            self.events_lost += 1

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            oldest = time.monotonic() - self._plan.timeout_s
            for wire in [wire for wire in self._busy if wire.due_at < oldest]:
                wire.give_up("timeout")


def _read_code(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "no envelope"


def _read_plan(raw: bytes) -> MixedPlan:
    given = json.loads(raw)
    kinds = tuple(Kind(**kind | {"bodies": tuple(kind["bodies"])}) for kind in given.pop("kinds"))
    return MixedPlan(kinds=kinds, **given)


def main() -> None:
    """Run the plan on stdin."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 16_384)), hard))
    plan = _read_plan(sys.stdin.buffer.read())

    async def run() -> _MixedLoad:
        load = _MixedLoad(plan)
        await load.run()
        return load

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        load = runner.run(run())
    document = load.tally.to_json() | {
        "started_at": load.started_at,
        "events": [list(event) for event in load.events],
        "events_lost": load.events_lost,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()

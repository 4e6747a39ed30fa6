"""Runs a plan to its end and hands back its figures."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from time import perf_counter, process_time

import uvloop

from appliance.load_test.loops import ClosedLoop, Load, OpenLoop
from appliance.load_test.plan import LoadPlan
from appliance.load_test.records import RecordFile
from appliance.load_test.summary import Recorder, SecondRow, Summary

Progress = Callable[[SecondRow], None]


def run_load(plan: LoadPlan, progress: Progress | None = None, records: RecordFile | None = None) -> Summary:
    """Run `plan` in an event loop of its own; SIGINT and SIGTERM end it early, with what was measured.

    `progress` is called after each second with its row, `records` gets each request. Returns at the
    latest one timeout after the plan's end. To be called from the main thread.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run_load_async(plan, progress, records, watch_signals=True))


async def run_load_async(
    plan: LoadPlan,
    progress: Progress | None = None,
    records: RecordFile | None = None,
    *,
    watch_signals: bool = False,
) -> Summary:
    """The same inside a running event loop; cancelling it breaks all connections off."""
    started_at, cpu_s = perf_counter(), process_time()
    recorder = Recorder(plan.duration_s)
    load: Load = (ClosedLoop if plan.rps is None else OpenLoop)(plan, recorder, started_at, records)
    interrupted = asyncio.Event()
    ticker = asyncio.create_task(_tick(plan, load, recorder, started_at, progress))
    waits = [asyncio.create_task(event.wait()) for event in (load.done, interrupted)]
    try:
        with _signals_set(interrupted) if watch_signals else contextlib.nullcontext():
            load.start()
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if interrupted.is_set():
                load.abandon()
                await load.done.wait()
    finally:
        load.abandon()
        for task in (ticker, *waits):
            task.cancel()
        await asyncio.gather(ticker, *waits, return_exceptions=True)
    return recorder.summarise(
        mode="closed" if plan.rps is None else "open",
        connections=plan.connections,
        offered_rps=plan.rps,
        ended_s=perf_counter() - started_at,
        interrupted=interrupted.is_set(),
        started_at=started_at,
        cpu_s=process_time() - cpu_s,
    )


async def _tick(
    plan: LoadPlan, load: Load, recorder: Recorder, started_at: float, progress: Progress | None
) -> None:
    """Look after timeouts and progress until cancelled."""
    shown = -1
    while True:
        await asyncio.sleep(min(0.25, plan.timeout_s / 4))
        load.sweep()
        row = recorder.settle(perf_counter() - started_at)
        if progress is not None and row is not None and row.second > shown:
            shown = row.second
            progress(row)


@contextlib.contextmanager
def _signals_set(event: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, event.set)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

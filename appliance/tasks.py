"""What Huey runs: clock and hands, never memory. A task carries row ids only, and may be lost.

Connections to the database stay open in the consumer's threads: they are few, and the loop runs each second.
"""

from huey.contrib.djhuey import HUEY

from appliance.control import runtime
from appliance.control.imports import run_import

#: Huey's clock looks once a second, so that a task due in half of one runs at the next look.
_NEXT_TICK_S = 0.5


@HUEY.task()  # type: ignore[untyped-decorator]  # huey is untyped
def run_tick(trigger: str) -> None:
    """One pass of the loop; it schedules the next one, also where it fails."""
    try:
        runtime.tick(trigger)
    finally:
        _schedule_next()


@HUEY.task()  # type: ignore[untyped-decorator]  # huey is untyped
def import_model(model: int) -> None:
    """Do the import that a row asks for."""
    run_import(model)


def poke(trigger: str = "verb") -> None:
    """Ask for a tick at once. Where a worker is busy or gone nothing is lost: the next tick sees the rows."""
    if HUEY.pending_count() < 100:
        run_tick(trigger)


def _schedule_next() -> None:
    """Exactly one tick is scheduled at any time, however many ran."""
    if not any(task.name == run_tick.task_class.__name__ for task in HUEY.scheduled()):
        HUEY.add_schedule(run_tick.s("tick", delay=_NEXT_TICK_S))  # straight to the clock, not the queue

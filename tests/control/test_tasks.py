"""Huey as clock: one tick ahead, whatever happens in this one."""

import gc

import pytest
from huey.contrib.djhuey import HUEY

from appliance import tasks
from appliance.control import runtime
from appliance.management.commands.worker import calm_garbage_collection


@pytest.fixture(autouse=True)
def queue():
    HUEY.flush()
    yield
    HUEY.flush()
    runtime.use(None)


def test_one_tick_is_scheduled_however_many_ran():
    """Wants between two ticks start no second chain."""
    for trigger in ("start", "want", "want"):
        tasks.run_tick.call_local(trigger)
    (scheduled,) = HUEY.scheduled()
    assert scheduled.args == ("tick",)


def test_failed_tick_schedules_the_next(monkeypatch):
    """An error costs one tick, not the loop."""

    def fail(trigger):
        raise RuntimeError(trigger)

    monkeypatch.setattr(runtime, "tick", fail)
    with pytest.raises(RuntimeError, match="start"):
        tasks.run_tick.call_local("start")
    assert len(HUEY.scheduled()) == 1


def test_poke_asks_for_a_tick_and_is_bounded():
    """Verbs may poke while no worker runs: what waits for it stays small."""
    tasks.poke()
    assert [task.args for task in HUEY.pending()] == [("verb",)]
    for _ in range(150):
        tasks.poke()
    assert HUEY.pending_count() == 100


def test_process_without_a_loop_does_nothing():
    """A task that runs where no worker was set up decides nothing."""
    runtime.use(None)
    runtime.tick("tick")


def test_the_worker_looks_through_all_objects_seldom():
    """A tick makes thousands that outlive it: by default all are looked through every few ticks."""
    before = gc.get_threshold()
    try:
        calm_garbage_collection()
        assert gc.get_threshold() == (20_000, 20, 50)
        assert gc.get_freeze_count() > 0
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()

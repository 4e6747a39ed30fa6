"""The watchdog: it asks for a tick that was lost, whatever failed before."""

import sqlite3
import threading

import pytest
from django.conf import settings

from appliance.control import imports, lease, runtime

pytestmark = pytest.mark.django_db


def test_outlives_a_queue_that_fails(monkeypatch):
    """A full disk fails the queue with an error that is not the ORM's; the next look asks again."""
    monkeypatch.setattr(imports, "stopping", threading.Event())  # a stop says it to the whole process
    monkeypatch.setattr(lease, "beat_is_late", lambda limit_s: True)
    monkeypatch.setattr(runtime, "LATE_S", 0.01)
    monkeypatch.setattr(runtime, "_WATCH_EVERY_S", 0.01)
    asked, twice = [], threading.Event()

    def poke(trigger):
        asked.append(trigger)
        if len(asked) == 1:
            raise sqlite3.OperationalError("database or disk is full")
        twice.set()

    loop = runtime.Runtime(settings.ENVIRONMENT, poke=poke, enqueue_import=lambda model: None)
    watchdog = threading.Thread(target=loop._watch)
    watchdog.start()
    try:
        assert twice.wait(5)
    finally:
        loop.stop()
        watchdog.join(5)
    assert set(asked) == {"watchdog"}

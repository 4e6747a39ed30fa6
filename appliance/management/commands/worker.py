"""`manage.py worker`: the control loop, its hands, and the jobs."""

import gc
import logging
import os
import signal
import threading
import time
from argparse import RawDescriptionHelpFormatter
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from huey.consumer import Consumer
from huey.contrib.djhuey import HUEY

from appliance import tasks
from appliance.control import runtime

#: Threads that run tasks: two for imports, the others so that a tick never waits.
THREADS = 4
_STOP_S = 3.0
_HEALTH_EVERY_S = 10.0

log = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Run the worker: it makes the fleet match what people want, and does imports. `up` starts it.\n\n"
        "Example: manage.py worker"
    )
    requires_system_checks = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Keep the example's line of its own."""
        return super().create_parser(
            prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        _end_on_signal(stop)
        logging.getLogger("huey").setLevel(logging.WARNING)  # else three lines a second
        HUEY.flush()  # what a dead worker left is asked for again from rows
        loop = runtime.Runtime(settings.ENVIRONMENT, poke=tasks.poke, enqueue_import=tasks.import_model)
        runtime.use(loop)
        consumer = Consumer(
            HUEY,
            workers=THREADS,
            periodic=False,
            initial_delay=0.05,
            max_delay=0.1,
            shutdown_timeout=_STOP_S,
        )
        consumer.start()
        _end_on_signal(stop)  # the consumer has set its own
        calm_garbage_collection()
        loop.start()
        log.info("worker %d started", os.getpid())
        checked_at = time.monotonic()
        while not stop.wait(1.0):
            if time.monotonic() - checked_at >= _HEALTH_EVERY_S:
                checked_at = time.monotonic()
                consumer.check_worker_health()
        log.info("worker %d ends; agents go on", os.getpid())
        loop.stop()
        consumer.stop(graceful=True)
        loop.release()
        logging.shutdown()
        os._exit(0)  # threads that wait for a gateway or a node must not hold up the end


def calm_garbage_collection() -> None:
    """Look through all objects seldom, and never through those that are there from the start.

    A tick makes many objects that outlive it, and hardly a cycle: with 2,000 agents each look at all of them
    took 0.1 s out of some tick.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _end_on_signal(stop: threading.Event) -> None:
    """SIGTERM and SIGINT end the worker, also where they were ignored at its start; a second one at once."""

    def end(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)

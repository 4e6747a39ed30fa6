"""`manage.py up`: the whole appliance in the foreground."""

import sys
import time
from threading import Thread
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections

from appliance.management.base import unusable_database
from appliance.supervisor.first_run import prepare
from appliance.supervisor.leftovers import AlreadyRunningError, lock_home
from appliance.supervisor.programs import appliance_programs
from appliance.supervisor.readiness import (
    NotReadyError,
    Waiter,
    refuse_taken_ports,
    set_up_demo,
    wait_for_processes,
)
from appliance.supervisor.supervisor import Supervisor


class Command(BaseCommand):
    help = (
        "Run the appliance in the foreground: control plane, worker and gateway. Prints one line that "
        "begins with READY when all answer. SIGINT or SIGTERM ends every process it or its worker "
        "started on this machine; a second signal ends them at once. "
        "Example: manage.py up --demo"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--demo",
            action="store_true",
            help="import and deploy one int8 MiniLM embedding model under the name minilm",
        )
        parser.add_argument(
            "--timeout",
            type=float,
            default=300.0,
            metavar="SECONDS",
            help="give up when not all answer by then (default 300: a first --demo downloads 83 MB)",
        )

    def handle(self, *_args: Any, demo: bool, timeout: float, **_options: Any) -> None:
        environment = settings.ENVIRONMENT
        try:
            lock = lock_home(environment.run_dir)
        except AlreadyRunningError as error:
            raise CommandError(f"{error}: end that one, or set another APPLIANCE_HOME") from None
        with lock:
            supervisor = Supervisor(environment, appliance_programs(), _say)
            supervisor.install_signal_handlers()
            supervisor.end_leftovers()
            try:
                refuse_taken_ports(environment)
            except NotReadyError as error:
                raise CommandError(str(error)) from None
            try:
                prepare(environment)
            except DatabaseError as error:
                raise unusable_database(error) from None
            try:
                supervisor.start()
                self._announce(supervisor, demo=demo, timeout_s=timeout)
            finally:
                supervisor.end()
        _say("ended")

    def _announce(self, supervisor: Supervisor, *, demo: bool, timeout_s: float) -> None:
        """Say READY from a thread of its own, so that programs are looked after from the first second."""
        failed: list[str] = []

        def wait() -> None:
            environment = settings.ENVIRONMENT
            waiter = Waiter(time.monotonic() + timeout_s, supervisor.stopping.is_set)
            try:
                ready = wait_for_processes(environment, waiter)
                if ready and (not demo or set_up_demo(environment, waiter, _say)):
                    base = f"{environment.scheme}://{environment.reachable_host}"
                    print(
                        f"READY dashboard={base}:{environment.control_port}/ "
                        f"api={base}:{environment.gateway_port}/v1",
                        flush=True,
                    )
            except NotReadyError as error:
                failed.append(str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the operator must see it
                failed.append(f"cannot tell whether the appliance is ready: {error!r}")
            finally:
                connections.close_all()
            if failed:
                supervisor.request_stop()

        announcer = Thread(target=wait, name="announcer", daemon=True)
        announcer.start()
        supervisor.watch()
        announcer.join(timeout=3)
        if failed:
            raise CommandError(failed[0])


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()

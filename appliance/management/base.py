"""What the commands of `manage.py` share: JSON or a table, time-outs, and errors in one line."""

import argparse
import getpass
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection

from appliance.control.lease import worker_alive
from appliance.errors import BadArgument, VerbError
from appliance.gateways import wait_for_generation
from appliance.policies.snapshot import Generation

GATEWAYS_TIMEOUT_S = 5.0
WORKER_TIMEOUT_S = 1.5


class ApplianceCommand(BaseCommand, ABC):
    """A command that calls a verb. Subclasses write `run`, and set `help` with an example in it.

    Exit codes: 0 done, 1 failed with one line that says why, 2 bad arguments.
    """

    requires_system_checks = ()  # up checks; a command must answer at once

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_json(self, parser: CommandParser) -> None:
        """Add `--json`."""
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def add_timeout(self, parser: CommandParser) -> None:
        """Add `--timeout`."""
        parser.add_argument(
            "--timeout",
            type=positive_number,
            default=120.0,
            metavar="SECONDS",
            help="how long to wait (default 120)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM appliance_routestate LIMIT 1")
        except DatabaseError as error:
            if "no such table" not in str(error):
                raise unusable_database(error) from None
            home = settings.ENVIRONMENT.home
            raise CommandError(
                f"there is no appliance in {home} yet: start one with `make run` or `manage.py up`, "
                "or set APPLIANCE_HOME to where it is"
            ) from None
        try:
            self.run(**options)
        except BrokenPipeError:  # whoever reads, such as `head`, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except VerbError as error:
            code = 2 if isinstance(error, BadArgument) else 1
            raise CommandError(str(error), returncode=code) from None
        except DatabaseError as error:
            raise unusable_database(error) from None
        except OSError as error:
            raise CommandError(f"{error.strerror or error}: {error.filename or 'no file'}") from None

    @abstractmethod
    def run(self, **options: Any) -> None:
        """Do what the command is for."""

    def print_json(self, document: object) -> None:
        """One JSON document on stdout."""
        self.stdout.write(json.dumps(document, indent=2))

    def say(self, line: str) -> None:
        """Progress, on stderr."""
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def wait_for_gateways(self, generation: Generation) -> None:
        """Return when every gateway that answers serves the change; name those that do not in time."""
        late = wait_for_generation(settings.ENVIRONMENT.run_dir, generation, timeout_s=GATEWAYS_TIMEOUT_S)
        if late:
            self.say(f"not yet served by: {', '.join(late)}")

    def require_worker(self) -> None:
        """Raise CommandError within 3 s where no worker runs."""
        if not wait_until(worker_alive, WORKER_TIMEOUT_S):
            raise CommandError("no worker is running, and this needs it: start the appliance with `make run`")


def poke_worker() -> None:
    """Have the worker look at once, instead of within the second."""
    from appliance import tasks  # noqa: PLC0415 - the queue opens a file, which help needs not

    tasks.poke("verb")


def unusable_database(error: DatabaseError) -> CommandError:
    """What to tell whoever asked, where the disk is full or the file damaged."""
    home = settings.ENVIRONMENT.home
    return CommandError(
        f"the database in {home} cannot be used: {error}; see to the disk, or restore a backup"
    )


def actor() -> str:
    """Who calls, for the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"


def wait_until(condition: Callable[[], bool], timeout_s: float, *, poll_s: float = 0.1) -> bool:
    """Whether `condition` comes to hold in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


def positive_number(text: str) -> float:
    """A number above 0, for an argument. Raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted: a number above 0 is")
    return number


def count(text: str) -> int:
    """A whole number from 0 on, for an argument. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted: a whole number from 0 on is")
    return int(text)


def format_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as they need; numbers to the right."""
    lines = [[*heads], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    right = [
        all(_is_number(line[column]) for line in lines[1:]) and len(lines) > 1 for column in range(len(heads))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "", 1).rstrip("%").isdigit() or text == "-"

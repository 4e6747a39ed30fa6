"""One line of JSON per request, for whoever wants more than figures. Times are given, never taken."""

import json
from pathlib import Path
from types import TracebackType
from typing import Self

#: Lines are written this many bytes at a time: a run is disturbed seldom.
BUFFER_BYTES = 1 << 18


class RecordFile:
    """A file of records; a context, which closes it. Raises OSError where it cannot be written.

    Each line is an object: `n` the request's number from 0, `t` when it was due and `ms` how long after
    that it ended, `status` of its answer and `by` what `x-served-by` said, or `cause` without an answer.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=BUFFER_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def answer(self, number: int, due_s: float, latency_s: float, status: int, served_by: str) -> None:
        """A request was answered; times are in seconds, `due_s` since the run's start."""
        by = json.dumps(served_by)
        self._file.write(
            f'{{"n":{number},"t":{due_s:.6f},"ms":{latency_s * 1000:.3f},"status":{status},"by":{by}}}\n'
        )

    def fail(self, number: int, due_s: float, latency_s: float, cause: str) -> None:
        """A request ended without an answer; the same times."""
        self._file.write(f'{{"n":{number},"t":{due_s:.6f},"ms":{latency_s * 1000:.3f},"cause":"{cause}"}}\n')

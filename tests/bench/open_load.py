"""Load in open loop from a process of its own: arrivals by a seed, a record of every request."""

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.processes import BenchError
from tests.bench.servers import ROOT, Server

#: The generator's own start, and what it may take to write its records.
MARGIN_S = 60.0


class Row(msgspec.Struct):
    """One request: number, when it was due (seconds from the run's start), and how it ended `ms` later.

    `status` is None where there was no answer, for `cause`. `by` is what `x-served-by` said.
    """

    n: int
    t: float
    ms: float
    status: int | None = None
    by: str = ""
    cause: str = ""

    @property
    def good(self) -> bool:
        """Whether it was answered with 2xx."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def ended_s(self) -> float:
        """Seconds from the run's start to its end."""
        return self.t + self.ms / 1000


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """What is offered: the same seed gives the same arrivals, whatever the server does."""

    rps: float
    seconds: float
    seed: int
    connections: int = 256
    timeout_s: float = 30.0
    headers_file: Path | None = None


@dataclass(frozen=True, slots=True)
class OpenRun:
    """What came of it, `rows` by number. `started_at` is by the monotonic clock."""

    rows: list[Row]
    summary: dict[str, Any]
    started_at: float

    @property
    def failed(self) -> list[Row]:
        """All that were not answered with 2xx."""
        return [row for row in self.rows if not row.good]

    def latencies_ms(self, since_s: float = 0.0, until_s: float = math.inf) -> list[float]:
        """Sorted, of those due in that time and answered with 2xx."""
        return sorted(row.ms for row in self.rows if since_s <= row.t < until_s and row.good)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Of sorted values the smallest that at least this share does not exceed; None of nothing."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else None


class Loading:
    """A run under way."""

    def __init__(self, process: subprocess.Popen[bytes], plan: OpenPlan, record: Path) -> None:
        self._process = process
        self._plan = plan
        self._record = record
        self._begun = time.monotonic()

    def wait_until(self, seconds: float) -> None:
        """Wait until so many seconds after the generator's process was started."""
        time.sleep(max(0.0, self._begun + seconds - time.monotonic()))

    def finish(self) -> OpenRun:
        """Wait for its end. Raises BenchError."""
        try:
            output, errors = self._process.communicate(
                timeout=self._plan.seconds + self._plan.timeout_s + MARGIN_S
            )
        except subprocess.TimeoutExpired:
            raise BenchError("the load generator does not end") from None
        if self._process.returncode not in (0, 1) or not output:
            raise BenchError(f"load generator: {errors.decode().strip()[-300:]}")
        summary = json.loads(output)
        rows = sorted(read_rows(self._record), key=lambda row: row.n)
        return OpenRun(rows, summary, summary["started_at"])


def read_rows(path: Path) -> list[Row]:
    """The records of a run."""
    return msgspec.json.Decoder(Row).decode_lines(path.read_bytes())


@contextlib.contextmanager
def open_load(server: Server, bodies: Path, plan: OpenPlan, record: Path) -> Iterator[Loading]:
    """Offer the plan; what is to happen meanwhile is done inside, then `finish`."""
    command: list[object] = [
        sys.executable, "-m", "appliance.load_test", "--url", server.url, "--body-file", bodies,
        "--connections", plan.connections, "--duration", plan.seconds, "--rps", plan.rps,
        "--seed", plan.seed, "--timeout", plan.timeout_s, "--record", record, "--json", "--quiet",
    ]  # fmt: skip
    if server.key_file is not None:
        command += ["--key-file", server.key_file]
    if plan.headers_file is not None:
        command += ["--headers-file", plan.headers_file]
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT, env=dict(os.environ), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    with process:
        try:
            yield Loading(process, plan, record)
        finally:
            if process.poll() is None:
                process.kill()


def run_open(
    server: Server,
    bodies: Path,
    plan: OpenPlan,
    record: Path,
    during: Callable[[Loading], None] = lambda _: None,
) -> OpenRun:
    """Offer the plan to its end. Raises BenchError."""
    with open_load(server, bodies, plan, record) as loading:
        during(loading)
        return loading.finish()

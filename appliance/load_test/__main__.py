"""`python -m appliance.load_test --url http://127.0.0.1:8080/v1/embeddings --body-file F --duration 10`."""

import argparse
import contextlib
import json
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from appliance.load_test import BadPlan, LoadPlan, parse_url, render_summary, run_load
from appliance.load_test.plan import Headers
from appliance.load_test.records import RecordFile
from appliance.load_test.summary import SecondRow


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plan that the arguments describe; 0 all answered 2xx, 1 some not, 2 bad arguments."""
    parser = _build_parser()
    given = parser.parse_args(arguments)
    try:
        plan = _build_plan(given)
    except (BadPlan, OSError, ssl.SSLError) as error:
        parser.error(str(error))
    progress = None if given.quiet else _show_progress
    try:
        with contextlib.nullcontext() if given.record is None else RecordFile(given.record) as records:
            summary = run_load(plan, progress, records)
    except OSError as error:
        parser.error(
            f"record {str(given.record)!r}: {error.strerror}; a file that can be written is accepted"
        )
    print(json.dumps(summary.to_json()) if given.json else render_summary(summary))  # noqa: T201 - its output
    return 1 if summary.not_ok or summary.interrupted else 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m appliance.load_test", description=__doc__)
    parser.add_argument("--url", required=True, help="where to POST to, http or https")
    parser.add_argument(
        "--body-file", required=True, type=Path, help="one request body per line, sent in turn"
    )
    parser.add_argument("--key-file", type=Path, help="file with the API key to send as bearer token")
    parser.add_argument(
        "--ca", type=Path, help="authority that the server's certificate must come from (PEM)"
    )
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--duration", type=float, help="seconds in which requests are begun")
    parser.add_argument("--count", type=int, help="requests to begin at most")
    parser.add_argument("--rps", type=float, help="open loop: requests per second, whatever the answers")
    parser.add_argument("--arrivals", choices=("poisson", "even"), default="poisson")
    parser.add_argument("--seed", type=int, default=0, help="of the Poisson arrivals")
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds until a request counts as failed"
    )
    parser.add_argument(
        "--outstanding", type=int, default=10_000, help="open loop: bound; above it is overflow"
    )
    parser.add_argument(
        "--headers-file", type=Path, help="one JSON object of headers per line, sent in turn with the bodies"
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="write one line of JSON for each request")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def _build_plan(given: argparse.Namespace) -> LoadPlan:
    headers: tuple[tuple[str, str], ...] = ()
    if given.key_file is not None:
        headers = (("Authorization", f"Bearer {given.key_file.read_text().strip()}"),)
    context = None if given.ca is None else ssl.create_default_context(cafile=str(given.ca))
    bodies = tuple(line for line in given.body_file.read_bytes().splitlines() if line.strip())
    return LoadPlan(
        target=parse_url(given.url, headers=headers, context=context),
        bodies=bodies,
        connections=given.connections,
        duration_s=given.duration,
        count=given.count,
        rps=given.rps,
        arrivals=given.arrivals,
        seed=given.seed,
        timeout_s=given.timeout,
        outstanding=given.outstanding,
        headers=((),) if given.headers_file is None else _read_headers(given.headers_file),
    )


def _read_headers(path: Path) -> tuple[Headers, ...]:
    """Raises BadPlan, OSError."""
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
            raise BadPlan(f"headers file, line {number}: an object of strings is accepted")
        found.append(tuple(told.items()))
    return tuple(found)


def _show_progress(row: SecondRow) -> None:
    p99 = "" if row.p99_ms is None else f", p99 {row.p99_ms:.1f} ms"
    line = f"{row.second + 1} s: {row.answered} answered, {row.failed} failed{p99}"
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress


if __name__ == "__main__":
    sys.exit(main())

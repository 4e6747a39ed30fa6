"""From a CSV file to traffic. Accepted are one arrival per row, or counts per minute.

Arrivals: `t_s` (seconds from the start) or `TIMESTAMP` (ISO 8601, or Unix seconds), with `service_s`, or with
`ContextTokens` and `GeneratedTokens`, which make a service time of a + b x context + c x generated.
Counts: `minute_1`, `minute_2` ... in each row, spread over their minute by chance, the same in each run; rows
add up.
"""

import csv
import datetime as dt
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from appliance.simulate.plant import Traffic

MAX_REQUESTS = 5_000_000
MAX_DURATION_S = 31 * 86_400.0
MAX_SERVICE_S = 3600.0
_MINUTE = re.compile(r"minute_(\d+)")


class BadTrace(ValueError):
    """The file is not a trace; the text says where, what stands there, and what is accepted."""


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """a + b x context tokens + c x generated tokens, in seconds."""

    a: float = 0.05
    b: float = 0.0004
    c: float = 0.004

    def of(self, context: float, generated: float) -> float:
        """Seconds that such a request executes."""
        return self.a + self.b * context + self.c * generated


def read_traffic(path: Path, service: ServiceTime, row: int | None = None) -> Traffic:
    """Read a file; of counts per minute only the `row`-th (from 1) where named. Raises BadTrace, OSError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _Reader(path, file, service).read(row)
    except UnicodeDecodeError as error:
        raise BadTrace(f"{path} is not UTF-8 text ({error.reason}): a CSV file is accepted") from None
    except csv.Error as error:
        raise BadTrace(f"{path} is not CSV: {error}") from None


class _Reader:
    def __init__(self, path: Path, file: IO[str], service: ServiceTime) -> None:
        self._path = path
        self._rows = csv.DictReader(file, skipinitialspace=True)
        self._names = [name.strip() for name in self._rows.fieldnames or ()]
        self._rows.fieldnames = self._names
        self._service = service

    def read(self, row: int | None) -> Traffic:
        minutes = [name for name in self._names if _MINUTE.fullmatch(name)]
        if "t_s" in self._names or "TIMESTAMP" in self._names:
            if row is not None:
                raise BadTrace(
                    f"{self._path} has one arrival per row: a row can be chosen of counts per minute"
                )
            pairs = list(self._arrivals())
            pairs.sort()
            if "t_s" not in self._names and pairs:
                first = pairs[0][0]
                pairs = [(at - first, service_s) for at, service_s in pairs]
            duration_s = pairs[-1][0] if pairs else 0.0
        elif minutes:
            self._check_minutes(minutes)
            pairs = sorted(self._counts(minutes, row))
            duration_s = 60.0 * len(minutes)
        else:
            raise BadTrace(
                f"{self._path} line 1: columns {', '.join(self._names[:6]) or 'none'}: one of t_s, "
                "TIMESTAMP or minute_1, minute_2 ... is accepted"
            )
        if not pairs:
            raise BadTrace(f"{self._path} holds no request: at least one arrival is accepted")
        if duration_s > MAX_DURATION_S:
            raise BadTrace(
                f"{self._path} lasts {duration_s:g} s: at most {MAX_DURATION_S:g} s (31 days) is accepted; "
                "t_s counts from the start of the trace"
            )
        return Traffic(self._path.stem, [at for at, _ in pairs], [s for _, s in pairs], duration_s)

    def _lines(self) -> Iterator[tuple[int, Mapping[str, str | None]]]:
        for line in self._rows:
            if any(isinstance(value, list) for value in line.values()):
                raise self._bad("row", "more values than columns", f"{len(self._names)} values")
            yield self._rows.line_num, line

    def _arrivals(self) -> Iterator[tuple[float, float]]:
        column = "t_s" if "t_s" in self._names else "TIMESTAMP"
        for number, (_, line) in enumerate(self._lines(), 1):
            if number > MAX_REQUESTS:
                raise self._bad(column, f"request {number}", f"at most {MAX_REQUESTS} requests")
            if column == "t_s":
                at = self._number(line, column, 0.0, math.inf, "seconds from 0 on")
            else:
                at = self._timestamp(line[column])
            yield at, self._service_s(line)

    def _counts(self, minutes: Sequence[str], row: int | None) -> Iterator[tuple[float, float]]:
        total, found = 0, 0
        for number, (_, line) in enumerate(self._lines(), 1):
            if row is not None and number != row:
                continue
            found += 1
            rng = random.Random(number)  # noqa: S311 - a spread that is the same each time, no secret
            service_s = self._service_s(line)
            for minute, name in enumerate(minutes):
                count = self._number(line, name, 0, MAX_REQUESTS, "a whole number from 0 on", whole=True)
                total += int(count)
                if total > MAX_REQUESTS:
                    raise self._bad(name, f"{total} requests so far", f"at most {MAX_REQUESTS} requests")
                yield from ((60.0 * (minute + rng.random()), service_s) for _ in range(int(count)))
        if row is not None and not found:
            raise BadTrace(f"{self._path} has no row {row}: rows count from 1, without the header")

    def _check_minutes(self, minutes: Sequence[str]) -> None:
        for expected, name in enumerate(minutes, 1):
            if name != f"minute_{expected}":
                raise BadTrace(f"{self._path} line 1: column {name!r}: minute_{expected} is accepted there")

    def _service_s(self, line: Mapping[str, str | None]) -> float:
        if "service_s" in self._names:
            return self._number(
                line, "service_s", 0.0, MAX_SERVICE_S, f"seconds above 0, at most {MAX_SERVICE_S:g}"
            )
        if "ContextTokens" not in self._names and "GeneratedTokens" not in self._names:
            return self._service.a
        tokens = [
            self._number(line, name, 0, 1e9, "a number of tokens from 0 on") if name in self._names else 0.0
            for name in ("ContextTokens", "GeneratedTokens")
        ]
        return self._service.of(tokens[0], tokens[1])

    def _number(
        self,
        line: Mapping[str, str | None],
        name: str,
        low: float,
        high: float,
        accepted: str,
        *,
        whole: bool = False,
    ) -> float:
        text = line[name]
        try:
            value = float(text or "")
        except ValueError:
            raise self._bad(name, text, accepted) from None
        too_low = value <= low if name == "service_s" else value < low
        if not math.isfinite(value) or too_low or value > high or (whole and value % 1):
            raise self._bad(name, text, accepted)
        return value

    def _timestamp(self, text: str | None) -> float:
        given = (text or "").strip()
        try:
            return float(given)
        except ValueError:
            pass
        try:  # more than microseconds are cut off
            at = dt.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", given))
        except ValueError:
            accepted = "a time such as 2023-11-16 18:17:03.97, or Unix seconds,"
            raise self._bad("TIMESTAMP", text, accepted) from None
        return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()

    def _bad(self, name: str, value: object, accepted: str) -> BadTrace:
        said = "nothing" if value in (None, "") else repr(value)
        return BadTrace(f"{self._path} line {self._rows.line_num}: {name} {said}: {accepted} is accepted")

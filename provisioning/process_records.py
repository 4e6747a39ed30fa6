"""Which local agents were started, as files: one record per agent.

<home>/run/agents/<agent>.json = {"agent":"minilm-3fa9c1","pid":812,"create_time":1790000000.1,...}
"""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One start of an agent. `create_time` in seconds since the epoch; `exit_code` once it is known."""

    agent: str
    pid: int
    create_time: float
    exit_code: int | None = None


def write_record(path: Path, record: ProcessRecord) -> None:
    """Replace the record atomically."""
    write_file(path, json.dumps(asdict(record)).encode())


def read_record(path: Path) -> ProcessRecord | None:
    """The record, or None where there is none or it cannot be understood."""
    try:
        given = json.loads(path.read_bytes())
        exit_code = given["exit_code"]
        return ProcessRecord(
            str(given["agent"]), int(given["pid"]), float(given["create_time"]),
            None if exit_code is None else int(exit_code),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_records(folder: Path) -> Iterator[ProcessRecord]:
    """Every record that can be understood, in the order of the agents' names."""
    for path in sorted(folder.glob("*.json")):
        record = read_record(path)
        if record is not None and record.agent == path.stem:
            yield record


def write_file(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

"""What an `up` that was killed left behind: recorded while it ran, ended by the next one."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from appliance.supervisor.programs import ProcessIdentity

RECORD = "up.json"


class AlreadyRunningError(Exception):
    """Another `up` holds this state directory."""


def lock_home(run_dir: Path) -> IO[str]:
    """Take the lock that one `up` holds; it ends with the process, however that ends.

    Raises AlreadyRunningError where another process holds it.
    """
    file = (run_dir / "up.lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read(32).strip() or "unknown"
        file.close()
        raise AlreadyRunningError(
            f"an appliance runs already with this APPLIANCE_HOME (process {holder})"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def write_record(run_dir: Path, identities: Iterable[ProcessIdentity]) -> None:
    """Remember which processes run, for an `up` after this one."""
    path = run_dir / RECORD
    staged = path.with_suffix(".staged")
    staged.write_text(json.dumps([[one.pid, one.create_time] for one in identities]), encoding="ascii")
    staged.replace(path)


def read_record(run_dir: Path) -> list[ProcessIdentity]:
    """The processes that the last `up` recorded; none where there is no record that can be read."""
    try:
        return [
            ProcessIdentity(int(pid), float(create_time))
            for pid, create_time in json.loads((run_dir / RECORD).read_text(encoding="ascii"))
        ]
    except (OSError, ValueError, TypeError):
        return []


def end_processes(identities: Iterable[ProcessIdentity], *, timeout_s: float) -> list[ProcessIdentity]:
    """SIGTERM, then after `timeout_s` SIGKILL. Returns those that had to be killed."""
    alive = [one for one in identities if one.is_alive()]
    for one in alive:
        one.send(signal.SIGTERM)
    alive = wait_gone(alive, timeout_s)
    for one in alive:
        one.send(signal.SIGKILL)
    wait_gone(alive, 2.0)
    return alive


def wait_gone(identities: Iterable[ProcessIdentity], timeout_s: float) -> list[ProcessIdentity]:
    """Wait until the processes are gone; returns those that are not by then."""
    deadline = time.monotonic() + timeout_s
    alive = [one for one in identities if one.is_alive()]
    while alive and time.monotonic() < deadline:
        time.sleep(0.02)
        alive = [one for one in alive if one.is_alive()]
    return alive

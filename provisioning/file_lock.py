"""A lock on a file, for processes and threads of one machine. The kernel frees it when its holder dies."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_POLL_S: Final = 0.02


class LockHeld(TimeoutError):
    """Another holds the lock, alive but too slow or stopped."""


@contextlib.contextmanager
def hold_lock(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock while inside; the file stays, for only then all lock the same one.

    Raises LockHeld after `timeout_s` seconds, OSError where the file cannot be opened.
    """
    until = time.monotonic() + timeout_s
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(handle):
            if time.monotonic() > until:
                raise LockHeld(f"another process held {path} for {timeout_s:.0f} s")
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

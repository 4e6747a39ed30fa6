"""Whether the `make` that started us was interrupted.

GNU make passes SIGTERM on to what it runs, but keeps a SIGINT that was sent to it alone and then
waits for its children for ever. While its handler waits, the kernel shows SIGINT as blocked.
"""

import os
import signal
from pathlib import Path


def make_was_interrupted(proc: Path = Path("/proc")) -> bool:
    """Whether our parent is a `make` that was sent SIGINT or SIGTERM; False where that cannot be seen."""
    status = proc / str(os.getppid()) / "status"
    try:
        fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        blocked = int(fields["SigBlk"], 16)
    except (OSError, KeyError, ValueError):
        return False
    wanted = 1 << (signal.SIGINT - 1) | 1 << (signal.SIGTERM - 1)
    return fields["Name"] in ("make", "gmake") and bool(blocked & wanted)

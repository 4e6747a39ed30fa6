"""Keeps logs bounded. Their writers append, so a log can be emptied under them."""

import shutil
from pathlib import Path

MAX_LOG_BYTES = 10 * 1024 * 1024


def rotate_logs(logs_dir: Path, max_bytes: int = MAX_LOG_BYTES) -> list[Path]:
    """Move what is in each log over the bound to `NAME.log.1`; returns the logs that were moved.

    The last lines written in between may be lost, which no program of ours would notice.
    """
    moved = []
    for log in logs_dir.rglob("*.log"):
        try:
            if log.stat().st_size > max_bytes:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                with log.open("r+b") as file:
                    file.truncate(0)
                moved.append(log)
        except FileNotFoundError:
            continue  # an agent was removed with its log
    return moved

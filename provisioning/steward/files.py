"""Files that appear whole or not at all, and folders that come and go."""

import os
import shutil
from pathlib import Path

from .errors import Refusal

#: Left free on the disk whatever is received.
RESERVE_BYTES = 64 * 1024 * 1024


def write_whole(path: Path, content: bytes, mode: int, group_id: int = -1) -> None:
    """Write a file in one step: it is the old one or the new one, also after a crash."""
    staged = path.with_name(f".{path.name}.staged-{os.getpid()}")
    staged.unlink(missing_ok=True)
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fchown(file.fileno(), -1, group_id)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    staged.replace(path)


def make_folder(path: Path, mode: int = 0o755, group_id: int = -1) -> None:
    """Make a folder of ours with exactly this mode."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, -1, group_id)
    path.chmod(mode)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; nothing happens where there is none."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raise Refusal (code `disk_full`) where the disk has not so much left, and some to spare."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + RESERVE_BYTES:
        raise Refusal(
            "disk_full",
            f"{needed_bytes + RESERVE_BYTES} bytes are needed under {folder}, {free} are free",
            "make room on the node's disk, or prune old releases and models",
        )


def sync_folder(path: Path) -> None:
    """Make names that were changed in a folder last through a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

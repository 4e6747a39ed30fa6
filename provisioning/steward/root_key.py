"""Takes the appliance's key out of root's authorized_keys, where a box without sudo has it."""

import os
from collections.abc import Collection
from pathlib import Path

from .files import remove
from .places import ROOT_KEY_BEGINS, Places


def remove_root_key(places: Places, made: Collection[str]) -> None:
    """Leave root's keys byte for byte as they were without ours.

    `made` says what of `keys` and `folder` enrolment created: that goes, too, unless others use it by now.
    """
    path = places.root_keys
    staged = path.resolve().with_name(
        "authorized_keys.millwright"
    )  # also what a cut first contact may have left
    remove(staged)
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    lines = content.splitlines(keepends=True)
    others = b"".join(line for line in lines if not line.startswith(ROOT_KEY_BEGINS.encode()))
    if "keys" in made and not others:
        remove(path)
    elif others != content:
        _rewrite(path.resolve(), staged, others)
    if "folder" in made and path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()


def _rewrite(path: Path, staged: Path, content: bytes) -> None:
    """Replace a file in one step; mode and owner stay."""
    was = path.stat()
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fchown(file.fileno(), was.st_uid, was.st_gid)
        os.fchmod(file.fileno(), was.st_mode & 0o7777)
        os.fsync(file.fileno())
    staged.replace(path)

"""Secrets in files of the state directory. Standard library only."""

import os
import secrets
from pathlib import Path


def read_or_create_secret(path: Path, *, bits: int = 256) -> str:
    """The secret in `path`; where there is none yet a random one is written first (mode 0600).

    Two processes that start at once get the same one. Raises OSError where the file can be neither
    read nor written.
    """
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        pass
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    write_private(staged, secrets.token_urlsafe(bits // 8).encode() + b"\n")
    try:
        os.link(staged, path)  # fails where another process was first
    except FileExistsError:
        pass
    finally:
        staged.unlink()
    return path.read_text(encoding="ascii").strip()


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, replacing what was there in one step."""
    staged = path.with_name(f".{path.name}.staged-{os.getpid()}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)

"""Where a gateway's inner listener is, for both sides of it. Standard library only.

The socket is `NAME.sock` in the run directory, mode 0600. A Unix socket's address holds about
100 bytes, and a state directory may lie deeper than that: such a path is reached through an open
descriptor of the directory (`/proc/self/fd/N/NAME.sock`).
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".sock"
_LONGEST_ADDRESS_BYTES = 100
_NAME = re.compile(r"gateway[A-Za-z0-9._-]{0,40}")


class InnerSocketTaken(Exception):
    """Another process answers on this gateway's inner socket; the message is for the operator."""


def check_name(name: str) -> str:
    """The name itself, where a gateway may have it. Raises ValueError saying what is accepted."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no gateway name: 'gateway' is accepted, followed by up to 40 letters, "
            "digits, '.', '_' and '-', for example gateway-1"
        )
    return name


def inner_socket_path(run_dir: Path, name: str) -> Path:
    """The file of the inner socket of the gateway called `name`."""
    return run_dir / f"{check_name(name)}{SUFFIX}"


def gateway_names(run_dir: Path) -> tuple[str, ...]:
    """Names of all gateways that have a socket file here, alive or not."""
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in run_dir.glob(f"gateway*{SUFFIX}")))


def connect_inner(run_dir: Path, name: str, timeout_s: float = 1.0) -> socket.socket:
    """A connected stream of NDJSON lines; blocking with `timeout_s`. Raises OSError where none listens."""
    return _connect(inner_socket_path(run_dir, name), timeout_s)


def bind_inner(run_dir: Path, name: str) -> socket.socket:
    """Listen as the gateway called `name`; what a dead one left behind is replaced.

    The directory is made (0700) where it is missing. Raises InnerSocketTaken, OSError.
    """
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = inner_socket_path(run_dir, name)
    if path.exists():
        try:
            _connect(path, timeout_s=0.5).close()
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        else:
            raise InnerSocketTaken(f"a gateway named {name!r} is already running here ({path})")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as address:
            listener.bind(address)
        path.chmod(0o600)  # nobody connects before: it does not listen yet, and the directory is 0700
        listener.listen(32)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _connect(path: Path, timeout_s: float) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.settimeout(timeout_s)
        with _short(path) as address:
            stream.connect(address)
    except OSError:
        stream.close()
        raise
    return stream


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """An address for `path` that fits, valid inside the block."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)

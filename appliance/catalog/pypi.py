"""Fetching one wheel with pip, as pip is configured on this machine."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.catalog.errors import CatalogError, disk_errors
from appliance.catalog.sources import PypiSource

TIMEOUT_S: Final = 1800.0
_POLL_S: Final = 0.1
_TAIL_LINES: Final = 40
_LOG_BYTES: Final = 4 * 1024**2
_SIZE: Final = re.compile(r"Downloading \S+ \((?P<number>[\d.]+) (?P<unit>bytes|kB|MB|GB)\)")
_UNITS: Final = {"bytes": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
_NO_NETWORK: Final = (
    "NewConnectionError", "NameResolutionError", "ConnectTimeoutError",
    "Failed to establish a new connection", "ProxyError", "Temporary failure in name resolution",
    "ReadTimeoutError", "Connection refused",
)  # fmt: skip
_PR_SET_PDEATHSIG: Final = 1

#: Told what has arrived so far and what is expected in all (0 while unknown), in bytes.
OnBytes = Callable[[int, int], None]


def download_wheel(
    source: PypiSource,
    folder: Path,
    on_bytes: OnBytes = lambda _have, _expected: None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> Path:
    """Download the package's wheel, without its dependencies, into `folder` and return its path.

    Raises CatalogError where there is no such wheel, no network, no space, or no pip.
    """
    target, scratch, log = folder / "wheel", folder / "tmp", folder / "pip.log"
    with disk_errors("the package cannot be downloaded", folder):
        target.mkdir(parents=True)
        scratch.mkdir()
        pip = _start_pip(source.requirement, target, scratch, log)

        def report() -> None:
            on_bytes(_bytes_below(scratch) + _bytes_below(target), _expected_bytes(log))

        code = _wait_for(pip, source.requirement, timeout_s, log, report)
        wheels = sorted(target.glob("*.whl"))
    if code != 0 or len(wheels) != 1:
        raise _explain(source, _tail(log), code)
    return wheels[0]


def _start_pip(requirement: str, target: Path, scratch: Path, log: Path) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
        "--no-color", "--disable-pip-version-check", "--progress-bar", "off", "--dest", str(target),
        requirement,
    ]  # fmt: skip
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - a checked requirement, no shell
            command,
            env={**os.environ, "TMPDIR": str(scratch)},  # what has arrived can be seen there
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - this process has no other threads
        )


def _wait_for(
    pip: "subprocess.Popen[bytes]", requirement: str, timeout_s: float, log: Path, report: Callable[[], None]
) -> int:
    """Wait for pip's end and return its exit code; it never outlives this call."""
    until = time.monotonic() + timeout_s
    try:
        while True:
            try:
                return pip.wait(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                report()
            if time.monotonic() > until or log.stat().st_size > _LOG_BYTES:
                raise CatalogError(
                    f"downloading {requirement} was given up after {timeout_s:.0f} s, or for too much output",
                    "look at the network and at pip's configuration, then import again",
                    permanent=False,
                )
    finally:
        if pip.poll() is None:
            pip.kill()
            pip.wait()


def _end_with_parent() -> None:
    """In the child: be killed when the import is, so that no download goes on for nobody (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size  # noqa: PTH116, PTH118 - no object per file
            except FileNotFoundError:
                continue  # pip moved it on
    return total


def _expected_bytes(log: Path) -> int:
    found = _SIZE.search(_tail(log))
    return int(float(found["number"]) * _UNITS[found["unit"]]) if found else 0


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 64 * 1024))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(deque(lines, maxlen=_TAIL_LINES))


def _explain(source: PypiSource, output: str, code: int) -> CatalogError:
    """One line for the operator from what pip said."""
    wanted = source.requirement
    if "No module named pip" in output:
        return CatalogError("this Python has no pip", f"install it: {sys.executable} -m ensurepip")
    if "No space left on device" in output:
        return CatalogError(
            f"downloading {wanted}: no space left", "free some space and import again", permanent=False
        )
    if any(sign in output for sign in _NO_NETWORK):
        return CatalogError(
            f"downloading {wanted}: the package index does not answer",
            "look at the network and at pip's configuration (index-url, proxy), or import from a directory",
            permanent=False,
        )
    if "No matching distribution found" in output or "Could not find a version" in output:
        return CatalogError(
            f"the package index has no wheel of {wanted}",
            "check the name and version; only wheels are accepted",
        )
    errors = [line for line in output.splitlines() if line.startswith("ERROR")] or output.splitlines()
    said = errors[-1][:300] if errors else "nothing"
    return CatalogError(f"downloading {wanted}: pip ended with {code} and said: {said}", permanent=False)

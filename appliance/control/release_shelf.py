"""Releases for nodes, built beside the loop: a build may take a minute, and no tick waits for it."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from provisioning.bundle import Release
from provisioning.errors import ProvisioningError

Build = Callable[[Path, str, str], Release]

log = logging.getLogger(__name__)


class ReleaseShelf:
    """The newest release for each Python and processor. Thread-safe; `wanted` returns at once."""

    def __init__(self, folder: Path, build: Build) -> None:
        self._folder = folder
        self._build = build
        self._lock = threading.Lock()
        self._built: dict[tuple[str, str], Release | ProvisioningError] = {}
        self._under_way: set[tuple[str, str]] = set()

    def wanted(self, python: str, arch: str) -> Release | ProvisioningError | None:
        """The release, why there is none, or None while it is being built. An error is told once."""
        key = (".".join(python.split(".")[:2]), arch)
        with self._lock:
            found = self._built.get(key)
            if isinstance(found, Release) and found.path.is_file():
                return found
            if found is not None:
                del self._built[key]
            if isinstance(found, ProvisioningError):
                return found
            if key not in self._under_way:
                self._under_way.add(key)
                threading.Thread(target=self._make, args=key, name="release", daemon=True).start()
        return None

    def digests(self) -> frozenset[str]:
        """What is here and was asked for."""
        with self._lock:
            return frozenset(one.sha256 for one in self._built.values() if isinstance(one, Release))

    def _make(self, python: str, arch: str) -> None:
        made: Release | ProvisioningError
        try:
            made = self._build(self._folder, python, arch)
        except ProvisioningError as error:
            log.warning("no release for Python %s on %s: %s", python, arch, error)
            made = error
        except Exception as error:
            log.exception("no release for Python %s on %s", python, arch)
            made = ProvisioningError(f"no release could be built: {type(error).__name__}")
        with self._lock:
            self._built[python, arch] = made
            self._under_way.discard((python, arch))

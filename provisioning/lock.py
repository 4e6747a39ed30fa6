"""A hashed requirements lock, read for a target that is not this machine. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.markers import Marker

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\]*))?")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Locked:
    """One line of a lock: a version of a package, for which targets ('' all), and its wheels' hashes."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def parse_lock(text: str) -> list[Locked]:
    """Read a lock. Raises ValueError naming a line that is none."""
    joined = text.replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        stripped = line.split(" #")[0].strip()
        if not stripped or stripped.startswith("#"):
            continue
        head = stripped.split("--hash", 1)[0]
        match = _LINE.fullmatch(head.strip())
        if match is None:
            raise ValueError(f"not understood in the lock: {head[:100]!r}")
        hashes = tuple(_HASH.findall(stripped))
        found.append(Locked(match["name"], match["version"], (match["marker"] or "").strip(), hashes))
    return found


def pip_requirements(locked: Iterable[Locked], names: Iterable[str], python: str, arch: str) -> str:
    """What pip installs of these packages for that target, as hashed lines without markers.

    pip reads markers for the machine it runs on, whatever target it is told, so they are read here.
    """
    wanted = set(names)
    target = environment(python, arch)
    lines = [
        " ".join([f"{one.name}=={one.version}", *(f"--hash={digest}" for digest in one.hashes)])
        for one in locked
        if one.name in wanted and (not one.marker or Marker(one.marker).evaluate(target))
    ]
    return "\n".join(lines) + "\n"


def environment(python: str, arch: str) -> dict[str, str]:
    """Marker values of a Linux node."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": arch,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }

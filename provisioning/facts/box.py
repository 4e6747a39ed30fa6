"""What first contact learns of a box: the answer to `commands/probe.py`, parsed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from provisioning.commands.probe import MARK
from provisioning.errors import printable
from provisioning.facts.cpu import parse_cpu
from provisioning.facts.hardware import Hardware
from provisioning.facts.memory import AMOUNT, parse_ram_bytes
from provisioning.facts.operating_system import parse_os_name

_MAX_CORES: Final = 8192
_MAX_FLAGS: Final = 1000
_MAX_FLAG: Final = 40
_MAX_TEXT: Final = 200
_PYTHON: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){1,2}[a-z0-9+]{0,16}")
_CLOCK: Final = re.compile(r"[0-9]{1,12}(\.[0-9]*)?")
_VERSION: Final = re.compile(r"glibc ([0-9]{1,3})\.([0-9]{1,3})(\..*)?")


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file as it is: its SHA-256, its mode in octal, and the number of its owner."""

    sha256: str
    mode: str
    owner: str


@dataclass(frozen=True, slots=True)
class Account:
    """A line of the password file; `number` is -1 where it is none."""

    home: str
    shell: str
    number: int


@dataclass(frozen=True, slots=True)
class BoxFacts:
    """A box before anything is done to it. None and '' stand for what could not be learned.

    `libc` is a version such as (2, 36); `clock_s` is the box's own time since 1970; `root_keys` are
    the lines of root's authorized_keys that open a steward.
    """

    hardware: Hardware
    libc: tuple[int, int] | None
    init: str
    disk_free_bytes: int | None
    clock_s: float | None
    sudo: str
    accounts: Mapping[str, Account]
    files: Mapping[str, FileFact]
    root_keys: tuple[str, ...] = ()


def parse_box(text: str) -> BoxFacts:
    """Read the answer to `probe`. Nothing is taken for granted: what is not understood stays empty."""
    sections = _sections(text)
    python, libc = [*sections["python"].splitlines(), "", ""][:2]
    return BoxFacts(
        hardware=parse_hardware(sections, python.strip()),
        libc=parse_libc(libc),
        init=sections["init"].strip(),
        disk_free_bytes=_parse_free(sections["disk"]),
        clock_s=_parse_clock(sections["clock"]),
        sudo=sections["sudo"].strip(),
        accounts=_parse_accounts(sections["accounts"]),
        files=_parse_files(sections["files"]),
        root_keys=tuple(sections["root_keys"].strip().splitlines()),
    )


def parse_hardware(sections: Mapping[str, str], python: str) -> Hardware:
    """The machine, from texts named cpuinfo, meminfo, os_release and arch: untrusted, so bounded here."""
    cpu = parse_cpu(sections["cpuinfo"])
    return Hardware(
        cores_physical=min(cpu.cores_physical, _MAX_CORES),
        cores_logical=min(cpu.cores_logical, _MAX_CORES),
        ram_bytes=parse_ram_bytes(sections["meminfo"]),
        cpu_model=_text(cpu.model),
        flags=tuple(_text(flag[:_MAX_FLAG]) for flag in cpu.flags[:_MAX_FLAGS]),
        arch=_text(sections["arch"].strip()),
        os=_text(parse_os_name(sections["os_release"])),
        python=python if _PYTHON.fullmatch(python) else "",
        cores_first_threads=cpu.first_threads[:_MAX_CORES],
    )


def parse_libc(text: str) -> tuple[int, int] | None:
    """(2, 36) of `glibc 2.36`; None for any other C library."""
    found = _VERSION.fullmatch(text.strip())
    return (int(found[1]), int(found[2])) if found else None


class _Sections(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


def _sections(text: str) -> _Sections:
    found = _Sections()
    for part in text.split(f"\n{MARK}")[1:]:
        name, _, body = part.partition("\n")
        found.setdefault(name.strip(), body)
    return found


def _parse_free(text: str) -> int | None:
    """Fourth column of `df -Pk`."""
    words = text.split()
    return int(words[3]) * 1024 if len(words) >= 6 and AMOUNT.fullmatch(words[3]) else None


def _parse_clock(text: str) -> float | None:
    return float(text) if _CLOCK.fullmatch(text.strip()) else None


def _text(text: str) -> str:
    return printable(text[:_MAX_TEXT])


def _parse_accounts(text: str) -> dict[str, Account]:
    rows = (line.split(":") for line in text.splitlines())
    return {
        row[0]: Account(row[5], row[6], int(row[2]) if AMOUNT.fullmatch(row[2]) else -1)
        for row in rows
        if len(row) == 7
    }


def _parse_files(text: str) -> dict[str, FileFact]:
    digests: dict[str, str] = {}
    found: dict[str, FileFact] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and len(words[0]) == 64:
            digests[words[1]] = words[0]
        elif len(words) == 3:
            mode, owner, path = words
            found[path] = FileFact(digests.get(path, ""), mode, owner)
    return found

"""All that placement and calibration need to know about a machine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine as it is. 0 or an empty text stands for what could not be learned.

    `flags` are the instruction set's, sorted; `arch` is as `uname -m` says (`x86_64`, `aarch64`);
    `python` is a version such as `3.11.7`; `os` is a name for people. `cores_first_threads` are the numbers
    of one hardware thread of each core, for binding to; () where cores have one each, or it cannot be told.
    """

    cores_physical: int
    cores_logical: int
    ram_bytes: int
    cpu_model: str
    flags: tuple[str, ...]
    arch: str
    os: str
    python: str
    cores_first_threads: tuple[int, ...] = ()

"""What `/proc/cpuinfo` says of the processor, on x86 and on Arm."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SOURCE = "/proc/cpuinfo"
_NUMBER: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor: its cores, its name for people ('' where unknown), its flags, sorted.

    `first_threads` are the numbers of the first hardware thread of each core, sorted; () where each core
    has but one, or where that cannot be told.
    """

    cores_physical: int
    cores_logical: int
    model: str
    flags: tuple[str, ...]
    first_threads: tuple[int, ...] = ()


def parse_cpu(text: str) -> Cpu:
    """Read `/proc/cpuinfo`.

    Hyper-threads share a (physical id, core id) pair: 8 processors with 4 such pairs are 4
    physical cores. Arm and some virtual machines name no cores: there each processor counts.
    """
    processors = [block for block in _blocks(text) if "processor" in block]
    cores = {(block.get("physical id"), block["core id"]) for block in processors if "core id" in block}
    logical = len(processors)
    physical = len(cores) if all("core id" in block for block in processors) else logical
    flags = sorted(set((_first(processors, ("flags", "Features"))).split()))
    model = _first(processors, ("model name", "Model", "cpu model"))
    first_threads = _first_threads(processors) if physical < logical else ()
    return Cpu(physical, logical, " ".join(model.split()), tuple(flags), first_threads)


def _first_threads(processors: Iterable[dict[str, str]]) -> tuple[int, ...]:
    found: dict[tuple[str | None, str], int] = {}
    for block in processors:
        if not _NUMBER.fullmatch(block["processor"]):
            return ()
        number = int(block["processor"])
        core = (block.get("physical id"), block["core id"])
        found[core] = min(number, found.get(core, number))
    return tuple(sorted(found.values()))


def _blocks(text: str) -> Iterable[dict[str, str]]:
    for paragraph in text.split("\n\n"):
        pairs = (line.partition(":") for line in paragraph.splitlines() if ":" in line)
        yield {name.strip(): value.strip() for name, _, value in pairs}


def _first(blocks: Iterable[dict[str, str]], names: Iterable[str]) -> str:
    wanted = tuple(names)
    return next((block[name] for block in blocks for name in wanted if block.get(name)), "")

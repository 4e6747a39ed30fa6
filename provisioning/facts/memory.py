"""How much memory `/proc/meminfo` says there is."""

import re
from typing import Final

SOURCE = "/proc/meminfo"
#: A number as machines say it: none that a row could not keep.
AMOUNT: Final = re.compile(r"[0-9]{1,15}")


def parse_ram_bytes(text: str) -> int:
    """The machine's memory in bytes, from `MemTotal:  16316416 kB`; 0 where that line is missing."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if name == "MemTotal" and len(words) == 2 and AMOUNT.fullmatch(words[0]) and words[1] == "kB":
            return int(words[0]) * 1024
    return 0

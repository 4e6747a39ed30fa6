"""How much memory `/proc/meminfo` says there is."""

SOURCE = "/proc/meminfo"


def parse_ram_bytes(text: str) -> int:
    """The machine's memory in bytes, from `MemTotal:  16316416 kB`; 0 where that line is missing."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if name == "MemTotal" and len(words) == 2 and words[0].isdigit() and words[1] == "kB":
            return int(words[0]) * 1024
    return 0

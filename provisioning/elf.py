"""Shared libraries without what only debuggers read. Pure.

Wheels carry debug information and symbol tables: of ctranslate2's extension module, 68 MB, 1.3 MB are code. A
program is loaded by its segments alone; what lies in none of them may go (System V ABI, chapter 5). It is
blanked, not moved: every offset stays as it is, and zeros cost next to nothing once they are packed.
"""

import struct
from typing import Final

_MAGIC: Final = b"\x7fELF\x02\x01"  # 64 bits, little-endian: x86_64 and aarch64
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")


def keep_segments(content: bytes) -> bytes:
    """The library without section headers, blank between its segments, cut after the last one.

    Anything that is no such library, or does not hold all that it says, comes back as it is.
    """
    if not content.startswith(_MAGIC) or len(content) < _HEADER.size:
        return content
    fields = list(_HEADER.unpack_from(content))
    table, size, count = fields[5], fields[9], fields[10]
    table_end = table + size * count
    if size != _SEGMENT.size or not count or table_end > len(content):
        return content
    kept = [(_HEADER.size, _HEADER.size), (table, table_end)]
    for number in range(count):
        segment = _SEGMENT.unpack_from(content, table + number * size)
        kept.append((segment[2], segment[2] + segment[5]))
    end = max(stop for _, stop in kept)
    if end > len(content):
        return content
    blank = bytearray(end)
    for start, stop in kept:
        blank[start:stop] = content[start:stop]
    fields[6] = fields[12] = fields[13] = 0  # section headers: where, how many, which has the names
    blank[: _HEADER.size] = _HEADER.pack(*fields)
    return bytes(blank)

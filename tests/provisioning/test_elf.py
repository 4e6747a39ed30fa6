"""Shared libraries keep what a loader reads, and nothing else."""

import ctypes
import os
import struct
import sysconfig
from pathlib import Path

import msgspec
import pytest

from provisioning.elf import keep_segments

LIBRARY = Path(msgspec._core.__file__)


def test_a_library_loads_and_works_without_its_sections(tmp_path):
    """A real extension module is no larger than before, and its code answers as it did."""
    content = LIBRARY.read_bytes()
    slim = keep_segments(content)
    assert len(slim) <= len(content)
    assert struct.unpack_from("<Q", slim, 40) == (0,)
    copy = tmp_path / f"slim{sysconfig.get_config_var('EXT_SUFFIX')}"
    copy.write_bytes(slim)
    loaded = ctypes.PyDLL(str(copy), mode=os.RTLD_LOCAL)
    assert loaded.PyInit__core is not None


def test_what_lies_between_segments_is_blank():
    """Bytes that no segment covers become zeros; those of segments stay; the end is cut off."""
    segment = struct.pack("<IIQQQQQQ", 1, 4, 200, 0, 0, 8, 8, 1)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 64, 999, 0, 64, 56, 1, 64, 9, 8
    )
    content = (head + segment).ljust(200, b"d") + b"segment!" + b"debug" * 50
    slim = keep_segments(content)
    assert len(slim) == 208
    assert slim[200:] == b"segment!"
    assert slim[120:200] == bytes(80)
    assert slim[64:120] == segment
    assert struct.unpack_from("<Q", slim, 40) == (0,)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x7fELF", b"no library", b"\x7fELF\x01\x01" + bytes(100), LIBRARY.read_bytes()[:5000]],
    ids=["empty", "cut", "text", "32-bit", "half"],
)
def test_anything_else_stays_as_it_is(content):
    """What is no whole 64-bit library is not touched."""
    assert keep_segments(content) is content

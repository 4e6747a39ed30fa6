"""The parts of the harness that only read text or bytes."""

import struct
from pathlib import Path

import pytest
import slow_link
from fleet_groups import find_hierarchies, wait_until
from fleet_trees import find_mirror

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
PURE = """\
27 1 254:0 / / rw - ext4 /dev/vda rw
30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""


@pytest.mark.parametrize(
    ("text", "unified", "cpu", "joined"),
    [
        (HYBRID, "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu,cpuacct", 3),
        (PURE, "/sys/fs/cgroup", None, 1),
        ("27 1 254:0 / / rw - ext4 /dev/vda rw\n", None, None, 0),
    ],
    ids=["v1 and v2", "v2 alone", "none"],
)
def test_hierarchies(text, unified, cpu, joined):
    """Control groups are found wherever the machine has them mounted."""
    found = find_hierarchies(text)
    assert found[:2] == (unified and Path(unified), cpu and Path(cpu))
    assert len(found[2]) == joined


@pytest.mark.parametrize(
    ("targets", "mirror"),
    [
        ("http://a.example/debian/ bookworm\nhttp://b.example/debian/ trixie\n", "http://a.example/debian"),
        (
            "https://b.example/node_20.x/ nodistro\nhttps://c.example/debian/ trixie-updates\n",
            "https://c.example/debian",
        ),
        ("http://a.example/debian-security/ bookworm-security\n", None),
        ("mirror+file:/etc/apt/mirrors/debian.list bookworm\n", None),
        ("", None),
    ],
    ids=["two mirrors", "others before it", "security alone", "a list of mirrors", "no apt"],
)
def test_mirror(targets, mirror):
    """The mirror is the one that this machine's own packages come from."""
    assert find_mirror(targets) == mirror


def test_packet_numbers():
    """Several announcements in one datagram are all read, whatever other attributes they carry."""

    def announced(number):
        header = slow_link.attribute(slow_link.ATTRIBUTE_PACKET, struct.pack("!IHB", number, 0x800, 1))
        return slow_link.message(slow_link.PACKET, slow_link.attribute(5, b"abc") + header)

    other = slow_link.message(slow_link.CONFIG, b"")
    assert list(slow_link.packet_numbers(announced(7) + other + announced(1 << 31))) == [7, 1 << 31]
    assert list(slow_link.packet_numbers(b"\0" * 8)) == []


def test_waiting_is_bounded():
    """A condition that never comes is named in the error."""
    with pytest.raises(TimeoutError, match=r"0\.01 s in vain for rain"):
        wait_until(lambda: False, 0.01, "rain")

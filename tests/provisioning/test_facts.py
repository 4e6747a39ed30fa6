"""Facts of machines, parsed from text."""

import pytest

from provisioning.facts.cpu import Cpu, parse_cpu
from provisioning.facts.memory import parse_ram_bytes
from provisioning.facts.operating_system import parse_os_name


def x86(processor, package, core, flags="fpu avx2 avx512_vnni"):
    return (
        f"processor\t: {processor}\nmodel name\t: Intel(R)  Xeon(R) CPU\nphysical id\t: {package}\n"
        f"core id\t\t: {core}\nflags\t\t: {flags}\n\n"
    )


ARM = "processor\t: {}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd dotprod\nCPU implementer\t: 0x41\n\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "".join(x86(number, 0, number % 2) for number in range(4)),
            Cpu(2, 4, "Intel(R) Xeon(R) CPU", ("avx2", "avx512_vnni", "fpu"), (0, 1)),
            id="hyper-threads share cores",
        ),
        pytest.param(
            "".join(x86(number, number // 4, number // 2 % 2) for number in reversed(range(8))),
            Cpu(4, 8, "Intel(R) Xeon(R) CPU", ("avx2", "avx512_vnni", "fpu"), (0, 2, 4, 6)),
            id="threads of a core side by side, on two packages",
        ),
        pytest.param(
            "".join(x86(number, 0, core) for number, core in enumerate([0, 1, 2, 3, 0, 1])),
            Cpu(4, 6, "Intel(R) Xeon(R) CPU", ("avx2", "avx512_vnni", "fpu"), (0, 1, 2, 3)),
            id="only some cores have two threads",
        ),
        pytest.param(
            x86("zero", 0, 0) + x86("one", 0, 0),
            Cpu(1, 2, "Intel(R) Xeon(R) CPU", ("avx2", "avx512_vnni", "fpu")),
            id="processors without numbers",
        ),
        pytest.param(
            "".join(x86(number, number, 0) for number in range(2)),
            Cpu(2, 2, "Intel(R) Xeon(R) CPU", ("avx2", "avx512_vnni", "fpu")),
            id="two packages with the same core number",
        ),
        pytest.param(
            ARM.format(0) + ARM.format(1) + "Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 4\n",
            Cpu(2, 2, "", ("asimd", "dotprod", "fp")),
            id="arm names no cores",
        ),
        pytest.param(
            "processor : 0\nmodel name : QEMU Virtual CPU\nflags : sse2\n\nprocessor : 1\n",
            Cpu(2, 2, "QEMU Virtual CPU", ("sse2",)),
            id="virtual machine without core ids",
        ),
        pytest.param("", Cpu(0, 0, "", ()), id="nothing"),
        pytest.param("garbage\n:::\n\n\n", Cpu(0, 0, "", ()), id="garbage"),
    ],
)
def test_parse_cpu(text, expected):
    """Cores, model and flags are read from /proc/cpuinfo as it looks on different machines."""
    assert parse_cpu(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("MemTotal:       16316416 kB\nMemFree: 1 kB\n", 16316416 * 1024, id="usual"),
        pytest.param("MemFree: 1 kB\n", 0, id="missing"),
        pytest.param("MemTotal: many kB\n", 0, id="no number"),
        pytest.param("", 0, id="nothing"),
    ],
)
def test_parse_ram(text, expected):
    """Memory is read in bytes; what cannot be read is 0."""
    assert parse_ram_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "Debian GNU/Linux 12 (bookworm)",
            id="pretty name",
        ),
        pytest.param("NAME=Alpine\nVERSION_ID=3.20\n", "Alpine 3.20", id="name and version"),
        pytest.param("# PRETTY_NAME=no\nNAME=Void\n", "Void", id="comment"),
        pytest.param('PRETTY_NAME="Open\n', "Open", id="quote that never closes"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_parse_os_name(text, expected):
    """The name for people is read from /etc/os-release, quotes removed."""
    assert parse_os_name(text) == expected

"""Facts of machines, parsed from text."""

import pytest

from provisioning.facts.box import parse_box, parse_hardware
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


def test_what_a_machine_says_is_bounded():
    """Texts are printable and short, lists and numbers such as a row can keep; a strange version is none."""
    texts = {
        "cpuinfo": x86("9" * 400, 0, 0, " ".join(f"{number:0100}" for number in range(3000)))
        + "".join(x86(number, 0, number % 9000) for number in range(18000)),
        "meminfo": f"MemTotal: {'9' * 400} kB\n",
        "os_release": "PRETTY_NAME='\x1b]0;owned\x07" + "x" * 1000 + "'\n",
        "arch": "\x1b[2Jx86_64\n",
    }
    hardware = parse_hardware(texts, "3.\u00b2")
    assert (hardware.cores_physical, hardware.cores_logical, hardware.ram_bytes) == (8192, 8192, 0)
    assert len(hardware.flags) == 1000
    assert max(map(len, hardware.flags)) == 40
    assert hardware.cores_first_threads == ()
    assert hardware.os.startswith(" ]0;owned x")
    assert (len(hardware.os), hardware.arch, hardware.python) == (200, " [2Jx86_64", "")


@pytest.mark.parametrize("python", ["3.11.2", "3.10", "3.13.0rc1", "3.12.0a7+"])
def test_versions_of_python(python):
    """Releases and what comes before them are versions."""
    texts = dict.fromkeys(("cpuinfo", "meminfo", "os_release", "arch"), "")
    assert parse_hardware(texts, python).python == python


def test_nonsense_of_a_box_is_no_number():
    """What only looks like a number ends nothing."""
    said = {"disk": f"a 1 1 {'9' * 5000} 1 /", "clock": "1e999", "python": "3.11.2\nglibc 2.\u00b2"}
    facts = parse_box("".join(f"\n@@millwright:{name}\n{text}\n" for name, text in said.items()))
    assert (facts.disk_free_bytes, facts.clock_s, facts.libc) == (None, None, None)

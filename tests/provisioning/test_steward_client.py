"""What the appliance makes of a steward's words, and of its silence."""

import io
import subprocess
import sys
import zipfile

import pytest

from provisioning.bundle import build_steward
from provisioning.errors import PythonMissing, PythonTooOld, StewardMissing
from provisioning.steward_client import StewardClient
from provisioning.transport import Result

STEWARD = "/usr/local/lib/millwright/steward"


class Said:
    """A carrier whose commands end with this."""

    def __init__(self, result):
        self.result = result

    def run(self, _command, *, stdin=(), limits=None, on_output=None):
        on_output(self.result.stdout)
        return self.result


@pytest.mark.parametrize(
    ("stderr", "problem"),
    [
        pytest.param(
            f"sudo: unable to execute {STEWARD}: No such file or directory", PythonMissing, id="sudo"
        ),
        pytest.param(
            f"bash: line 1: {STEWARD}: cannot execute: required file not found", PythonMissing, id="bash 5.2"
        ),
        pytest.param(
            f"bash: {STEWARD}: /usr/bin/python3: bad interpreter: No such file or directory",
            PythonMissing,
            id="older bash",
        ),
        pytest.param(f"sudo: {STEWARD}: command not found", StewardMissing, id="no steward, sudo"),
        pytest.param(f"bash: line 1: {STEWARD}: No such file or directory", StewardMissing, id="no steward"),
        pytest.param(f"sh: 1: {STEWARD}: not found", StewardMissing, id="dash does not tell"),
        pytest.param("sudo: a password is required", StewardMissing, id="no rule"),
        pytest.param("", StewardMissing, id="nothing"),
    ],
)
def test_silence_is_explained_by_what_the_box_complains_of(stderr, problem):
    """A missing interpreter and a missing steward are told apart, each with its remedy."""
    with pytest.raises(problem) as caught:
        StewardClient(Said(Result(1, b"", stderr.encode()))).ask("hello")
    assert type(caught.value) is problem
    assert caught.value.remedy


def test_a_python_that_became_too_old_says_so(tmp_path):
    """The steward's first lines run on any Python 3, and answer in its name."""
    with zipfile.ZipFile(io.BytesIO(build_steward())) as packed:
        first = packed.read("__main__.py").decode()
    older = tmp_path / "older.py"
    older.write_text(first.replace("import sys\n", "import sys\nsys.version_info = (3, 9, 2)\n", 1))
    done = subprocess.run([sys.executable, str(older)], capture_output=True, check=False)
    assert done.returncode == 1
    with pytest.raises(PythonTooOld, match=r"the node has Python 3\.9") as caught:
        StewardClient(Said(Result(1, done.stdout, b""))).ask("hello")
    assert "3.10 or newer" in caught.value.remedy


@pytest.mark.parametrize(
    "value",
    [
        rb'"\ud800"',
        rb'{"\udfff": 1}',
        b'"\xed\xa0\x80\\ud800"',
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"1" + b"0" * 18,
    ],
    ids=["half a character", "in a name", "half of one, raw", "NaN", "infinity", "too large", "too long"],
)
def test_an_answer_that_no_row_could_keep_is_none(value):
    """Half characters and numbers beyond all bounds would end whoever writes or shows them."""
    answer = Result(0, b'{"ok": true, "boot_id": ' + value + b"}\n", b"")
    with pytest.raises(StewardMissing):
        StewardClient(Said(answer)).ask("hello")


def test_answers_keep_whole_characters():
    """What is written as a pair of escapes is one character, and is taken."""
    told = StewardClient(
        Said(Result(0, rb'{"ok": true, "said": "\ud83d\ude00", "n": 1.5}' + b"\n", b""))
    ).ask("logs")
    assert (told["said"], told["n"]) == ("\U0001f600", 1.5)

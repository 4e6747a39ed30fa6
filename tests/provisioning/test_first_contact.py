"""First contact: real boxes' answers in, steps out; a second run does nothing, a broken one goes on."""

import dataclasses
import json
import shlex
import subprocess
from pathlib import Path

import pytest

from provisioning.commands import install, places, root
from provisioning.commands.probe import probe
from provisioning.enrolment import make_first_contact
from provisioning.errors import ConnectionLost, Hung, NodeError, SudoMissing, SudoNeedsPassword
from provisioning.facts.box import parse_box
from provisioning.hostkeys import HostKey
from provisioning.identity import create_identity
from provisioning.login import Address, Password
from provisioning.planning import Wanted, check_box, plan_first_contact
from provisioning.runner import Runner
from provisioning.steward.places import Places
from provisioning.steward.root_key import remove_root_key
from provisioning.testing import SECTION_TEXTS, ScriptedBox, ScriptedCarrier, play
from provisioning.transport import Secret

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))
WANTED = Wanted(b"#!/usr/bin/python3\n", "ssh-ed25519 AAAAKEY")
IDENTITY = create_identity()
ALL_STEPS = [
    "create account", "create agents' account", "install steward", "install sudo rule", "install key",
]  # fmt: skip


def contact(box, log=None, password="secret"):
    return make_first_contact(
        Address("box"), HostKey("SHA256:x"), Password(Secret(password)), wanted=WANTED, identity=IDENTITY,
        log=(log if log is not None else []).append, connect=play({"box": box}),
        clock=lambda: 1000.0,
    )  # fmt: skip


def outcome(facts, now):
    """The steps for a box, or the code of what keeps it from being a node."""
    try:
        check_box(facts, now)
    except NodeError as error:
        return [error.code]
    return [step.name for step in plan_first_contact(facts, WANTED)]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_facts_become_steps(path):
    """What a box answered decides what is done to it, or why nothing is."""
    case = json.loads(path.read_text())
    facts = parse_box("\n".join(case["answer"]))
    seen = {**dataclasses.asdict(facts.hardware), "libc": facts.libc and list(facts.libc), "init": facts.init}
    assert {key: seen[key] for key in case["facts"]} == case["facts"]
    assert outcome(facts, case["now"]) == case["steps"]


def test_cases_are_found():
    """The list of cases is not empty by mistake."""
    assert len(CASES) >= 8


def test_a_second_contact_does_nothing():
    """A box that is as wanted is only looked at."""
    box = ScriptedBox()
    first, second = [], []
    contact(box, first)
    done = len(box.commands)
    contact(box, second)
    steps = [line.step for line in first if line.step in ALL_STEPS]
    assert steps == ALL_STEPS
    assert not {line.step for line in second} & set(ALL_STEPS)
    assert len(box.commands) - done == 2  # who, probe


@pytest.mark.parametrize("number", range(7))
def test_a_contact_cut_anywhere_goes_on_where_it_stopped(number):
    """Whichever command the line breaks at, the next run does what is left, each step once in all."""
    box = ScriptedBox(fails_at={number: ConnectionLost("cut")})
    log = []
    with pytest.raises(ConnectionLost):
        contact(box, log)
    assert log[-1].outcome == "failed"
    contact(box, log)
    done = [line.step for line in log if line.step in ALL_STEPS and line.outcome == "done"]
    assert done == ALL_STEPS
    assert set(box.files) == set(places.FILES)


def test_root_is_the_account_where_there_is_no_sudo():
    """The key opens root's own account, bound to the steward; that stays when sudo comes later."""
    box = ScriptedBox(texts={**SECTION_TEXTS, "sudo": ""})
    first, later = [], []
    assert contact(box, first).address.user == "root"
    assert [line.step for line in first] == [
        "become root", "read facts", "check", "create agents' account", "install steward",
        "install root's key", "greet the steward",
    ]  # fmt: skip
    assert box.root_keys == install.root_key(WANTED.public_key)
    box.texts["sudo"] = "/usr/bin/sudo\n"
    assert contact(box, later).address.user == "root"
    assert [line.step for line in later] == ["become root", "read facts", "check", "greet the steward"]


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(None, id="no folder"),
        pytest.param(b"", id="an empty file"),
        pytest.param(
            b"ssh-ed25519 AAAA ann@home\n# mine\n\nssh-rsa BBBB bob", id="keys, no newline at the end"
        ),
    ],
)
def test_roots_own_keys_stay_byte_for_byte(tmp_path, before):
    """Ours comes in once, however often it is written; taken out again, all is as it was."""
    keys = tmp_path / "root" / ".ssh" / "authorized_keys"
    programs = tmp_path / "programs"
    for folder in (tmp_path / "root", programs):
        folder.mkdir()
    if before is not None:
        keys.parent.mkdir(0o750)
        keys.write_bytes(before)
        keys.chmod(0o640)
    places = Places(programs=programs, root_home=tmp_path / "root")
    script = install.write_root_key().replace("~root", str(tmp_path / "root"))
    script = script.replace("/usr/local/lib/millwright/made", str(places.made))

    def write(line):
        return subprocess.run(
            ["/bin/sh", "-c", script], input=line, check=False, capture_output=True
        ).returncode

    assert write(install.root_key("ssh-ed25519 OLD")) == 0
    assert write(install.root_key("ssh-ed25519 NEW")) == 0
    assert write(install.root_key("ssh-ed25519 CUT")[:40]) != 0
    assert keys.read_bytes() == install.root_key("ssh-ed25519 NEW") + (before or b"")
    assert (keys.parent.stat().st_mode & 0o777, keys.stat().st_mode & 0o777) == (
        (0o700, 0o600) if before is None else (0o750, 0o640)
    )
    remove_root_key(places, places.made.read_text().split())
    if before is None:
        assert not keys.parent.exists()
    else:
        assert keys.read_bytes() == before
        assert keys.stat().st_mode & 0o777 == 0o640
        assert [path.name for path in keys.parent.iterdir()] == ["authorized_keys"]


def test_roots_keys_that_came_after_ours_stay(tmp_path):
    """A file that enrolment made stays where others use it by now."""
    places = Places(root_home=tmp_path)
    places.root_keys.parent.mkdir()
    places.root_keys.write_bytes(install.root_key("ssh-ed25519 OURS") + b"ssh-ed25519 AAAA ann\n")
    remove_root_key(places, ["folder", "keys"])
    assert places.root_keys.read_bytes() == b"ssh-ed25519 AAAA ann\n"


def test_first_contact_has_a_time_limit_of_its_own():
    """Commands share what time is left; with none left the next is not begun."""
    box, log, given = ScriptedBox(), [], []

    class Watched(ScriptedCarrier):
        def run(self, command, **options):
            given.append(options["limits"].total_s)
            return super().run(command, **options)

    with pytest.raises(Hung, match="within 0 s"):
        Runner(Watched(box, "root"), log.append, total_s=0.0).first_contact(WANTED, None, lambda: 1000.0)
    assert (box.commands, [line.outcome for line in log]) == ([], ["failed"])
    Runner(Watched(box, "root"), log.append, total_s=20.0).first_contact(WANTED, None, lambda: 1000.0)
    assert max(given) <= 20.0
    assert given == sorted(given, reverse=True)


def test_what_was_changed_by_others_is_put_right():
    """A file with other content or another mode is written again, the rest is left."""
    box = ScriptedBox()
    contact(box)
    box.files[places.SUDO_RULE] = (b"millwright ALL=(ALL) NOPASSWD: ALL\n", "440")
    content, _ = box.files[places.STEWARD]
    box.files[places.STEWARD] = (content, "777")
    log = []
    contact(box, log)
    assert [line.step for line in log if line.step in ALL_STEPS] == ["install steward", "install sudo rule"]
    assert box.files[places.SUDO_RULE][0] == install.sudo_rule()


def test_commands_are_what_they_seem():
    """The commands, letter by letter."""
    assert install.create_account() == (
        "useradd --system --user-group --no-create-home --home-dir /var/lib/millwright --shell /bin/sh "
        "--password '*' millwright"
    )
    assert install.write_sudo_rule() == (
        "set -e; umask 022; mkdir -p /etc/sudoers.d; cat > /etc/sudoers.d/millwright.new; "
        "chown root:root /etc/sudoers.d/millwright.new; chmod 0440 /etc/sudoers.d/millwright.new; "
        "visudo -cqf /etc/sudoers.d/millwright.new >/dev/null; sync -f /etc/sudoers.d/millwright.new; "
        "mv -f /etc/sudoers.d/millwright.new /etc/sudoers.d/millwright"
    )
    assert install.sudo_rule().splitlines()[-1] == (
        b'millwright ALL=(root) NOPASSWD: /usr/local/lib/millwright/steward ""'
    )
    assert install.authorized_keys("ssh-ed25519 AAAA\n") == (
        b'restrict,command="sudo -n /usr/local/lib/millwright/steward" ssh-ed25519 AAAA millwright\n'
    )
    assert "rm " not in probe()


@pytest.mark.parametrize(
    ("told", "password", "expected"),
    [
        pytest.param("0\nroot\n-\n1\n", None, "root", id="root needs no sudo"),
        pytest.param("1000\nann\n/usr/bin/sudo\n0\n", Secret("x"), "sudo", id="sudo without password"),
        pytest.param("1000\nann\n/usr/bin/sudo\n1\n", Secret("x"), "sudo_password", id="sudo with password"),
        pytest.param("1000\nann\n/usr/bin/sudo\n1\n", None, SudoNeedsPassword, id="no password at hand"),
        pytest.param("1000\nann\n-\n127\n", Secret("x"), SudoMissing, id="no sudo at all"),
        pytest.param("Welcome!\n", None, NodeError, id="a shell that answers something else"),
    ],
)
def test_the_way_to_root_is_chosen(told, password, expected):
    """Root, sudo, sudo with a password, or a typed refusal."""
    if isinstance(expected, str):
        assert root.choose_root(told, password).way == expected
    else:
        with pytest.raises(expected):
            root.choose_root(told, password)


def test_a_password_is_in_no_command_and_no_log():
    """Sudo's password goes to its standard input alone; printed, it is redacted."""
    way = root.Root("sudo_password", Secret("hunter2"))
    line, before = root.as_root(way, "id")
    assert shlex.split(line)[:-1] == ["sudo", "-S", "-k", "-p", "", "--", "sh", "-c"]
    assert before.startswith(b"hunter2\n")
    box, log = ScriptedBox(), []
    contact(box, log, password="hunter2")
    assert "hunter2" not in repr((way, Password(Secret("hunter2")), log, box.commands, IDENTITY))


@pytest.mark.parametrize(
    ("line", "steps"),
    [
        pytest.param("millwright:x:1003:1003:Jo:/home/jo:/bin/bash", ["account_taken"], id="a person's"),
        pytest.param("millwright:x:0:0::/root:/bin/bash", ["account_taken"], id="another name for root"),
        pytest.param("millwright-agent:x:1003:1003::/home/a:/bin/sh", ["account_taken"], id="agents'"),
        pytest.param("millwright:x:1003:1003::/var/lib/millwright:/bin/sh", ALL_STEPS[1:], id="ours"),
        pytest.param(
            "millwright:x:999:999::/opt:/bin/sh", ["mend account", *ALL_STEPS[1:]], id="a program's"
        ),
    ],
)
def test_nobodys_account_is_taken_over(line, steps):
    """An account of a person that has the name of ours would lose its password, and be removed in the end."""
    assert outcome(parse_box(ScriptedBox(accounts=[line])._told()), 1000.0) == steps


@pytest.mark.parametrize("taken", [True, False], ids=["sudo took it", "sudo asked for none"])
def test_a_password_never_becomes_what_is_written(tmp_path, taken):
    """Where sudo lets a shell through unasked, the password is dropped, and the file is as it should be."""
    written = tmp_path / "written"
    command, before = root.as_root(root.Root("sudo_password", Secret("hunter2")), f"cat > {written}")
    given = before.removeprefix(b"hunter2\n") if taken else before
    subprocess.run(shlex.split(command)[6:], input=given + b"first\nsecond", check=True)
    assert written.read_bytes() == b"first\nsecond"
    cut = subprocess.run(shlex.split(command)[6:], input=b"hunter2\n", check=False)
    assert cut.returncode == 97


def test_answers_of_nonsense_are_no_facts():
    """A box may say anything: what is not understood stays unknown."""
    assert set(SECTION_TEXTS) >= {"cpuinfo", "python", "clock"}
    facts = parse_box("\n@@millwright:disk\nfull\n@@millwright:clock\nnoon\n@@millwright:python\n\0\n")
    assert (facts.disk_free_bytes, facts.clock_s, facts.libc, facts.hardware.ram_bytes) == (
        None,
        None,
        None,
        0,
    )


def test_errors_hold_nothing_that_a_terminal_obeys():
    """Whatever a box says, its error is one line that can be printed and written down."""
    error = SudoMissing("\x1b]0;owned\x07\ud800 says\nthis", remedy="do\x1b[2J that")
    assert error.line == " ]0;owned   says this; do [2J that"

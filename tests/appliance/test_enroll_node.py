"""`manage.py enroll_node`: what it asks, what it refuses, and what it tells of each box."""

import io
import json
import threading

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from played_boxes import HOST_KEY, OTHER_KEY, PASSWORD, Boxes, box_texts
from provisioning_builders import wait_until

from appliance import node_waiting
from appliance.management import base, enrolment_input, enrolment_run
from appliance.management.commands import enroll_node
from appliance.management.node_progress import ProgressBar, ProgressLines, format_bar
from appliance.models import AuditEvent, Enrolment, Node
from appliance.nodes import retire_node
from appliance.ssh_identity import ensure_identity
from provisioning.errors import Unreachable, WrongPassword
from provisioning.hostkeys import HostKey
from provisioning.login import KeyFile, SshAgent

pytestmark = pytest.mark.django_db(transaction=True)
SHOWN = HostKey(HOST_KEY, "ssh-ed25519")


class Stage(Boxes):
    """Played boxes, a worker that looks when it is poked, and a person at the keyboard."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.keys = {}
        self.answers = None
        self.patch = monkeypatch
        monkeypatch.setattr(enroll_node.Command, "connect", staticmethod(self.connect))
        monkeypatch.setattr(enroll_node.Command, "read_host_key", staticmethod(self.read_host_key))
        monkeypatch.setattr(enroll_node.Command, "require_worker", lambda _self: None)
        monkeypatch.setattr(enroll_node, "_poke", self.crew.look)
        monkeypatch.setattr(
            enroll_node, "open_terminal", lambda: None if self.answers is None else io.StringIO(self.answers)
        )
        monkeypatch.setattr(node_waiting, "_POLL_S", 0.01)

    def read_host_key(self, address):
        if address.host not in self.boxes:
            raise Unreachable(f"{address} cannot be reached")
        return self.keys.get(address.host, SHOWN)

    def enroll(self, *arguments, stdin=PASSWORD, accept=True):
        self.patch.setattr("sys.stdin", io.StringIO(f"{stdin}\n"))
        told = ["--password-stdin", *(["--accept-host-key"] if accept else [])]
        call_command("enroll_node", *arguments, *told)


@pytest.fixture
def stage(monkeypatch):
    made = Stage(monkeypatch)
    yield made
    made.end()


def refused(stage, *arguments, **given):
    """The error and its exit code."""
    with pytest.raises(CommandError) as error:
        stage.enroll(*arguments, **given)
    return str(error.value), error.value.returncode


def test_box_is_ready_when_the_command_returns(stage, capsys):
    """One line says what it is; attributes, key and account stand in the row."""
    stage.add()
    stage.enroll("10.0.0.2", "--name", "box-1", "--label", "rack=a1", "--region", "eu", "--preemptible")
    told = capsys.readouterr()
    assert told.out.startswith("node box-1 is ready: 10.0.0.2, 1 cores, 4.0 GiB, Debian GNU/Linux 12")
    assert "box-1: install steward" in told.err
    node = Node.objects.get()
    assert (node.labels, node.region, node.preemptible) == ({"rack": "a1"}, "eu", True)
    assert (node.host_key, node.host_key_kind) == (HOST_KEY, "ssh-ed25519")
    assert Enrolment.objects.get().way == "password"


def test_enrolling_again_says_that_nothing_was_missing(stage, capsys):
    """It is safe to repeat, without a question; what is missing is done again and named."""
    box = stage.add()
    stage.enroll("10.0.0.2")
    stage.enroll("10.0.0.2", accept=False)
    assert "is enrolled already: nothing was missing" in capsys.readouterr().out
    box.accounts.pop()
    stage.enroll("10.0.0.2", "--region", "eu")
    assert "done again: create agents' account" in capsys.readouterr().out
    assert Node.objects.get().region == "eu"


def test_failure_is_one_line_and_the_same_command_goes_on(stage, capsys):
    """The row tells why; no node is left; afterwards the box is enrolled."""
    stage.add(fails_at={0: WrongPassword("'root' does not take this password")})
    line, code = refused(stage, "10.0.0.2")
    assert line.startswith("node-10-0-0-2: 'root' does not take this password; check --user")
    assert code == 1
    row = Enrolment.objects.get()
    assert (row.state, row.code, row.lease_owner) == ("failed", "wrong_password", "")
    assert not Node.objects.exists()
    stage.enroll("10.0.0.2")
    assert Node.objects.get().enrolled_at is not None


def test_document_names_every_box(stage, capsys):
    """One JSON document on stdout, also where some failed; then the exit code is 1."""
    stage.add("10.0.0.2")
    stage.add("10.0.0.3", texts=box_texts(python="3.9.2\nglibc 2.31\n"))
    line, code = refused(stage, "10.0.0.2", "10.0.0.3", "10.0.0.4", "--json")
    assert (line, code) == ("2 of 3 boxes are no nodes; run it again for those", 1)
    told = capsys.readouterr()
    nodes = json.loads(told.out)["nodes"]
    assert [(one["address"], one["state"], one["code"]) for one in nodes] == [
        ("10.0.0.2", "ready", ""),
        ("10.0.0.3", "failed", "python_too_old"),
        ("10.0.0.4", "failed", "unreachable"),
    ]
    assert set(nodes[0]) == {"name", "address", "state", "code", "error", "hint", "seconds"}
    assert "Python 3.10 or newer is needed" in nodes[1]["hint"]
    assert PASSWORD not in told.out + told.err


def test_file_of_boxes(stage, tmp_path, capsys):
    """Each row may say what differs; a table at the end names all."""
    for address in ("10.0.0.2", "10.0.0.3"):
        stage.add(address)
    path = tmp_path / "boxes.csv"
    path.write_text(
        "address,name,port,label,cost_per_hour,preemptible,host_key\n"
        f"10.0.0.2,first,2222,rack=a1;zone=b,0.25,yes,{HOST_KEY}\n"
        "\n10.0.0.3,,,,,,\n"
    )
    stage.enroll("--from", str(path), "--region", "eu")
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["name", "address", "outcome", "seconds", "error"]
    assert [line.split()[:3] for line in table[1:]] == [
        ["first", "10.0.0.2:2222", "ready"], ["node-10-0-0-3", "10.0.0.3", "ready"],
    ]  # fmt: skip
    first = Node.objects.get(name="first")
    assert (first.port, first.labels, first.preemptible) == (2222, {"rack": "a1", "zone": "b"}, True)
    assert {node.region for node in Node.objects.all()} == {"eu"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\nx\n", "line 1: a heading is needed with address"),
        ("address,colour\n", "not known: 'colour'"),
        ("address,address\n", "each once"),
        ("address\n", "names no box"),
        ("address,port\n10.0.0.2,x\n\n10.0.0.3,0\n", "line 2: port 'x'"),
        ("address,port\n10.0.0.2,x\n\n10.0.0.3,0\n", "line 4: port '0' is not accepted: a number from 1"),
        ("address\n10.0.0.2,more\n", "line 2: 2 cells, the heading has 1"),
        ("address,name\n,box\n", "line 2: address '' is not accepted"),
        ("address,name\na,b\na,c\n", "line 3: a port 22 was named before (f.csv line 2)"),
        ("address,name\na,x\nb,x\n", "line 3: name 'x' was given before (f.csv line 2)"),
        ("address,label\na,x\n", "line 2: label 'x' is not accepted: KEY=VALUE is"),
        ("address,preemptible\na,perhaps\n", "yes or no is"),
        ("address,host_key\na,MD5\n", "SHA256: and 43 characters"),
        ("address,name\na,local\n", "the appliance's own machine"),
        ('address,name\na,"x\n', "line 2"),
    ],
)
def test_wrong_rows_are_named_before_anything_is_done(stage, tmp_path, text, words):
    """Line number, value and what is accepted; no box is touched, and the exit code is 2."""
    path = tmp_path / "f.csv"
    path.write_text(text)
    line, code = refused(stage, "--from", str(path))
    assert words in line
    assert code == 2
    assert not stage.carriers
    assert not Enrolment.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give one ADDRESS or more, or --from"),
        (("a", "--from", "b"), "one of the two"),
        (("a", "b", "--name", "x"), "for one ADDRESS"),
        (("--from", "/no/such"), "cannot be read: No such file"),
        (("a", "--port", "x"), "port 'x' is not accepted"),
        (("a", "--label", "x"), "KEY=VALUE is"),
        (("a", "--power", "x"), "wol:MAC is"),
        (("a", "--cost-per-hour", "-1"), "a number from 0"),
        (("a b",), "a host name or an IP address is"),
    ],
)
def test_bad_arguments_are_refused_with_code_two(stage, arguments, words):
    """Each is one line that says what is accepted."""
    line, code = refused(stage, *arguments)
    assert words in line
    assert code == 2


def test_empty_password_is_a_bad_argument(stage):
    """Nothing was piped in."""
    line, code = refused(stage, "10.0.0.2", stdin="")
    assert "1 to 1024 characters" in line
    assert code == 2


def test_fingerprint_is_asked_about(stage, capsys):
    """With the password on stdin the terminal is asked; a no ends it before anything is done."""
    stage.add()
    stage.answers = "no\n"
    line, code = refused(stage, "10.0.0.2", accept=False)
    assert f"the host key {SHOWN} was not accepted" in line
    assert code == 1
    assert f"10.0.0.2 shows {SHOWN}\nIs that the box's own key? [y/N]" in capsys.readouterr().err
    assert not stage.carriers
    stage.answers = "y\n"
    stage.enroll("10.0.0.2", accept=False)
    assert Node.objects.get().host_key == HOST_KEY


def test_without_a_terminal_the_fingerprint_must_be_passed(stage):
    """The error shows it, and says what to pass."""
    stage.add()
    line, code = refused(stage, "10.0.0.2", accept=False)
    assert f"10.0.0.2 shows {SHOWN}" in line
    assert "--host-key SHA256:..." in line
    assert code == 2
    stage.enroll("10.0.0.2", "--host-key", HOST_KEY, accept=False)
    assert Node.objects.get().host_key_kind == "ssh-ed25519"


def test_changed_host_key_is_loud_and_nothing_is_touched(stage):
    """Neither accepting nor passing the new key helps: the pinned one holds until the node is retired."""
    stage.add()
    stage.enroll("10.0.0.2")
    before = len(stage.carriers)
    stage.keys["10.0.0.2"] = HostKey(OTHER_KEY, "ssh-ed25519")
    assert "HOST KEY CHANGED" in refused(stage, "10.0.0.2")[0]
    assert "HOST KEY CHANGED" in refused(stage, "10.0.0.2", "--host-key", OTHER_KEY, accept=False)[0]
    assert len(stage.carriers) == before
    retire_node("node-10-0-0-2", force=True, actor="test")
    stage.enroll("10.0.0.2")
    assert Node.objects.get().host_key == OTHER_KEY


def test_no_worker_is_said_before_the_box_is_touched(stage, monkeypatch):
    """Within three seconds, without asking for anything."""
    stage.add()
    monkeypatch.setattr(enroll_node.Command, "require_worker", base.ApplianceCommand.require_worker)
    monkeypatch.setattr(base, "WORKER_TIMEOUT_S", 0.1)
    line, code = refused(stage, "10.0.0.2")
    assert "no worker is running" in line
    assert code == 1
    assert not stage.carriers
    assert not Enrolment.objects.exists()


@pytest.mark.slow
def test_time_out_says_that_it_goes_on_and_the_same_command_waits_on(stage):
    """The worker keeps at it; asked again, the command joins the enrolment under way."""
    gate = threading.Event()
    box = stage.add(gate=gate)
    line, code = refused(stage, "10.0.0.2", "--timeout", "0.1")
    assert "not ready after" in line
    assert "it goes on" in line
    assert code == 1
    assert box.receiving.wait(10)
    assert "it goes on" in refused(stage, "10.0.0.2", "--timeout", "0.1")[0]
    assert Enrolment.objects.count() == 1
    gate.set()
    stage.enroll("10.0.0.2")
    assert Node.objects.get().enrolled_at is not None


def test_interrupted_first_contact_is_written_down(stage, monkeypatch):
    """Ctrl-C ends the row, and the same command goes on."""
    box = stage.add(hangs=True)
    run_on_all = enrolment_run.run_on_all

    working = []

    def interrupted(names, work, **limits):
        working.append(threading.Thread(target=lambda: list(run_on_all(names, work, **limits)), daemon=True))
        working[0].start()
        wait_until(lambda: stage.carriers)
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(enroll_node, "read_host_keys", lambda targets, known, read: {"10.0.0.2": SHOWN})
    monkeypatch.setattr(enrolment_run, "run_on_all", interrupted)
    assert refused(stage, "10.0.0.2") == ("interrupted; the same command goes on", 1)
    row = Enrolment.objects.get()
    assert (row.state, row.code, row.hint) == ("failed", "interrupted", "the same command goes on")
    assert not Node.objects.exists()
    stage.end()
    working[0].join(20)
    assert not working[0].is_alive()
    box.hangs = False
    monkeypatch.setattr(enrolment_run, "run_on_all", run_on_all)
    stage.enroll("10.0.0.2")
    assert Node.objects.get().enrolled_at is not None


def test_no_secret_anywhere(stage, capsys):
    """Neither in what is printed nor in the audit log nor in the row."""
    stage.add()
    stage.enroll("10.0.0.2", "--json")
    told = capsys.readouterr()
    rows = [*Enrolment.objects.values(), *AuditEvent.objects.values(), *Node.objects.values()]
    assert PASSWORD not in f"{told.out}{told.err}{rows}"


def options(**given):
    return {"identity": None, "password_stdin": False, "user": "root", **given}


def test_way_to_log_in(tmp_path, monkeypatch):
    """A named key, else ssh-agent, else a key of this user, else exit code 2 with the three ways."""
    key = tmp_path / ".ssh" / "id_ecdsa"
    key.parent.mkdir()
    home = {"HOME": str(tmp_path)}
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(CommandError, match=r"--identity FILE, or --password-stdin, or .* ssh-agent") as none:
        enrolment_input.choose_way(options(), home)
    assert none.value.returncode == 2
    key.write_text("key")
    assert enrolment_input.choose_way(options(), home) == KeyFile(key)
    assert enrolment_input.choose_way(options(), {**home, "SSH_AUTH_SOCK": "x"}) == SshAgent()
    assert enrolment_input.choose_way(options(identity=str(key)), {"SSH_AUTH_SOCK": "x"}) == KeyFile(key)
    with pytest.raises(CommandError, match="is no file"):
        enrolment_input.choose_way(options(identity="/no/such"), home)


def test_identity_is_made_once(settings):
    """The appliance's key is private, and the same for all who ask."""
    first = ensure_identity(settings.ENVIRONMENT)
    assert ensure_identity(settings.ENVIRONMENT).public == first.public
    path = settings.ENVIRONMENT.home / "ssh" / "id_ed25519"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_bar_is_one_line():
    """On a terminal one line is written over and over; a line for each ten percent elsewhere."""
    assert format_bar("node-1", "sending the runtime", 48.0, "31 of 65 MB") == (
        "node-1  sending the runtime  [####......] 48 %  31 of 65 MB"
    )
    stream = io.StringIO()
    bar = ProgressBar(stream)
    bar("node-1", "connecting", None, "")
    bar("node-1", "connecting", None, "")
    bar.close()
    assert stream.getvalue() == "\rnode-1  connecting\x1b[K\r\x1b[K"
    lines = []
    told = ProgressLines(lines.append)
    for percent in range(0, 101, 4):
        told("node-1", "sending", float(percent), "")
    assert len(lines) == 9

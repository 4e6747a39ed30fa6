"""The log page, and the reading behind it."""

import getpass
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
from django.conf import settings
from django.utils import timezone
from ssh_builders import SSHD, Sshd, listener

from appliance import agent_logs
from appliance.agent_logs import AgentLog, LogUnavailable, UnitState, parse_unit, read_agent, read_agent_log
from appliance.models import Agent, Node
from appliance.ssh_identity import ensure_identity
from provisioning import ssh
from provisioning.errors import Hung, Unreachable
from provisioning.login import Address

pytestmark = pytest.mark.django_db(transaction=True)
PATH = "/agents/minilm-aaaaaa/log/"
HOSTILE = "<script>alert(1)</script>"
NOW = 1_000_000.0


@pytest.fixture
def agent(deployment):
    return Agent.objects.select_related("node").get()


@pytest.fixture
def remote(agent):
    """The same agent on a box of its own."""
    node = Node.objects.create(
        name="box-1", address="192.0.2.7", account="millwright", host_key="SHA256:" + "k" * 43,
        enrolled_at=timezone.now(),
    )  # fmt: skip
    agent.node = node
    agent.save()
    return agent


@pytest.fixture
def steward(monkeypatch):
    """What a node's steward answers; `asked` is what it was asked, `opened` for whom and with which key."""
    script = SimpleNamespace(
        logs={"lines": ["one", "two"]},
        status={"agents": {"minilm-aaaaaa": {"unit": {
            "ActiveState": "active", "SubState": "running", "NRestarts": "2", "MemoryCurrent": "123456789",
            "MainPID": "4711", "ActiveEnterTimestampMonotonic": "40000000",
        }}}},
        facts={"uptime": "100.00 50.00\n"}, asked=[], opened=[],
    )  # fmt: skip

    def ask(verb, *, limits, **arguments):
        assert limits.total_s <= 10
        script.asked.append((verb, arguments))
        answer = getattr(script, verb)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @contextmanager
    def open_steward(address, host_key, identity, connect):
        script.opened.append((address, host_key, identity.public))
        yield SimpleNamespace(ask=ask)

    monkeypatch.setattr(agent_logs, "open_steward", open_steward)
    return script


def write_log(text):
    folder = settings.ENVIRONMENT.logs_dir / "agents"
    folder.mkdir(exist_ok=True)
    path = folder / "minilm-aaaaaa.log"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def _no_log():
    yield
    (settings.ENVIRONMENT.logs_dir / "agents" / "minilm-aaaaaa.log").unlink(missing_ok=True)


def test_outsiders_are_refused(client, log_in, agent):
    """Strangers are sent to log in, accounts without a role get 403."""
    assert client.get(PATH)["Location"] == f"/?next={PATH}"
    assert log_in("charlie").get(PATH).status_code == 403


def test_an_own_agents_log_is_shown(viewer, agent):
    """The last lines of its file, escaped, with its process; the part alone is for refreshing."""
    write_log("".join(f"line {number}\n" for number in range(200)) + HOSTILE + "\x1b[31m\n")
    page = viewer.get(PATH).content.decode()
    assert "line 199" in page
    assert "line 99\n" not in page
    assert "Last 100 lines" in page
    assert HOSTILE not in page
    assert "\x1b" not in page
    assert "inactive" in page
    assert "line 5\n" in viewer.get(f"{PATH}?lines=1000").content.decode()
    part = viewer.get(f"{PATH}?auto=1", headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in part
    assert 'hx-trigger="every 5s"' in part


@pytest.mark.parametrize("asked", ["0", "-5", "x", "99999999999", "1001"])
def test_asked_lines_are_bounded(viewer, agent, monkeypatch, asked):
    """Whatever is asked, 1 to 1000 lines are read."""
    seen = []
    monkeypatch.setattr(
        "dashboard.views.agent_log.read_agent", lambda _, count: seen.append(count) or AgentLog((), None)
    )
    assert viewer.get(f"{PATH}?lines={asked}").status_code == 200
    assert 1 <= seen[0] <= 1000


def test_a_remote_agents_log_is_shown(viewer, remote, steward):
    """Journal and unit come from the node's steward, opened with the pinned key and our own."""
    page = viewer.get(PATH).content.decode()
    for text in ("one\ntwo", "active (running)", "4711", "123 MB", "1 min"):
        assert text in page, text
    ((address, host_key, public),) = steward.opened
    assert (address.host, address.user, host_key.fingerprint) == (
        "192.0.2.7",
        "millwright",
        remote.node.host_key,
    )
    assert public.startswith("ssh-ed25519 ")
    assert steward.asked[0] == ("logs", {"agent": "minilm-aaaaaa", "lines": 100})


def test_what_a_node_says_is_escaped(viewer, remote, steward):
    """Markup in lines and in the unit's state is text; nonsense in numbers is left out."""
    steward.logs = {"lines": [HOSTILE, 7]}
    steward.status = {"agents": {"minilm-aaaaaa": {"unit": {
        "ActiveState": HOSTILE, "SubState": HOSTILE, "NRestarts": HOSTILE, "MemoryCurrent": "[not set]",
        "ActiveEnterTimestampMonotonic": "-1",
    }}}}  # fmt: skip
    steward.facts = {"uptime": HOSTILE}
    page = viewer.get(PATH).content.decode()
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") == 3


@pytest.mark.parametrize("answer", [{}, {"lines": "text"}, {"lines": None}])
def test_answers_without_sense_are_empty(remote, steward, answer):
    """A node that does not answer as it should gives an empty log and no unit."""
    steward.logs, steward.facts = answer, {}
    for agents in (["x"], {"minilm-aaaaaa": 5}, {"minilm-aaaaaa": {"unit": [1]}}):
        steward.status = {"agents": agents}
        assert read_agent(remote) == AgentLog((), None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(Unreachable("192.0.2.7 port 22 did not answer"), "check the address", id="unreachable"),
        pytest.param(Hung("no answer in time"), "box&#x27;s load", id="hung"),
    ],
)
def test_errors_in_one_line(viewer, remote, steward, error, words):
    """Cause and remedy, and the page is there."""
    steward.logs = error
    answer = viewer.get(PATH)
    assert answer.status_code == 200
    assert str(error) in answer.content.decode()
    assert words in answer.content.decode()


def test_a_node_that_is_not_enrolled(viewer, remote, steward):
    """There is no way to its logs, and none is tried."""
    Node.objects.filter(name="box-1").update(account="")
    assert "is not enrolled" in viewer.get(PATH).content.decode()
    assert steward.opened == []


def test_lines_are_bounded(remote, steward):
    """A line has at most 1000 characters, all of them 256 KiB, the newest kept."""
    steward.logs = {"lines": [f"{number:04}" + "é" * 5000 for number in range(3000)]}
    lines = read_agent_log(remote, 5000)
    assert steward.asked[0][1]["lines"] == 1000
    assert {len(line) for line in lines} == {1000}
    assert sum(len(line.encode()) + 1 for line in lines) <= 256 * 1024
    assert lines[-1].startswith("2999")


def test_readers_are_bounded(remote, steward, monkeypatch):
    """With four reads under way a fifth is refused in words, and turns come back."""
    inside, leave = threading.Barrier(agent_logs.MAX_READERS + 1), threading.Event()

    def read(*_):
        inside.wait(10)
        assert leave.wait(10)
        return AgentLog((), None)

    monkeypatch.setattr(agent_logs, "_read_remote", read)
    threads = [threading.Thread(target=read_agent, args=(remote,)) for _ in range(agent_logs.MAX_READERS)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    with pytest.raises(LogUnavailable, match="try again in a moment"):
        read_agent(remote)
    leave.set()
    for thread in threads:
        thread.join(10)
    monkeypatch.undo()
    monkeypatch.setattr(agent_logs, "_read_remote", lambda *_: AgentLog(("free",), None))
    assert read_agent(remote).lines == ("free",)


@pytest.mark.parametrize(
    ("uptime_s", "entered", "since"),
    [
        pytest.param(100.0, "40000000", NOW - 60, id="known"),
        pytest.param(None, "40000000", None, id="no-uptime"),
        pytest.param(100.0, "0", None, id="never-active"),
        pytest.param(float("inf"), "40000000", None, id="endless"),
        pytest.param(float("nan"), "40000000", None, id="no-number"),
    ],
)
def test_times_count_from_the_boot(uptime_s, entered, since):
    """Systemd's monotonic time is placed with the uptime, or not at all."""
    unit = parse_unit({"ActiveState": "active", "ActiveEnterTimestampMonotonic": entered}, uptime_s, NOW)
    assert unit == UnitState("active", since=since)


def test_not_set_is_not_zero():
    """What systemd does not know stays unknown, also where it says so with its largest number."""
    unit = parse_unit(
        {"ActiveState": "failed", "MemoryCurrent": "18446744073709551615", "MainPID": "0"}, 1.0, NOW
    )
    assert (unit.memory_bytes, unit.pid) == (None, None)


def test_an_unknown_agent_is_not_found(viewer, agent):
    """There is no log of nobody."""
    assert viewer.get("/agents/other/log/").status_code == 404


@pytest.fixture
def box(tmp_path, remote):
    """A real sshd that binds the appliance's key to a program answering as a steward does."""
    if SSHD is None:
        pytest.skip("sshd is missing: apt-get install openssh-server")
    sshd = Sshd(tmp_path)
    program = tmp_path / "steward.py"
    program.write_text(
        "import json, sys\n"
        "verb = json.loads(sys.stdin.readline())['verb']\n"
        "answers = {'logs': {'lines': ['over ssh']}, 'status': {'agents': {}}, 'facts': {'uptime': '1 1'}}\n"
        "print(json.dumps({'ok': True, **answers[verb]}))\n"
    )
    public = ensure_identity(settings.ENVIRONMENT).public
    sshd.authorized.write_text(f'restrict,command="{sys.executable} {program}" {public}\n')
    shown = ssh.read_host_key(Address("127.0.0.1", sshd.port))
    Node.objects.filter(name="box-1").update(
        address="127.0.0.1", port=sshd.port, account=getpass.getuser(), host_key=shown.fingerprint,
        host_key_kind=shown.kind,
    )  # fmt: skip
    yield sshd
    sshd.stop()


@pytest.mark.slow
def test_a_log_comes_over_ssh(viewer, box):
    """The appliance's key opens the steward, and what it says is on the page."""
    assert "over ssh" in viewer.get(PATH).content.decode()


@pytest.mark.slow
def test_a_changed_host_key_is_told(viewer, box):
    """A box that shows another key is not read from, and the page says so."""
    box.new_host_key()
    page = viewer.get(PATH).content.decode()
    assert "HOST KEY CHANGED" in page
    assert "over ssh" not in page


@pytest.mark.slow
def test_a_silent_box_is_not_waited_for(viewer, remote, monkeypatch):
    """A port that takes connections and says no more is given up within the limit."""
    monkeypatch.setattr(agent_logs, "_connect", partial(ssh.connect, connect_s=0.5, auth_s=0.5))
    with listener(b"SSH-2.0-silent\r\n") as port:
        Node.objects.filter(name="box-1").update(address="127.0.0.1", port=port)
        began = time.monotonic()
        page = viewer.get(PATH).content.decode()
    assert time.monotonic() - began < 10
    assert "did not answer in time" in page

"""Bare Debian boxes become nodes, over real SSH and under their own systemd, and are left as they were."""

import json
import re

import paramiko
import pytest
from agent_builders import build_model
from enrolment_builders import NOW, Mill, ask_ready
from fleet_groups import wait_until
from hosts import ASKED, GUEST, PASSWORD, SUDOER

from provisioning import errors, steward_client
from provisioning.certificates import create_authority
from provisioning.commands.places import STEWARD
from provisioning.delivery import deliver_model, deliver_release
from provisioning.enrolment import open_steward
from provisioning.login import Address
from provisioning.remote import RemoteNode
from provisioning.ssh import read_host_key
from provisioning.transport import Limits

pytestmark = pytest.mark.slow
EVERYTHING = (
    "getent passwd; getent group; find / -xdev -name '*millwright*' -not -path '/proc/*' "
    "-not -path '/var/log/*' -not -path '/run/*'; "
    "find /etc/systemd /etc/sudoers.d /usr/local /var/lib/systemd -type f -o -type l | sort"
)

ROOTS_OWN = "find /root -printf '%p %m %U %s\\n' | sort; cat /root/.ssh/authorized_keys"


@pytest.fixture
def mill(tmp_path):
    """An appliance without a control plane."""
    return Mill(tmp_path)


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_a_bare_box_becomes_a_node_and_is_left_as_it_was(boot, mill, release, tmp_path, record_property):
    """Enrolled, given a release and agents; strangers are refused; after retire nothing of ours is there."""
    host = boot("bare", release)
    before = host.run(EVERYTHING)
    with mill.timed("first contact"):
        enrolled = mill.enroll(host)
    steps = [line.step for line in mill.lines]
    assert enrolled.facts.hardware.python.startswith({"bookworm": "3.11.", "trixie": "3.13."}[release])
    built = mill.release(enrolled)
    with mill.steward(enrolled) as client:
        with mill.timed("release"):
            assert deliver_release(client, built)
        assert not deliver_release(client, built)
        node = RemoteNode(client, built.sha256, memory_max_bytes=2 << 30)
        tls = mill.client_tls()
        with mill.timed("agent ready"):
            mill.install_agent(node, host, "fake-000001", 9001)
            assert node.start("fake-000001").agent == "fake-000001"
            wait_until(lambda: ask_ready(host, 9001, tls) == 200, 60, "the agent is not ready")
        model = build_model(tmp_path / "model")
        with mill.timed("model and its agent ready"):
            assert deliver_model(client, model)
            digest = json.loads((model / "manifest.json").read_text())["digest"]
            mill.install_agent(
                node, host, "tiny-000001", 9002, engine="ctranslate2", model_dir=f"/models/{digest}"
            )
            node.start("tiny-000001")
            wait_until(lambda: ask_ready(host, 9002, tls) == 200, 60, "the agent is not ready")
        assert not deliver_model(client, model)
        assert set(node.running()) == {"fake-000001", "tiny-000001"}
        print({name: round(seconds, 2) for name, seconds in mill.times.items()})
        check_strangers(mill, host, (9001, 9002))
        check_exposure(host)
        check_restart(host, node, tls)
        check_failure(mill, host, node)
        node.stop("fake-000001")
        wait_until(lambda: "fake-000001" not in node.running(), 30, "the agent does not end")
        assert any("drained" in line for line in node.last_log_lines("fake-000001"))
        node.forget("fake-000001")
        mill.lines.clear()
        mill.enroll(host)
        assert [line.step for line in mill.lines] == [
            "become root",
            "read facts",
            "check",
            "greet the steward",
        ]
        assert len(steps) > len(mill.lines)
        client.ask("retire", limits=Limits(30, 90))
    assert host.run(EVERYTHING) == before
    with pytest.raises(errors.KeyRefused), mill.steward(enrolled):
        pass
    assert ask_ready(host, 9002, tls) is None


def test_a_box_without_sudo_becomes_a_node_through_root(boot, mill):
    """The key stands in root's own file, opens the steward alone, and is taken out again at the end."""
    host = boot("prov-nosudo")
    host.run("mv /usr/bin/sudo /usr/bin/sudo.away")
    host.authorize("root", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHZ2dnZ2 ann")
    before = host.run(f"{EVERYTHING}; {ROOTS_OWN}")
    with pytest.raises(errors.SudoMissing):
        mill.enroll(host, SUDOER)
    enrolled = mill.enroll(host)
    assert enrolled.address.user == "root"
    mill.lines.clear()
    assert mill.enroll(host).address.user == "root"
    assert len(mill.lines) == 4, mill.lines
    built = mill.release(enrolled)
    with mill.steward(enrolled) as client:
        deliver_release(client, built)
        node = RemoteNode(client, built.sha256)
        mill.install_agent(node, host, "fake-000001", 9001)
        node.start("fake-000001")
        wait_until(lambda: ask_ready(host, 9001, mill.client_tls()) == 200, 60, "the agent is not ready")
    check_key(mill.carrier(enrolled))
    host.run("mv /usr/bin/sudo.away /usr/bin/sudo")
    assert mill.enroll(host).address.user == "root"
    host.run("mv /usr/bin/sudo /usr/bin/sudo.away")
    with mill.steward(enrolled) as client:
        client.ask("retire", limits=Limits(30, 90))
    assert host.run(f"{EVERYTHING}; {ROOTS_OWN}") == before
    with pytest.raises(errors.KeyRefused), mill.steward(enrolled):
        pass


@pytest.mark.parametrize("sudo", [True, False], ids=["through sudo", "as root"])
def test_a_node_that_lost_its_python_says_so(boot, mill, sudo):
    """Without Python, without the steward, with both again: each is told apart, and heals by itself."""
    host = boot("prov-python")
    if not sudo:
        host.run("mv /usr/bin/sudo /usr/bin/sudo.away")
    enrolled = mill.enroll(host)
    for path, problem in (("/usr/bin/python3", errors.PythonMissing), (STEWARD, errors.StewardMissing)):
        host.run(f"mv {path} {path}.away")
        with pytest.raises(problem) as caught, mill.steward(enrolled) as client:
            client.ask("hello")
        assert caught.value.remedy
        host.run(f"mv {path}.away {path}")
        with mill.steward(enrolled) as client:
            assert client.ask("hello")["ok"]


def check_strangers(mill, host, ports):
    """No certificate, a foreign one, or an agent's own: none opens an agent."""
    agent = mill.authority.issue_server("tiny-000001", [host.address], NOW)
    foreign = create_authority(NOW)
    contexts = [mill.tls(None), mill.client_tls(foreign), mill.tls(agent.certificate_pem + agent.key_pem)]
    for port in ports:
        assert [ask_ready(host, port, context) for context in contexts] == [None] * 3
    shown = host.run("ss -Hltn | awk '{print $4}'").split()
    assert {one.rsplit(":", 1)[1] for one in shown} - {"22", "53", "5355"} == {str(port) for port in ports}


def check_exposure(host):
    """Systemd finds the unit hardened, and it runs as its own account, seeing its own files alone."""
    told = host.run("systemd-analyze security millwright-agent-tiny-000001.service --no-pager | tail -n 1")
    assert float(re.search(r"(\d+\.\d+)", told).group(1)) <= 2.5, told
    print(told.strip())
    pid = host.run("systemctl show -P MainPID millwright-agent-tiny-000001.service").strip()
    assert host.run(f"stat -c %U /proc/{pid}").strip() == "millwright-agent"
    inside = f"nsenter --target {pid} --mount -- ls "
    assert host.run(inside + "/var/lib/millwright/agents").split() == ["tiny-000001"]
    assert host.run(inside + "-A /var/lib/millwright").split() == ["agents", "models", "releases"]


def check_restart(host, node, tls):
    """A killed agent is back by itself."""
    old = node.running()["tiny-000001"].pid
    host.run(f"kill -KILL {old}")
    wait_until(lambda: node.running()["tiny-000001"].pid not in (0, old), 30, "systemd does not restart it")
    wait_until(lambda: ask_ready(host, 9002, tls) == 200, 60, "the agent is not ready again")


def check_failure(mill, host, node):
    """An agent that cannot start ends as failed, and says why."""
    mill.install_agent(node, host, "late-000001", 9002)
    node.start("late-000001")
    wait_until(lambda: "late-000001" not in node.running(), 60, "systemd tries for ever")
    assert node.exit_code("late-000001") == 4
    assert any("port 9002" in line for line in node.last_log_lines("late-000001"))
    node.forget("late-000001")


def test_the_key_opens_the_steward_and_nothing_else(boot, mill):
    """No shell, command, file transfer, terminal or forwarding with the appliance's key."""
    host = boot("locked")
    check_key(mill.carrier(mill.enroll(host)))
    inside = "su -s /bin/sh millwright -c"
    for attempt in (
        "sudo -n id",
        "sudo -n /usr/local/lib/millwright/steward --help",
        "sudo -n -u millwright-agent id",
    ):
        assert "uid=" not in host.run(f"{inside} '{attempt}' </dev/null 2>&1 || echo refused")
    places = "/var/lib/millwright/x /usr/local/lib/millwright/x"
    assert (
        host.run(f"{inside} 'touch {places}' 2>&1; ls {places} 2>/dev/null", check=False).count("denied") == 2
    )


def check_key(carrier):
    """Neither shell nor command, file transfer, forwarding nor terminal; it is closed afterwards."""
    for command in ("id", "sh -c id", "cat /etc/shadow", "sudo -n id", "scp -t /tmp", "/bin/bash -i"):
        done = carrier.run(command, stdin=(b"cat /etc/shadow\n",))
        assert done.exit_code == 1
        assert b"root:" not in done.stdout
        assert b"uid=" not in done.stdout
        assert b'"bad_request"' in done.stdout
    transport = carrier._transport
    transfer = transport.open_session()
    transfer.invoke_subsystem("sftp")
    transfer.sendall(b"\0\0\0\5\1\0\0\0\3\n")  # the first packet of a file transfer, and a line's end
    transfer.shutdown_write()
    assert b'"bad_request"' in transfer.makefile().read()
    with pytest.raises(paramiko.SSHException):
        transport.open_channel("direct-tcpip", ("127.0.0.1", 22), ("127.0.0.1", 1))
    with pytest.raises(paramiko.SSHException):
        transport.request_port_forward("", 0)
    terminal = transport.open_session()
    with pytest.raises(paramiko.SSHException):
        terminal.get_pty()
    carrier.close()


@pytest.mark.parametrize("user", [SUDOER, ASKED])
def test_sudo_ways_become_root(boot, mill, user):
    """Sudo without a password, and sudo with the log-in's own, both do."""
    host = boot("ways")
    mill.enroll(host, user)
    assert mill.lines[-1].step == "greet the steward"
    assert PASSWORD not in host.journal(lines=2000)


def test_refusals_name_cause_and_remedy_and_leave_the_box_alone(boot, mill):
    """Wrong password, wrong port, no sudo, a changed host key: each its own error, nothing installed."""
    host = boot("refusing")
    with pytest.raises(errors.WrongPassword):
        mill.enroll(host, password="wrong")
    with pytest.raises((errors.NoSudo, errors.SudoNeedsPassword)):
        mill.enroll(host, GUEST)
    with pytest.raises(errors.WrongPort):
        read_host_key(Address(host.address, 4))
    pinned = read_host_key(Address(host.address))
    host.change_host_key()
    with (
        pytest.raises(errors.HostKeyChanged, match="HOST KEY CHANGED"),
        open_steward(Address(host.address, 22, "millwright"), pinned, mill.identity),
    ):
        pass
    assert "millwright" not in host.run("getent passwd; ls /usr/local/lib /etc/sudoers.d /var/lib")


def test_a_hung_and_a_cut_box_end_in_time_and_go_on_afterwards(boot, mill):
    """A box that freezes ends within the limit; a transfer cut in the middle goes on where it stopped."""
    host = boot("flaky")
    enrolled = mill.enroll(host)
    built = mill.release(enrolled)
    with mill.steward(enrolled) as client:
        host.hang()
        try:
            with pytest.raises(errors.Hung):
                client.ask("hello", limits=Limits(2, 4))
        finally:
            host.resume()
    host.spoil_line(rate_mbit=100)
    seen = []

    def cut(have, _total):
        seen.append(have)
        if have > 4 << 20 and len(seen) > 2:
            host.disconnect()

    quick = Limits(3, 60)
    with pytest.MonkeyPatch.context() as patch, mill.steward(enrolled) as client:
        patch.setattr(steward_client, "LONG", quick)
        with pytest.raises((errors.Hung, errors.ConnectionLost)):
            client.send_file(built.path, built.sha256, cut)
    host.connect()
    host.spoil_line()
    host.wait_ready()
    with mill.steward(enrolled) as client:
        wait_until(
            lambda: client.missing(blobs=[built.sha256])["blobs"][built.sha256] > 0, 10, "nothing was kept"
        )
        kept = client.missing(blobs=[built.sha256])["blobs"][built.sha256]
        seen.clear()
        client.send_file(built.path, built.sha256, lambda have, _total: seen.append(have))
        assert min(seen) >= kept > 4 << 20
        assert client.missing(blobs=[built.sha256])["blobs"] == {}
        host.fill_disk(leave_bytes=32 << 20)
        with pytest.raises(errors.DiskFull):
            client.ask("install_release", sha256=built.sha256, limits=Limits(20, 60))
        host.free_disk()
        assert client.ask("install_release", sha256=built.sha256, limits=Limits(20, 60))["installed"]

"""What a node does and survives: power, limits and pruning, full disks, cut lines, hangs at any moment."""

import functools
import hashlib
import os
import time

import pytest
from agent_builders import build_model
from enrolment_builders import Mill, ask_ready
from fleet_groups import wait_until

from provisioning import errors, runner, ssh
from provisioning.bundle import Release, write_archive
from provisioning.delivery import deliver_model, deliver_release
from provisioning.remote import RemoteNode
from provisioning.transport import Limits

pytestmark = pytest.mark.slow
AGENT = "fake-000001"
UNIT = f"millwright-agent-{AGENT}.service"
QUICK = Limits(2, 4)


@pytest.fixture
def mill(tmp_path):
    """An appliance without a control plane."""
    return Mill(tmp_path)


def boot_id(mill, enrolled):
    with mill.steward(enrolled) as client:
        return client.ask("hello")["boot_id"]


def make_release(folder, files=1) -> Release:
    """A release that nothing runs: files of 1 MiB of noise."""
    tree = folder / "tree"
    tree.mkdir(exist_ok=True)
    for number in range(files):
        (tree / f"noise{number}").write_bytes(os.urandom(1 << 20))
    path = folder / "release.tar.gz"
    write_archive(tree, path)
    return Release(hashlib.sha256(path.read_bytes()).hexdigest(), path, path.stat().st_size)


def test_power_limits_and_pruning(boot, mill, tmp_path):
    """A node reboots, goes off, takes limits while its agent runs, and throws away what no agent uses."""
    host = boot("prov-verbs")
    enrolled = mill.enroll(host)
    built, tls = mill.release(enrolled), mill.client_tls()
    unused, model = make_release(tmp_path), build_model(tmp_path / "model")
    with mill.steward(enrolled) as client:
        for release in (built, unused):
            assert deliver_release(client, release)
        assert deliver_model(client, model)
        node = RemoteNode(client, built.sha256, memory_max_bytes=1 << 30)
        mill.install_agent(node, host, AGENT, 9001)
        node.start(AGENT)
        wait_until(lambda: ask_ready(host, 9001, tls) == 200, 60, "the agent is not ready")
        told = client.ask("prune", keep_releases=[], keep_models=[])
        assert told["releases"] == [unused.sha256]
        assert len(told["models"]) == 1
        check_limits(host, node)
        old = client.ask("hello")["boot_id"]
        client.ask("reboot")
    boots = host.boots
    wait_until(lambda: host.boots > boots or not host.is_on, 30, "an idle agent keeps the reboot waiting")
    host.wait_ready()
    assert boot_id(mill, enrolled) != old
    wait_until(lambda: ask_ready(host, 9001, tls) == 200, 60, "the agent is not ready after the reboot")
    assert "drained" in host.journal(UNIT)
    with mill.steward(enrolled) as client:
        client.ask("power_off")
    wait_until(lambda: not host.is_on, 20, "it does not go off")
    host.start()
    wait_until(lambda: ask_ready(host, 9001, tls) == 200, 60, "the agent is not ready after power-off")


def check_limits(host, node):
    """Limits stand in the unit, and bind the processes that run already."""
    node.set_limits(AGENT, 768 << 20, [0])
    shown = host.run(f"systemctl show -p MemoryMax,CPUAffinity {UNIT}").split()
    assert shown == [f"MemoryMax={768 << 20}", "CPUAffinity=0"]
    pid = node.running()[AGENT].pid
    threads = f"grep -h Cpus_allowed_list /proc/{pid}/task/*/status | sort -u"
    assert host.run(threads).split() == ["Cpus_allowed_list:", "0"]
    node.set_limits(AGENT, None, None)
    assert host.run(f"systemctl show -P MemoryMax {UNIT}").strip() == "infinity"
    assert node.running()[AGENT].pid == pid


@pytest.mark.parametrize("moment", ["key exchange", "log-in", "become root", "create account", "install key"])
def test_a_box_that_hangs_at_any_moment_of_first_contact(boot, mill, moment, monkeypatch):
    """First contact ends in time, says so in one line, and the same call goes on where it stopped."""
    host = boot("prov-hangs")

    def hang_after(line):
        mill.lines.append(line)
        if line.step == moment:
            host.hang()

    def hang_before(function):
        def hung(*arguments):
            host.hang()
            return function(*arguments)

        return hung

    began = time.monotonic()
    with monkeypatch.context() as patch:
        for name in ("PROBE", "STEP"):
            patch.setattr(runner, name, QUICK)
        if moment == "key exchange":
            patch.setattr(ssh, "_check_greeting", hang_before(ssh._check_greeting))
        if moment == "log-in":
            patch.setattr(ssh, "_authenticate", hang_before(ssh._authenticate))
        connect = functools.partial(ssh.connect, connect_s=2, auth_s=2)
        with pytest.raises(errors.Hung) as caught:
            mill.enroll(host, log=hang_after, connect=connect)
    assert time.monotonic() - began < 20
    assert "\n" not in caught.value.line
    assert caught.value.remedy
    host.resume()
    done = [line.step for line in mill.lines if line.outcome == "done"]
    mill.enroll(host)
    steps = [line.step for line in mill.lines if line.outcome == "done"]
    assert steps[-1] == "greet the steward"
    assert [steps.count(step) for step in done if step.startswith(("create", "install"))] == [1] * sum(
        step.startswith(("create", "install")) for step in done
    )


def test_an_install_that_is_cut_off_is_done_once(boot, mill, tmp_path):
    """The line goes while a release is unpacked: the call ends in time, and succeeds when made again."""
    host = boot("prov-cut")
    enrolled = mill.enroll(host)
    release = make_release(tmp_path, 30)
    with mill.steward(enrolled) as client:
        client.send_file(release.path, release.sha256)
        with pytest.raises((errors.Hung, errors.ConnectionLost)):
            client.ask(
                "install_release", sha256=release.sha256, limits=Limits(3, 60),
                on_progress=lambda _told: host.disconnect(),
            )  # fmt: skip
    host.connect()
    host.wait_ready()
    with mill.steward(enrolled) as client:
        deliver_release(client, release)
        assert client.missing(releases=[release.sha256])["releases"] == []
    assert host.run("ls -A /var/lib/millwright/releases").split() == [release.sha256]
    assert host.run(f"ls /var/lib/millwright/releases/{release.sha256}/noise* | wc -l").strip() == "30"


def test_a_disk_that_fills_up_leaves_nothing_half_done(boot, mill, tmp_path):
    """Full while bytes come, full while they are unpacked: each says so, and goes on once there is room."""
    host = boot("prov-full")
    enrolled = mill.enroll(host)
    release = make_release(tmp_path, 30)
    host.spoil_line(rate_mbit=100)
    full = []

    def fill(have, _of):
        if have and not full:  # again would first make room for what is under way
            full.append(have)
            host.fill_disk()

    with mill.steward(enrolled) as client:
        with pytest.raises(errors.DiskFull) as caught:
            client.send_file(release.path, release.sha256, fill)
        assert caught.value.remedy
        host.free_disk()
        host.spoil_line()
        kept = client.missing(blobs=[release.sha256])["blobs"][release.sha256]
        assert 0 < kept < release.size_bytes
        seen = []
        client.send_file(release.path, release.sha256, lambda have, _of: seen.append(have))
        assert min(seen) >= kept
        host.fill_disk(leave_bytes=(64 + 12) << 20)
        with pytest.raises(errors.DiskFull) as caught:
            deliver_release(client, release)
        assert caught.value.remedy
        assert client.missing(releases=[release.sha256])["releases"] == [release.sha256]
        assert host.run("ls -A /var/lib/millwright/releases") == ""
        host.free_disk()
        assert deliver_release(client, release)
        assert not deliver_release(client, release)

"""Agents as processes of the appliance's own machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from provisioning_builders import install, wait_until

from provisioning import local
from provisioning.errors import ProvisioningError
from provisioning.process_records import ProcessRecord, read_record, write_record

ROOT = Path(__file__).resolve().parent.parent.parent


def report(node, agent):
    """What the program said of its start."""
    lines = wait_until(
        lambda: node.log_path(agent).read_text().splitlines() if node.log_path(agent).exists() else None
    )
    return json.loads(lines[0])


def record_path(home, agent):
    return home / "run" / "agents" / f"{agent}.json"


def test_install_writes_private_files_and_fills_in_tls(node, home):
    """What an agent starts from is readable by this user alone, and its configuration names it."""
    install(node, "a-1", port=7)
    folder = home / "agents" / "a-1"
    config = json.loads((folder / "config.json").read_text())
    assert config["port"] == 7
    assert {name: Path(path).read_bytes() for name, path in config["tls"].items()} == {
        "ca": b"ca",
        "certificate": b"certificate",
        "key": b"key",
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "-a", "a\nb", "x" * 101])
def test_bad_names_are_refused(node, name):
    """A name that could lead out of the state directory is refused by name."""
    with pytest.raises(ProvisioningError, match="is no name of an agent"):
        install(node, name)


def test_start_is_idempotent(node):
    """Starting a running agent returns the running one."""
    install(node, "a-1")
    first = node.start("a-1")
    assert node.start("a-1") == first
    assert node.running() == {"a-1": first}


def test_concurrent_starts_make_one_process(node):
    """Threads that start the same agent at once get the same process."""
    install(node, "a-1")
    found = []
    threads = [threading.Thread(target=lambda: found.append(node.start("a-1"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 6
    assert len(set(found)) == 1


def test_an_agent_that_was_not_installed_is_refused(node):
    """Starting what has no configuration says so."""
    with pytest.raises(ProvisioningError, match="not installed"):
        node.start("a-1")


def test_a_start_inherits_nothing_it_should_not(node, monkeypatch):
    """An agent has its own session, default signals, a tight umask, three descriptors and no secrets."""
    monkeypatch.setenv("DATABASE_URL", "postgres://secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    install(node, "a-1")
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with socket.socket() as inherited:
        os.set_inheritable(inherited.fileno(), True)
        try:
            node.start("a-1")
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            signal.signal(signal.SIGINT, previous)
    said = report(node, "a-1")
    assert said["descriptors"] == [0, 1, 2]
    assert said["umask"] == 0o077
    assert said["session"] == said["pid"] != os.getsid(0)
    assert said["interrupt"] is True
    assert said["blocked"] == []
    assert "DATABASE_URL" not in said["environment"]
    assert said["environment"]["OMP_NUM_THREADS"] == "1"
    assert said["environment"]["PYTHONPATH"] == str(ROOT)
    assert node.log_path("a-1").stat().st_mode & 0o777 == 0o600


def test_start_works_from_any_directory(node, tmp_path, monkeypatch):
    """The checkout's packages are found wherever the starter stands."""
    monkeypatch.chdir(tmp_path)
    install(node, "a-1")
    node.start("a-1")
    assert report(node, "a-1")["cwd"] == str(ROOT)


def test_an_agent_outlives_its_starter_and_is_known_again(node, home, program):
    """After the process that started an agent is killed, another one finds it and can stop it."""
    install(node, "a-1", mode="graceful")
    starter = (
        "import os, signal, sys; from pathlib import Path; from provisioning.local import LocalNode;"
        f"print(LocalNode(Path({str(home)!r}), program=({str(program)!r},)).start('a-1').pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", starter], check=False, cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    pid = int(ended.stdout)
    assert ended.returncode == -signal.SIGKILL
    assert node.running()["a-1"].pid == pid
    assert node.start("a-1").pid == pid
    report(node, "a-1")  # its handler is in place
    node.stop("a-1")
    wait_until(lambda: not node.running())
    assert node.exit_code("a-1") is None  # only its parent could know


def test_an_agent_without_a_record_is_adopted(node, home):
    """A starter that died before it wrote the record leaves an agent that the next start finds."""
    install(node, "a-1")
    first = node.start("a-1")
    record_path(home, "a-1").unlink()
    assert node.running() == {}
    assert node.start("a-1").pid == first.pid
    assert node.running()["a-1"].pid == first.pid


def test_a_recycled_pid_is_never_signalled(node, home):
    """A record that names another process's pid counts as dead, and nobody is stopped."""
    install(node, "a-1")
    program = "import signal; print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as stranger:
        try:
            stranger.stdout.readline()  # for a moment at its start a process has no command line
            created = psutil.Process(stranger.pid).create_time()
            (home / "run" / "agents").mkdir(parents=True)
            for create_time in (created, created - 1000):  # the same instant, and the usual case
                write_record(record_path(home, "a-1"), ProcessRecord("a-1", stranger.pid, create_time))
                assert node.running() == {}
                node.stop("a-1", kill=True)
                assert local.end_all(home, timeout_s=0.0) == []
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_the_exit_code_of_a_child_is_kept(node, home):
    """A child that failed is reaped, and its exit code and last words stay."""
    install(node, "a-1", mode="fail")
    process = node.start("a-1")
    wait_until(lambda: not node.running())
    assert node.exit_code("a-1") == 1
    assert read_record(record_path(home, "a-1")).exit_code == 1
    assert node.last_log_lines("a-1", 1) == ["the model did not load"]
    assert not psutil.pid_exists(process.pid)  # no zombie is left


def test_a_killed_child_says_which_signal(node):
    """SIGKILL is at once, and the exit code tells it."""
    install(node, "a-1", mode="stubborn")
    node.start("a-1")
    report(node, "a-1")
    node.stop("a-1", kill=True)
    wait_until(lambda: not node.running())
    assert node.exit_code("a-1") == -signal.SIGKILL


def test_a_zombie_of_another_parent_is_not_running(node, home, program):
    """An agent that ended but that its parent does not collect counts as gone."""
    install(node, "a-1", mode="fail")
    starter = (
        "import signal; from pathlib import Path; from provisioning.local import LocalNode;"
        f"LocalNode(Path({str(home)!r}), program=({str(program)!r},)).start('a-1'); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT) as parent:
        try:
            record = wait_until(lambda: read_record(record_path(home, "a-1")))
            wait_until(lambda: psutil.Process(record.pid).status() == psutil.STATUS_ZOMBIE)
            assert node.running() == {}
            assert local.end_all(home, timeout_s=0.0) == []
        finally:
            parent.kill()


def test_a_restart_forgets_the_last_exit_code(node):
    """A new start begins with no exit code."""
    install(node, "a-1", mode="fail")
    node.start("a-1")
    wait_until(lambda: node.exit_code("a-1") == 1)
    install(node, "a-1")
    node.start("a-1")
    assert node.exit_code("a-1") is None


def test_forget_refuses_a_running_agent_and_removes_a_stopped_one(node, home):
    """A running agent's files stay; of a stopped one nothing is left."""
    install(node, "a-1")
    node.start("a-1")
    with pytest.raises(ProvisioningError, match="still running"):
        node.forget("a-1")
    node.stop("a-1", kill=True)
    wait_until(lambda: not node.running())
    node.forget("a-1")
    node.forget("a-1")
    assert [path.name for path in home.rglob("*a-1*")] == []
    assert node.exit_code("a-1") is None


def test_a_large_log_is_rotated_before_a_start(node):
    """A log over the limit becomes `.1`, and only one such is kept."""
    install(node, "a-1", mode="fail")
    log = node.log_path("a-1")
    for round_number in range(2):
        node.start("a-1")
        wait_until(lambda: node.exit_code("a-1") == 1)
        log.write_bytes(b"%d" % round_number * (local.LOG_LIMIT_BYTES + 1))
    node.start("a-1")
    wait_until(lambda: node.exit_code("a-1") == 1)
    assert log.stat().st_size < 10_000
    assert sorted(path.name for path in log.parent.iterdir()) == ["a-1.log", "a-1.log.1"]
    assert (log.parent / "a-1.log.1").read_bytes()[:1] == b"1"


def test_last_log_lines_are_bounded_and_harmless(node):
    """Only the end is read, lines are cut, broken UTF-8 and control characters are replaced."""
    log = node.log_path("a-1")
    assert node.last_log_lines("a-1") == []
    log.parent.mkdir(parents=True)
    log.write_bytes(b"old\n" * 100_000 + b"x" * 5000 + b"\n\x1b[31mred\xff\n")
    assert node.last_log_lines("a-1", 2) == [
        "x" * local.LOG_LINE_CHARACTERS,
        " [31mred\N{REPLACEMENT CHARACTER}",
    ]
    assert node.last_log_lines("a-1", 0) == []


def test_end_all_ends_polite_stubborn_and_unrecorded_agents(node, home):
    """All agents of a home end, with SIGKILL where SIGTERM is not enough; another home's stay."""
    for agent, mode in (("polite", "graceful"), ("stubborn", "stubborn"), ("lost", "graceful")):
        install(node, agent, mode=mode)
        node.start(agent)
        report(node, agent)
    record_path(home, "lost").unlink()
    pids = [process.pid for process in node.running().values()]
    other = local.LocalNode(home / "other", program=node._program)
    install(other, "a-1")
    try:
        other.start("a-1")
        assert local.end_all(home, timeout_s=0.5) == ["lost", "polite", "stubborn"]
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert list((home / "run" / "agents").glob("*.json")) == []
        assert set(other.running()) == {"a-1"}
    finally:
        local.end_all(home / "other", timeout_s=0.0)


def test_end_all_of_an_empty_home_does_nothing(tmp_path):
    """A home that never had agents is no error."""
    assert local.end_all(tmp_path / "nowhere", timeout_s=1.0) == []


def test_a_damaged_record_counts_as_none(node, home):
    """A record cut short by a full disk neither breaks the listing nor a new start."""
    install(node, "a-1")
    process = node.start("a-1")
    record_path(home, "a-1").write_text('{"agent": "a-1", "pid"')
    assert node.running() == {}
    assert node.start("a-1").pid == process.pid


def test_a_disk_that_refuses_is_one_clear_line(tmp_path, program):
    """A state directory that cannot be written gives an error with the path."""
    (tmp_path / "file").write_text("")
    node = local.LocalNode(tmp_path / "file", program=(str(program),))
    with pytest.raises(ProvisioningError, match=r"could not be installed: Not a directory \(.*file"):
        install(node, "a-1")


def test_free_port_can_be_bound():
    """The port is free at that address."""
    port = local.free_port("127.0.0.1")
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))


def test_read_hardware_describes_this_machine():
    """What is read of this machine agrees with what Python says."""
    hardware = local.read_hardware()
    assert 1 <= hardware.cores_physical <= hardware.cores_logical
    assert hardware.cores_logical == psutil.cpu_count()
    assert hardware.ram_bytes == psutil.virtual_memory().total
    assert hardware.arch == os.uname().machine
    assert hardware.python == ".".join(map(str, sys.version_info[:3]))
    assert hardware.os

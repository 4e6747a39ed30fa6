"""Everything that happens to real machines can be done to a host, and undone."""

import contextlib
import errno
import socket
import threading
import time

import paramiko
import pytest
from fleet_groups import wait_until
from fleet_ssh import fingerprint, log_in, read_banner, run_over
from hosts import SUDOER

pytestmark = pytest.mark.slow
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
SINK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sink.bind(("", 9999))
    print("bound", file=open("/run/sink", "w"), flush=True)
    sink.settimeout(30)
    seen = 0
    while sink.recv(100) != b"end":
        seen += 1
    print(seen)
"""


@pytest.fixture(params=["bookworm", "trixie"])
def host(boot, request):
    """One host of each release."""
    return boot("alpha", request.param)


def test_cable_out_and_in(host):
    """While disconnected nothing arrives and nothing is refused; an open session goes on afterwards."""
    with log_in(host) as client:
        host.disconnect()
        with pytest.raises(OSError, match=r"timed out|[Nn]o route"):
            read_banner(host, 2.0)
        assert host.is_on
        host.connect()
        assert run_over(client, "echo still here") == (0, "still here\n")
    assert read_banner(host) == b"SSH-2.0-"


def test_power_cut(host):
    """A cut says nothing to anybody: open connections hear no end. The disk stays, and it starts again."""
    host.run("echo kept >/root/mark; sync")
    before, seen = host.run(BOOT_ID), host.fingerprints()
    with socket.create_connection((host.address, host.port), timeout=20.0) as link:
        link.recv(100)
        host.cut_power()
        assert not host.is_on
        link.settimeout(1.0)
        with pytest.raises(TimeoutError):
            link.recv(100)
    host.start()
    assert host.run("cat /root/mark") == "kept\n"
    assert host.boots == 2
    assert host.run(BOOT_ID) != before
    assert host.fingerprints() == seen


def test_reboot_from_inside(host):
    """A reboot ordered over SSH shuts down in order, starts again, and keeps the disk and the line."""
    host.spoil_line(delay_ms=20)
    host.run("echo kept >/root/mark")
    with log_in(host, SUDOER) as client, contextlib.suppress(paramiko.SSHException, OSError, EOFError):
        run_over(client, "sudo systemctl --no-block reboot")
    wait_until(lambda: host.boots == 2, 60.0, "the second start")
    host.wait_ready()
    assert host.run("cat /root/mark") == "kept\n"
    assert "Shutting down" in host.run("journalctl --no-pager --boot=-1 --lines=20")
    assert _time_to_connect(host) >= 0.04
    host.reboot()
    assert host.boots == 3


def test_power_off_from_inside(host):
    """A host that powers itself off stays off until switched on; so does one whose button was pressed."""
    host.run("systemctl --no-block poweroff")
    host.machine.wait_off(60.0)
    with pytest.raises(OSError, match=r"timed out|[Nn]o route"):
        read_banner(host, 2.0)
    host.start()
    host.stop()
    assert not host.is_on
    host.start()
    assert host.boots == 3


def test_hang(host):
    """A hung host takes connections and says nothing; afterwards it goes on as if nothing had been."""
    with log_in(host) as client:
        host.hang()
        with pytest.raises(TimeoutError):
            read_banner(host, 1.0)
        host.resume()
        assert run_over(client, "echo awake") == (0, "awake\n")
    host.hang()
    host.cut_power()
    host.start()


def test_sshd_stopped(host):
    """Without sshd the port is closed, which is not the same as a host that is off."""
    with log_in(host) as client:
        host.stop_sshd()
        with pytest.raises(ConnectionRefusedError):
            read_banner(host)
        assert run_over(client, "echo open") == (0, "open\n")
    host.start_sshd()
    assert read_banner(host) == b"SSH-2.0-"


def test_host_key_change(host):
    """Another host key is what the next connection sees."""
    with log_in(host) as client:
        before = fingerprint(client)
    host.change_host_key()
    with log_in(host) as client:
        kind, seen = fingerprint(client)
    assert (kind, seen) != before
    assert host.fingerprints()[kind] == seen


def test_full_disk(host):
    """A full disk refuses one more block, everywhere and also to root; freed, it takes it."""
    write = "python3 -c \"open('/var/lib/more', 'wb').write(b'x' * (2 << 20))\""
    host.fill_disk()
    assert f"[Errno {errno.ENOSPC}]" in host.run(f"{write} 2>&1", check=False)
    host.run("rm -f /var/lib/more")
    host.fill_disk(leave_bytes=10 << 20)
    assert 9 << 20 < host.free_bytes() < 11 << 20
    host.run(write)
    host.free_disk()
    assert host.free_bytes() > 1 << 30
    host.reboot()


def test_delay_and_loss(host):
    """Packets take the time they are told to, each way, and get lost in the share that is asked for."""
    host.spoil_line(delay_ms=60)
    assert _time_to_connect(host) >= 0.12
    with log_in(host) as client:
        assert run_over(client, "head -c 3000000 /dev/zero | wc -c") == (0, "3000000\n")
    host.spoil_line(loss_percent=50)
    assert 120 < _datagrams_that_arrive(host, 400) < 280
    host.spoil_line(loss_percent=100)
    with pytest.raises(TimeoutError):
        read_banner(host, 1.5)
    host.spoil_line()
    assert read_banner(host) == b"SSH-2.0-"
    assert _datagrams_that_arrive(host, 400) == 400


def test_narrow_line(host):
    """What comes to a host is held to the rate it is given."""
    host.spoil_line(rate_mbit=8)
    with log_in(host) as client:
        started = time.monotonic()
        assert run_over(client, "wc -c", "x" * 1_000_000) == (0, "1000000\n")
        assert time.monotonic() - started >= 0.7
        host.spoil_line()
        assert run_over(client, "wc -c", "x" * 1_000_000) == (0, "1000000\n")


def test_slow_machine(host):
    """A host can be given a part of a CPU; what it starts is held to it, also after a reboot."""
    host.limit_cpus(0.2)
    for _ in range(2):
        before = _throttled(host)
        host.run('systemd-run --quiet --wait python3 -c "for _ in range(3_000_000): pass"')
        assert _throttled(host) > before
        host.reboot()
    host.limit_cpus(None)


def _throttled(host):
    folders = [folder for folder in host.machine.group.folders if (folder / "cpu.stat").exists()]
    return max(
        int(line.split()[1])
        for folder in folders
        for line in (folder / "cpu.stat").read_text().splitlines()
        if line.startswith("nr_throttled")
    )


def _time_to_connect(host):
    read_banner(host)  # the neighbour's address is known from here on
    started = time.monotonic()
    socket.create_connection((host.address, host.port), timeout=20.0).close()
    return time.monotonic() - started


def _datagrams_that_arrive(host, count):
    """How many of `count` datagrams sent to the host come in."""
    result = []
    host.run("rm -f /run/sink")
    counting = threading.Thread(target=lambda: result.append(host.run("python3 -", given=SINK)))
    counting.start()
    wait_until(lambda: host.run("cat /run/sink 2>/dev/null", check=False) == "bound\n", 20.0, "the sink")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        for _ in range(count):
            link.sendto(b"one", (host.address, 9999))
            time.sleep(0.0005)  # a burst would overflow buffers, and that is another loss
        for _ in range(200):
            link.sendto(b"end", (host.address, 9999))
            counting.join(0.1)
            if not counting.is_alive():
                break
    return int(result[0])

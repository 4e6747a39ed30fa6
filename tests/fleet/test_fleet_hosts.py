"""The hosts are what tests of real hardware need: separate, reachable, and breakable in every way."""

import paramiko
import pytest
from fleet_ssh import fingerprint, log_in, run_over
from hosts import ASKED, GUEST, PASSWORD, ROOT, SUDOER

pytestmark = pytest.mark.slow
PYTHONS = {"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13"}
HARDENED = (
    "DynamicUser=yes ProtectSystem=strict ProtectHome=yes PrivateUsers=yes PrivateDevices=yes PrivateTmp=yes"
    " NoNewPrivileges=yes CapabilityBoundingSet= SystemCallFilter=@system-service MemoryDenyWriteExecute=yes"
)


def test_hosts_are_separate_machines(boot):
    """Each has its own systemd, journal, identity and host keys, and knows nothing of the other's."""
    hosts = [boot("alpha", "bookworm", wait=False), boot("beta", "trixie", wait=False)]
    for host in hosts:
        host.wait_ready()
        assert host.run("systemctl is-system-running --wait").strip() == "running"
        assert host.run("cat /proc/1/comm") == "systemd\n"
        assert host.run("hostname").strip() == host.name
        assert f"VERSION_CODENAME={host.release}\n" in host.run("cat /etc/os-release")
        assert host.run("python3 -V").startswith(f"Python {PYTHONS[host.release]}.")
        host.run(f"logger --tag fleet said by {host.name}; journalctl --sync")
    alpha, beta = hosts
    assert "said by alpha" in alpha.journal()
    assert "said by alpha" not in beta.journal()
    assert alpha.run("cat /etc/machine-id") != beta.run("cat /etc/machine-id")
    assert not set(alpha.fingerprints().values()) & set(beta.fingerprints().values())
    alpha.run("systemctl stop dbus.socket dbus.service")
    assert beta.run("systemctl is-active dbus.service").strip() == "active"


def test_bullseye_has_an_old_python(boot):
    """A host whose Python is too old for agents can be had too."""
    assert boot("old", "bullseye").run("python3 -V").startswith(f"Python {PYTHONS['bullseye']}.")


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_log_in(boot, release):
    """Passwords and keys open the accounts they belong to, and nothing else does."""
    host = boot("alpha", release)
    key = paramiko.RSAKey.generate(2048)
    host.authorize(GUEST, f"{key.get_name()} {key.get_base64()}")
    for user, how in [(user, {}) for user in (ROOT, SUDOER, ASKED, GUEST)] + [
        (GUEST, {"password": None, "key": key})
    ]:
        with log_in(host, user, **how) as client:
            assert run_over(client, "whoami") == (0, f"{user}\n")
            kind, seen = fingerprint(client)
            assert host.fingerprints()[kind] == seen
    host.set_password(ROOT, "another password")
    log_in(host, ROOT, "another password").close()
    for refused in ({"user": ROOT}, {"user": SUDOER, "password": None, "key": key}):
        with pytest.raises(paramiko.AuthenticationException):
            log_in(host, **refused)


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_ways_to_become_root(boot, release):
    """One account needs no password for sudo, one needs it, one may not."""
    host = boot("alpha", release)
    outcomes = {}
    for user in (SUDOER, ASKED, GUEST):
        with log_in(host, user) as client:
            asked = run_over(client, "sudo -n id -u")[1].strip()
            told = run_over(client, "sudo -k -S -p '' id -u", f"{PASSWORD}\n")[1].strip()
            outcomes[user] = (asked, told)
    assert outcomes == {SUDOER: ("0", "0"), ASKED: ("", "0"), GUEST: ("", "")}


def test_hardened_units_run(boot):
    """A unit as hardened as an agent's starts inside, under a memory limit."""
    properties = " ".join(f"--property={word}" for word in [*HARDENED.split(), "MemoryMax=200M"])
    for release in ("bookworm", "trixie"):
        host = boot(f"on-{release}", release)
        said = host.run(f"systemd-run --quiet --wait --pipe {properties} /usr/bin/python3 -c 'print(6 * 7)'")
        assert said == "42\n"


def test_neighbours(boot, fleet):
    """Hosts reach each other and this machine, and nothing beyond."""
    alpha, beta = boot("alpha", wait=False), boot("beta", "trixie", wait=False)
    alpha.wait_ready()
    beta.wait_ready()
    read = "import socket; print(socket.create_connection(('{}', 22), 10).recv(4))"
    for host, other in ((alpha, beta), (beta, alpha)):
        assert host.run(f'python3 -c "{read.format(other.address)}"') == "b'SSH-'\n"
        assert host.run("ip -brief -4 route").split()[0] == f"10.77.{fleet.network.number}.0/24"
        assert "unreachable" in host.run("ip route get 192.0.2.99 2>&1", check=False)


def test_a_new_disk(boot):
    """A reset host has forgotten everything, its identity included."""
    host = boot("alpha", "trixie")
    before = host.fingerprints(), host.run("cat /etc/machine-id")
    host.run("touch /root/mark")
    host.fill_disk()
    host.disconnect()
    host.reset()
    assert host.run("ls /root") == ""
    assert host.free_bytes() > 1 << 30
    assert not set(host.fingerprints().values()) & set(before[0].values())
    assert host.run("cat /etc/machine-id") != before[1]

"""What goes wrong with an enrolment: said in one line, nothing half done, and the same command mends it.

Most of it is waiting, so all boxes of this module are in trouble at once; each test looks at one of them.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from appliance_process import wait_until
from hosts import ASKED, GUEST, PASSWORD
from strangers import write_key
from test_enrolment_on_hosts import EVERYTHING

pytestmark = pytest.mark.slow
REFUSED_S = 30.0
HUNG_S = 45.0
AT_ONCE = 4
#: Where a release is on its way to a node: how much of it is there.
SENT = (
    "SELECT coalesce(max(have_bytes), 0) FROM appliance_transfer transfer JOIN appliance_node node"
    " ON node.id = transfer.node_id WHERE node.name = ?"
)


# -- refusals: each spoils a box, and gives the codes to expect, how to mend it, and how to enroll it


def wrong_password(host, _folder):
    """The account has another password."""
    host.set_password("root", "another-password")
    return {"wrong_password"}, lambda: host.set_password("root", PASSWORD), {}


def wrong_port(host, _folder):
    """Nobody listens on the port that was given."""
    mend = "printf 'Port 22\\nPort 2222\\n' >/etc/ssh/sshd_config.d/port.conf; systemctl restart ssh.service"
    return {"wrong_port"}, lambda: host.run(mend), {"options": ("--port", "2222")}


def no_sudo(host, _folder):
    """The account is not root and may not become root."""
    mend = "echo 'guest ALL=(ALL:ALL) ALL' >>/etc/sudoers.d/fleet"
    return {"no_sudo", "sudo_needs_password"}, lambda: host.run(mend), {"user": GUEST}


def sudo_asks(host, folder):
    """The log-in is by key, and sudo wants a password that nobody gave."""
    identity, public = write_key(folder)
    host.authorize(ASKED, public)
    mend = "echo 'asked ALL=(ALL:ALL) NOPASSWD: ALL' >>/etc/sudoers.d/fleet"
    return {"sudo_needs_password"}, lambda: host.run(mend), {"user": ASKED, "identity": identity}


def changed_host_key(host, _folder):
    """The box shows another host key than people expect."""
    expected = host.fingerprints()["ssh-ed25519"]
    host.run("cp -a /etc/ssh /root/ssh")
    host.change_host_key()

    def mend():
        host.run("cp -a /root/ssh/. /etc/ssh && rm -r /root/ssh && systemctl restart ssh.service")
        host.wait_ready()

    return {"host_key_changed"}, mend, {"pin": expected}


def disk_full(host, _folder):
    """There is no room for a release."""
    host.fill_disk(leave_bytes=100 << 20)
    return {"disk_full"}, host.free_disk, {}


REFUSALS = (wrong_password, wrong_port, no_sudo, sudo_asks, changed_host_key, disk_full)


def check_refusal(spoil, site, host, folder):
    codes, mend, how = spoil(host, folder)
    before = host.run(EVERYTHING)
    told = site.enroll(host, check=False, **how)
    assert told.code == 1, told
    assert told.node["code"] in codes, told
    assert told.node["error"]
    assert told.node["hint"]
    line = f"{host.name}: {told.node['error']}; {told.node['hint']}"
    assert told.said.rstrip().splitlines()[-1] == f"CommandError: {line}"
    assert told.seconds < REFUSED_S
    assert not site.knows(host.name)
    assert host.run(EVERYTHING) == before
    mend()
    mended = site.enroll(host, **how)
    print(f"\n{line}\n  refused in {told.seconds:.1f} s; mended, enrolled in {mended.seconds:.1f} s")


# -- interruptions


def hangs(site, host, _folder):
    """It freezes in the middle of a step."""
    host.run(
        "mv /usr/sbin/useradd /usr/sbin/useradd.kept; "
        "printf '#!/bin/sh\\ntouch /run/fleet-stuck\\nsleep 5\\nexec /usr/sbin/useradd.kept \"$@\"\\n' "
        ">/usr/sbin/useradd; chmod 755 /usr/sbin/useradd"
    )
    enrolling = site.begin_enroll(host)
    enrolling.until(lambda: host.run("ls /run/fleet-stuck 2>/dev/null", check=False), 30, "the step runs")
    host.hang()
    try:
        told = enrolling.finish()
    finally:
        host.resume()
    assert (told.code, told.node["code"]) == (1, "hung"), told
    assert told.seconds < HUNG_S
    assert not site.knows(host.name)
    host.run("mv /usr/sbin/useradd.kept /usr/sbin/useradd")
    site.enroll(host)
    print(f"\n{told.node['error']}; {told.node['hint']}\n  given up after {told.seconds:.1f} s")


def cut_in_transfer(site, host, _folder):
    """Its line goes while a release is sent."""
    host.spoil_line(rate_mbit=100)
    cut(site, host, lambda: site.query(SENT, host.name)[0][0] > 8 << 20)
    kept = "SELECT min(have_bytes) FROM appliance_transfer transfer JOIN appliance_node node"
    kept += " ON node.id = transfer.node_id WHERE node.name = ? AND transfer.have_bytes > 0"
    assert site.query(kept, host.name)[0][0] >= 8 << 20, "what was there already was sent again"


def cut_in_install(site, host, _folder):
    """Its line goes while the release is unpacked."""
    host.limit_cpus(0.4)
    cut(site, host, lambda: host.run("ls -A /var/lib/millwright/releases 2>/dev/null", check=False).strip())


def cut(site, host, is_time):
    enrolling = site.begin_enroll(host)
    enrolling.until(is_time, 60, "the moment to cut the line")
    host.disconnect()
    assert site.node_row(host.name)["enrolled_at"] is None
    enrolling.until(
        lambda: site.query("SELECT 1 FROM appliance_enrolment WHERE name = ? AND code != ''", host.name),
        60, "the worker notices",
    )  # fmt: skip
    host.limit_cpus(None)
    host.connect()
    told = enrolling.finish()
    assert (told.code, told.node["state"]) == (0, "ready"), f"{told}\n{site.log_tails()}"
    print(f"\ncut: ready after {told.seconds:.1f} s")


def foreign_host_key(site, host, _folder):
    """An enrolled node shows another host key."""
    site.enroll(host)
    host.change_host_key()
    host.reboot()  # a connection that is open would still be the old box's
    wait_until(lambda: "host_key_changed" in site.node_row(host.name)["problems"], 30, "the problem is shown")
    wait_until(lambda: site.states()[host.name] == "unreachable", 20, "it is unreachable")


INTERRUPTIONS = (hangs, cut_in_transfer, cut_in_install, foreign_host_key)


@pytest.fixture(scope="module")
def troubles(fleet, shared_site, tmp_path_factory):
    """What became of each box, by the trouble's name."""
    starting = threading.Lock()

    def run(trouble):
        with starting:
            host = fleet.start(f"fleet-{trouble.__name__.replace('_', '-')}", wait=False)
        host.wait_ready()
        folder = tmp_path_factory.mktemp("trouble")
        if trouble in REFUSALS:
            check_refusal(trouble, shared_site, host, folder)
        else:
            trouble(shared_site, host, folder)

    names = [f"fleet-{trouble.__name__.replace('_', '-')}" for trouble in (*INTERRUPTIONS, *REFUSALS)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # The long ones first: the others are done while those wait.
        yield {trouble: pool.submit(run, trouble) for trouble in (*INTERRUPTIONS, *REFUSALS)}
    shared_site.clear()
    fleet.remove(*(name for name in names if name in fleet.hosts))


@pytest.mark.parametrize("trouble", REFUSALS, ids=lambda trouble: trouble.__name__)
def test_a_refusal_says_why_and_leaves_nothing(troubles, trouble):
    """Cause and remedy in one line, no row, nothing on the box; mended, the same command works."""
    troubles[trouble].result()


def test_a_box_that_hangs_is_given_up_in_time(troubles):
    """A box that freezes in the middle of a step: the command ends with a cause; later the same one works."""
    troubles[hangs].result()


@pytest.mark.parametrize("trouble", [cut_in_transfer, cut_in_install], ids=lambda trouble: trouble.__name__)
def test_a_cut_line_delays_an_enrolment_and_no_more(troubles, trouble):
    """Once the line is back it goes on by itself from where it stopped, and the command sees it ready."""
    troubles[trouble].result()


def test_a_node_with_another_host_key_is_never_spoken_to(troubles):
    """An enrolled box that shows another key is unreachable, with a problem that says so."""
    troubles[foreign_host_key].result()

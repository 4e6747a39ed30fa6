"""What others on the network can reach of a node, and where a secret may never be found."""

import contextlib
import http.cookiejar
import json
import re
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request

import pytest
from appliance_process import wait_until
from hosts import ASKED
from strangers import PATHS, knock, self_signed

from provisioning.identity import load_identity

pytestmark = pytest.mark.slow
PASSWORDS = ("first-Passw0rd-7741", "second-Passw0rd-9152")
SEARCH = "grep -rlF -f - /etc /var /home /root /tmp /run --exclude-dir=releases --exclude-dir=models"
PAGES = (
    "/", "/no/such/page", "/nodes/", "/nodes/fleet-sealed/", "/nodes/fleet-sealed/edit/", "/enroll/",
    "/enrolments/1/", "/admin/", "/admin/appliance/node/", "/admin/appliance/auditevent/",
    "/api/nodes", "/api/enrolments", "/api/enrolments/x",
)  # fmt: skip


def test_strangers_get_nothing(boot, site, key):
    """Another box on the network, with any certificate that is not the gateway's, opens no port of ours."""
    host, other, stranger = (boot(f"fleet-{name}", wait=False) for name in ("open", "gone", "stranger"))
    for one in (host, other, stranger):
        one.wait_ready()
    bare = listeners(host)
    site.enroll(host, other)
    site.run("deploy", "minilm", "--model", "minilm", "--min", "2", "--max", "2", "--wait")
    folder = other.run("ls -d /var/lib/millwright/agents/*").strip()
    old = other.run(f"cat {folder}/cert.pem {folder}/key.pem")
    own = host.run("cat /var/lib/millwright/agents/*/cert.pem /var/lib/millwright/agents/*/key.pem")
    gone = site.query("SELECT name FROM appliance_node WHERE address = ?", other.address)[0][0]
    site.run("retire_node", gone)
    wait_until(lambda: site.node_row(gone)["retired_at"], 60, "the other node is retired")
    ours = listeners(host) - bare
    ports = {row["port"] for row in site.query(
        "SELECT agent.port FROM appliance_agent agent JOIN appliance_node node ON node.id = agent.node_id"
        " WHERE node.address = ? AND agent.state = 'ready'", host.address
    )}  # fmt: skip
    assert ports
    assert {port for _, port in ours} == ports, "nothing of ours listens but agents"
    gateway = (site.home / "ca" / "gateway.pem").read_text() + (site.home / "ca" / "gateway.key").read_text()
    certificates = {"none": "", "self-signed": self_signed(), "a retired node's": old, "the node's own": own}
    for port in ports:
        assert "200" in knock(host, port, shown=gateway)[0], "the gateway itself is let in"
        for name, shown in certificates.items():
            told = knock(host, port, shown=shown, stranger=stranger)
            assert len(told) == len(PATHS)
            assert not [line for line in told if "HTTP" in line], f"{name}: {told}"
        told = knock(host, port, plain=True, stranger=stranger)
        assert not [line for line in told if "HTTP" in line], f"without TLS: {told}"
    assert len(site.ask(key)) == 384


def listeners(host):
    """(address, port) of every TCP port that listens."""
    lines = host.run("ss -Hltn").splitlines()
    return {(line.split()[3].rpartition(":")[0], int(line.split()[3].rpartition(":")[2])) for line in lines}


class ProcessList:
    """What anybody on this machine and inside the hosts could read of processes while the block ran."""

    def __enter__(self):
        self.seen = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._over.is_set():
            told = subprocess.run(["ps", "auxwwe"], capture_output=True, text=True, check=True).stdout
            self.seen.update(line for line in told.splitlines() if "enroll" in line or "millwright" in line)
            self._over.wait(0.05)  # it takes turns with what it watches

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def test_secrets_are_nowhere(boot, site):
    """Passwords and private keys are in no log, process list, database, answer, page or file on the box."""
    hosts = [boot(f"fleet-{name}", wait=False) for name in ("given", "sealed")]
    for host, password in zip(hosts, PASSWORDS, strict=True):
        host.wait_ready()
        host.set_password(ASKED, password)
    given, sealed = hosts
    manage = {"Authorization": f"Bearer {site.create_key('robot', '--scope', 'manage')}"}
    with ProcessList() as processes:
        told = site.enroll(given, user=ASKED, password=PASSWORDS[0], options=("--verbosity", "3"))
        pin = sealed.fingerprints()["ssh-ed25519"]
        box = {"address": sealed.address, "name": sealed.name, "host_key": pin, "user": ASKED}
        asked = post(site, manage, {**box, "password": PASSWORDS[1]})
        wait_until(lambda: site.is_settled("fleet-sealed"), 60, f"the worker enrolled it: {asked}")
    wrong = site.enroll(given, check=False, user=ASKED, password=PASSWORDS[1], options=("--traceback",))
    said = [told.text, told.said, wrong.text, wrong.said, asked, *site.transcript, *pages(site)]
    said += [post(site, manage, {**box, "password": PASSWORDS[1], "port": "x", "more": PASSWORDS[0]})]
    said += [site.run("fleet", "--json").stdout]
    assert any("enroll_node" in line for line in processes.seen)
    secrets = (
        list(PASSWORDS) + key_lines(site.home / "ssh" / "id_ed25519") + key_lines(site.home / "ca" / "ca.key")
    )
    everywhere = {
        "process list": "\n".join(processes.seen),
        "what was said": "\n".join(said),
        "database": "\n".join(dumps(site.home)),
    }
    everywhere |= {str(path): path.read_bytes().decode(errors="replace") for path in readable(site.home)}
    found = [
        (where, secret[:12]) for where, text in everywhere.items() for secret in secrets if secret in text
    ]
    assert found == []
    assert "fleet-sealed" in everywhere["database"]
    public = load_identity((site.home / "ssh" / "id_ed25519").read_text()).public.split()[1]
    for host in hosts:
        assert "authorized_keys" in host.run(SEARCH, given=f"{public}\n"), "the search finds what is there"
        assert not [secret for secret in secrets if secret in host.journal(lines=5000)]
        listed = host.run(SEARCH, given="\n".join(secrets) + "\n", check=False)
        assert listed == ""
    assert not site.query("SELECT 1 FROM appliance_enrolment WHERE sealed IS NOT NULL")


def key_lines(path):
    """The lines of a private key that tell something of it."""
    body = [line for line in path.read_text().splitlines() if not line.startswith("-----")]
    return [line for line in body[1:] if len(line) >= 16] or body


def dumps(home):
    """Every database in SQL."""
    for path in home.rglob("*.sqlite3"):
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as line:
            yield from line.iterdump()


def readable(home):
    """Every file of the state directory but those that hold one secret each, and models and releases."""
    for path in home.rglob("*"):
        its_own = path.suffix == ".key" or path.name in ("id_ed25519", "sealing-key", "key.pem")
        large = path.suffix == ".gz" or path.parent.parent.name == "models"
        if path.is_file() and not its_own and not large:
            yield path


def pages(site):
    """Pages of the dashboard for a stranger and for the administrator, error pages among them."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    told = [read(browser, f"{site.dashboard}{path}") for path in PAGES]
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', told[0]).group(1)
    password = (site.home / "admin-password").read_text().strip()
    entered = {"username": "admin", "password": password, "csrfmiddlewaretoken": token}
    data = urllib.parse.urlencode(entered).encode()
    read(browser, f"{site.dashboard}/", data, {"Referer": f"{site.dashboard}/"})
    inside = [read(browser, f"{site.dashboard}{path}") for path in PAGES]
    assert "fleet-sealed" in "".join(inside), "it is logged in"
    return told + inside


def post(site, headers, document):
    """The answer of the management API to a box to enroll."""
    headers = {"Content-Type": "application/json", **headers}
    data = json.dumps(document).encode()
    return read(urllib.request.build_opener(), f"{site.dashboard}/api/nodes", data, headers)


def read(browser, url, data=None, headers=None):
    try:
        with browser.open(urllib.request.Request(url, data, headers or {}), timeout=20) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.read().decode()

"""A real appliance for real hosts: `manage.py up` with a home of its own, and what people ask of it."""

import datetime as dt
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance_process import ROOT, Appliance, copy_home, wait_until
from fleet_trees import cache_folder
from hosts import PASSWORD

MODEL = "minilm"
PYTHONS = ("3.11", "3.13")  # of Debian 12 and 13
KEPT_RELEASES = 16
BUILD = (
    "import sys; from pathlib import Path; from provisioning.bundle import build_release; "
    "[print(build_release(Path(sys.argv[1]), python, 'x86_64').path) for python in sys.argv[2:]]"
)
CLEAR = """
from appliance.deployments import undeploy
from appliance.models import Deployment, Node
from appliance.nodes import retire_node
for node in Node.objects.filter(retired_at__isnull=True).exclude(name="local"):
    retire_node(node.name, force=True, actor="test")
for deployment in Deployment.objects.all():
    undeploy(deployment.name, actor="test")
"""


@dataclass(frozen=True)
class Told:
    """How `enroll_node` ended: exit code, its rows, standard output and error, seconds from its start."""

    code: int
    nodes: list[dict]
    text: str
    said: str
    seconds: float

    @property
    def node(self) -> dict:
        """The one row."""
        (one,) = self.nodes
        return one


class Enrolling:
    """An `enroll_node` under way."""

    def __init__(self, process: subprocess.Popen[str], given: str):
        self._began = time.monotonic()
        self._process = process
        process.stdin.write(given)
        process.stdin.close()
        process.stdin = None

    def until(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        """Wait for a condition while it runs; fails with what it said where it ends first, or in time."""
        try:
            wait_until(lambda: condition() or self._process.poll() is not None, timeout_s, what)
            assert condition(), f"it ended before {what}"
        except AssertionError as problem:
            self._process.kill()
            raise AssertionError(f"{problem}: {self._process.communicate()}") from None

    def finish(self, timeout_s: float = 180.0) -> Told:
        """Wait for its end."""
        try:
            text, said = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            text, said = self._process.communicate()
            raise AssertionError(f"enroll_node did not end in {timeout_s} s: {text}{said}") from None
        seconds = time.monotonic() - self._began
        try:
            nodes = json.loads(text)["nodes"]
        except (ValueError, KeyError):
            nodes = []
        return Told(self._process.returncode, nodes, text, said, seconds)


class FleetAppliance(Appliance):
    """An appliance whose agents run on hosts alone."""

    def begin_enroll(
        self, *hosts, user="root", password=PASSWORD, identity=None, pin=None, options=()
    ) -> Enrolling:
        """Start `enroll_node`; nodes are named as their hosts, several after their addresses.

        `identity` is a key file to log in with instead of the password; `pin` the fingerprint to expect
        instead of the host's own.
        """
        command = [sys.executable, "manage.py", "enroll_node", *(host.address for host in hosts), "--json"]
        if len(hosts) == 1:
            pin = pin or hosts[0].fingerprints()["ssh-ed25519"]
            command += ["--name", hosts[0].name, "--host-key", pin]
        else:
            command += ["--accept-host-key"]
        command += ["--identity", str(identity)] if identity else ["--password-stdin"]
        process = subprocess.Popen(
            [*command, "--user", user, *options], cwd=self.root, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        return Enrolling(process, "" if identity else f"{password}\n")

    def enroll(self, *hosts, check=True, **how) -> Told:
        """Run `enroll_node` to its end; with `check`, all of them are ready nodes afterwards."""
        told = self.begin_enroll(*hosts, **how).finish()
        if check:
            assert told.code == 0, f"{told}\n{self.log_tails()}"
            assert [node["state"] for node in told.nodes] == ["ready"] * len(hosts), told
        return told

    def query(self, question: str, *values) -> list[sqlite3.Row]:
        """Rows of the database, as they are right now."""
        line = sqlite3.connect(f"file:{self.home}/db.sqlite3?mode=ro", uri=True, timeout=10)
        try:
            line.row_factory = sqlite3.Row
            return line.execute(question, values).fetchall()
        finally:
            line.close()

    def node_row(self, name: str) -> sqlite3.Row | None:
        """The row of a node, also of a retired one; None where there is none."""
        found = self.query("SELECT * FROM appliance_node WHERE name = ?", name)
        return found[0] if found else None

    def knows(self, name: str) -> bool:
        """Whether there is a node of that name that is not retired."""
        return bool(self.query("SELECT 1 FROM appliance_node WHERE name = ? AND retired_at IS NULL", name))

    def is_settled(self, name: str) -> bool:
        """Whether a node is in state ready, as far as its row tells."""
        fresh = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=8)
        return bool(
            self.query(
                "SELECT 1 FROM appliance_node WHERE name = ? AND enrolled_at IS NOT NULL AND wanted = 'ready'"
                " AND operation = '' AND seen_at > ?",
                name, f"{fresh:%Y-%m-%d %H:%M:%S}",
            )
        )  # fmt: skip

    def states(self, kind: str = "nodes") -> dict[str, str]:
        """States of nodes, deployments or agents by name, as `fleet` tells them."""
        return {row.get("name") or row["id"]: row["state"] for row in self.run_json("fleet")[kind]}

    def ready_on(self) -> list[str]:
        """The nodes of ready agents, one for each agent, sorted."""
        rows = self.query(
            "SELECT node.name FROM appliance_agent agent JOIN appliance_node node ON node.id = agent.node_id"
            " WHERE agent.state = 'ready' AND agent.wanted = 'warm' ORDER BY node.name"
        )
        return [row[0] for row in rows]

    def deploy(self, replicas: int, *nodes) -> None:
        """Have so many agents of the model, ready on these hosts."""
        few = str(replicas)
        self.run("deploy", MODEL, "--model", MODEL, "--min", few, "--max", few, "--wait")
        if nodes:
            expected = sorted(host.name for host in nodes)
            wait_until(lambda: self.ready_on() == expected, 30, f"agents on {expected}: {self.ready_on()}")

    def ask(self, key: str) -> list[float]:
        """One embedding through the gateway."""
        body = json.dumps({"model": MODEL, "input": "A mill by the river."}).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.api}/v1/embeddings", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"][0]["embedding"]

    def clear(self) -> None:
        """No nodes but its own and no deployment, whatever a test left; boxes are not asked."""
        self.run("shell", "-v", "0", "-c", CLEAR)
        wait_until(lambda: not self.query("SELECT 1 FROM appliance_deployment"), 30, "undeployed")


def make_bare_home(template: Path, home: Path) -> Path:
    """A state directory with the model, no deployment, and node `local` cordoned."""
    with FleetAppliance(copy_home(template, home)) as appliance:
        appliance.start()
        appliance.run("cordon_node", "local")
        appliance.run("undeploy", MODEL)
        wait_until(lambda: not appliance.query("SELECT 1 FROM appliance_agent"), 30, "no agent is left")
    return home


def copy_bare_home(bare: Path, home: Path, root: Path = ROOT) -> Path:
    """The same once more, with the releases of a checkout collected already."""
    copy_home(bare, home)
    add_releases(home, root)
    return home


def add_releases(home: Path, root: Path = ROOT, pythons: tuple[str, ...] = PYTHONS) -> None:
    """Collect a checkout's releases into a state directory; each is built once and kept in the cache."""
    cache = cache_folder() / "releases"
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(cache), *pythons],
        cwd=root, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    releases = home / "releases"
    releases.mkdir(mode=0o700, exist_ok=True)
    paths = [Path(line) for line in built.stdout.split()]
    for index in cache.glob("*.json"):
        path = cache / f"{json.loads(index.read_text())['sha256']}.tar.gz"
        if path in paths:
            shutil.copy(index, releases / index.name)
            _link(path, releases / path.name)
            os.utime(path)
    _forget_old(cache)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # the cache is on another disk
        shutil.copy(source, target)


def _forget_old(cache: Path) -> None:
    archives = sorted(cache.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in archives[KEPT_RELEASES:]:
        path.unlink(missing_ok=True)


def copy_checkout(target: Path) -> Path:
    """The product's sources once more, for a test that changes them."""
    for name in ("agents", "provisioning", "appliance", "dashboard"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (ROOT / "manage.py", *ROOT.glob("requirements*.txt"), ROOT / "pyproject.toml"):
        shutil.copy(path, target / path.name)
    return target

"""An appliance with agents of fixed service time on real hosts, and load on it: what scaling is judged by."""

import contextlib
import datetime as dt
import json
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.bench.open_load import OpenPlan, OpenRun, run_open
from tests.bench.servers import ROOT, Server

sys.path += [str(ROOT / "tests" / name) for name in ("stack", "fleet")]

from appliance_process import wait_until
from fleet_appliance import FleetAppliance, add_releases, make_bare_home
from fleet_trees import make_trees
from hosts import Fleet, Host, why_not

__all__ = [
    "Boxes", "Fleet", "Host", "LiveSite", "Phases", "live_site", "make_model_home", "make_trees",
    "wait_until", "why_not",
]  # fmt: skip

#: One at a time, so an agent does twenty requests a second.
SERVICE_MS = 50.0
CAPACITY_RPS = 1000 / SERVICE_MS
WAIT_S = 120.0
#: All in one transaction: no agent starts before its service time is known.
_ADD = """
import json, sys, time
from django.db import transaction
from appliance.deployments import deploy
from appliance.models import InferenceModel, Node, Revision
from appliance.policies.profiles import Profile, ProfileKey, box_of
from appliance.profiles import store_profile
told = json.loads('''{told}''')
name, service_s = told["name"], told["service_ms"] / 1000
manifest = {{"engine": "fake", "digest": told["digest"], "size_bytes": 1000}}
with transaction.atomic():
    InferenceModel.objects.create(name=name, source="dir:/fake", state="ready", digest=told["digest"],
        manifest=manifest)
    for box in {{box_of(node.hardware) for node in Node.objects.filter(retired_at__isnull=True)}}:
        rps = told["workers"] / service_s
        store_profile(ProfileKey(told["digest"], box, "fake", "1"), Profile(told["workers"], 1, 1, rps,
            10 * rps, service_s, 0.0, "measured", time.time(), rps))
    deploy(name, model=name, min_agents=told["min"], max_agents=told["max"], actor="bench")
    Revision.objects.filter(deployment__name=name).update(settings={{"fake_service_ms": told["service_ms"]}})
"""
#: Verbs from a process that stays: a command of its own takes a second to start.
_VERBS = """
import json, sys
from appliance.scaling import set_scaling
for line in sys.stdin:
    name, changes = json.loads(line)
    set_scaling(name, changes, actor="bench")
    print("done", flush=True)
"""


def seconds_of(text: str) -> float:
    """Unix seconds of a time as a row keeps it."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


def count_ready(agents: Iterable[Mapping[str, Any]]) -> int:
    """How many of these rows serve."""
    return sum((one["wanted"], one["state"]) == ("warm", "ready") for one in agents)


class LiveSite:
    """A started appliance whose agents run on hosts alone; `scratch` takes keys and records."""

    def __init__(self, appliance: FleetAppliance, scratch: Path, hosts: Sequence[Host] = ()) -> None:
        self.appliance, self.hosts = appliance, tuple(hosts)
        self._scratch = scratch
        self._key = appliance.create_key("live")
        self._key_file = scratch / "key"
        self._key_file.touch(0o600)
        self._key_file.write_text(self._key)
        self._runs = 0

    # Deployments.

    def add(
        self,
        name: str,
        *,
        least: int,
        most: int,
        service_ms: float = SERVICE_MS,
        workers: int = 1,
        **scaling: object,
    ) -> None:
        """A deployment of agents that take `service_ms` for a request, one at a time in each worker."""
        told = {"name": name, "digest": f"{abs(hash(name)):064x}"[:64], "service_ms": service_ms}
        script = _ADD.format(told=json.dumps({**told, "workers": workers, "min": least, "max": most}))
        self.appliance.run("shell", "-v", "0", "-c", script)
        if scaling:
            self.scale(name, **scaling)

    def scale(self, name: str, **keys: object) -> None:
        """`set_scaling`."""
        self.appliance.run("set_scaling", name, *(f"{key}={value}" for key, value in keys.items()))

    def undeploy(self, name: str) -> None:
        """Take it away, and wait until nothing of it is left."""
        self.appliance.run("undeploy", name)
        gone = "SELECT 1 FROM appliance_deployment WHERE name = ?"
        wait_until(lambda: not self.appliance.query(gone, name), WAIT_S, f"{name} is gone")

    def models(self) -> list[str]:
        """Models of its catalog that can be deployed and are no stand-ins."""
        rows = self.appliance.query(
            "SELECT name FROM appliance_inferencemodel WHERE state = 'ready' AND source NOT LIKE 'dir:/fake%'"
        )
        return [row[0] for row in rows]

    def agents(self, name: str) -> list[Mapping[str, Any]]:
        """Rows of its agents, with the name of their node."""
        rows = self.appliance.query(
            "SELECT agent.*, node.name AS node FROM appliance_agent agent"
            " JOIN appliance_deployment deployment ON deployment.id = agent.deployment_id"
            " JOIN appliance_node node ON node.id = agent.node_id WHERE deployment.name = ?", name,
        )  # fmt: skip
        return [dict(row) for row in rows]

    def ready(self, name: str) -> int:
        """Agents that serve."""
        return count_ready(self.agents(name))

    def desired(self, name: str) -> int:
        """The loop's last decision."""
        found = self.appliance.query("SELECT desired FROM appliance_deployment WHERE name = ?", name)
        return int(found[0][0])

    def cannot_tell(self, name: str) -> bool:
        """Whether the loop's last decision was that nothing is known."""
        ask = "SELECT 1 FROM appliance_deployment WHERE name = ? AND reason_kind = 'cannot_tell'"
        return bool(self.appliance.query(ask, name))

    def wait_ready(self, name: str, count: int, timeout_s: float = WAIT_S) -> None:
        """Wait until exactly so many serve, and no other is there."""
        words = f"{name} has {count} agents: {[(one['wanted'], one['state']) for one in self.agents(name)]}"
        wait_until(lambda: self.ready(name) == count and len(self.agents(name)) == count, timeout_s, words)

    def ticks_since(self, at: float) -> list[float]:
        """When ticks ran, Unix seconds, as they recorded it."""
        rows = self.appliance.query("SELECT at FROM appliance_recordedtick WHERE at >= ? ORDER BY at", at)
        return [float(row[0]) for row in rows]

    def scaled_down(self, name: str, since: float) -> int:
        """By how many agents decisions lowered the number, in all, since then."""
        rows = self.appliance.query(
            "SELECT before, after FROM appliance_decision WHERE deployment = ? AND after < before"
            " AND dry_run = 0 AND at >= datetime(?, 'unixepoch')", name, since,
        )  # fmt: skip
        return sum(int(row[0]) - int(row[1]) for row in rows)

    def decided_since(self, name: str, since: float) -> list[tuple[float, int]]:
        """When decisions since then were made (Unix seconds), and the number of agents after each."""
        rows = self.appliance.query(
            "SELECT at, after FROM appliance_decision WHERE deployment = ? AND dry_run = 0"
            " AND at >= datetime(?, 'unixepoch') ORDER BY at, id", name, since,
        )  # fmt: skip
        return [(seconds_of(row[0]), int(row[1])) for row in rows]

    def changes(self, name: str, since: float) -> int:
        """Decisions since then that changed its number."""
        rows = self.appliance.query(
            "SELECT count(*) FROM appliance_decision WHERE deployment = ? AND after <> before"
            " AND dry_run = 0 AND at >= datetime(?, 'unixepoch')", name, since,
        )  # fmt: skip
        return int(rows[0][0])

    @contextlib.contextmanager
    def verbs(self) -> Iterator["Verbs"]:
        """A process that orders changes of scaling at once."""
        with Verbs(self.appliance) as verbs:
            yield verbs

    def deploy(self, name: str, model: str, *, least: int, most: int, **scaling: object) -> None:
        """A deployment of a model of the catalog; returns once it has served."""
        few, many = str(least), str(most)
        self.appliance.run("deploy", name, "--model", model, "--min", few, "--max", many, "--wait")
        if scaling:
            self.scale(name, **scaling)

    # Load.

    def server(self) -> Server:
        """As load generators take it."""
        return Server("millwright", f"{self.appliance.api}/v1/embeddings", self._key_file)

    def bodies(self, name: str) -> Path:
        """One request for a deployment, in a file."""
        path = self._scratch / f"{name}.jsonl"
        path.write_text(json.dumps({"model": name, "input": "A mill by the river."}) + "\n")
        return path

    def ask(self, name: str, timeout_s: float = 60.0) -> float:
        """One request; seconds to its answer."""
        request = urllib.request.Request(
            f"{self.appliance.api}/v1/embeddings",
            json.dumps({"model": name, "input": "A mill by the river."}).encode(),
            {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        began = time.monotonic()
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            answer.read()
        return time.monotonic() - began

    def offer(self, name: str, rps: float, seconds: float, seed: int = 1) -> OpenRun:
        """Requests in open loop, from a process of its own, to their end. Raises BenchError."""
        self._runs += 1
        plan = OpenPlan(rps, seconds, seed, timeout_s=60.0)
        return run_open(self.server(), self.bodies(name), plan, self._scratch / f"run-{self._runs}.jsonl")


class Phases:
    """Load that changes: one rate (requests a second, seconds) after the other, in a thread.

    It ends with the last of them, or with the one under way when `over` is set.
    """

    def __init__(
        self,
        site: LiveSite,
        name: str,
        phases: Iterable[tuple[float, float]],
        over: threading.Event | None = None,
    ) -> None:
        self._site, self._name, self._phases = site, name, phases
        self._over = over or threading.Event()
        self.runs: list[OpenRun] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._thread.join()

    @property
    def running(self) -> bool:
        """Whether load is offered still."""
        return self._thread.is_alive()

    def _run(self) -> None:
        for number, (rps, seconds) in enumerate(self._phases):
            if self._over.is_set():
                return
            self.runs.append(self._site.offer(self._name, rps, seconds, number))

    @property
    def requests(self) -> int:
        """How many were offered."""
        return sum(len(run.rows) for run in self.runs)

    @property
    def failures(self) -> list[str]:
        """Of each that was not answered with 2xx: its status or cause."""
        return [str(row.status or row.cause) for run in self.runs for row in run.failed]


class Verbs:
    """Orders changes of scaling, each within some milliseconds."""

    def __init__(self, appliance: FleetAppliance) -> None:
        self._process = appliance.open("shell", "-v", "0", "-c", _VERBS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def scale(self, name: str, **keys: object) -> None:
        """`set_scaling`."""
        self._process.stdin.write(json.dumps([name, {key: str(value) for key, value in keys.items()}]) + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        assert said == "done\n", said


@dataclass(frozen=True, slots=True)
class Boxes:
    """How many hosts a site has, and their names' beginning."""

    count: int = 2
    prefix: str = "scaled"


def make_model_home(model: Path, scratch: Path) -> Path | None:
    """A state directory with a model that another has in its own, for `live_site`; None: that is none."""
    template = model.parent.parent
    if not (template / "db.sqlite3").is_file():
        return None
    home = make_bare_home(template, scratch / "model-home")
    add_releases(home, pythons=("3.11",))
    return home


@contextlib.contextmanager
def live_site(
    fleet: Fleet, scratch: Path, boxes: Boxes = Boxes(), home: Path | None = None
) -> Iterator[LiveSite]:
    """Boot hosts, start an appliance, enroll them; all of it ends with the block.

    `home` is a state directory with a model and without local agents; else it is a new one.
    """
    names = [f"{boxes.prefix}-{number}" for number in range(boxes.count)]
    hosts: list[Host] = [fleet.start(name, wait=False) for name in names]
    try:
        appliance = FleetAppliance(home or scratch / "home")
        if home is None:
            appliance.home.mkdir(mode=0o700)
            add_releases(appliance.home, pythons=("3.11",))
        with appliance:
            appliance.start()
            appliance.run("cordon_node", "local")
            for host in hosts:
                host.wait_ready()
            for one in [appliance.begin_enroll(host) for host in hosts]:
                told = one.finish()
                assert told.code == 0, told
            yield LiveSite(appliance, scratch, hosts)
    finally:
        fleet.remove(*names)

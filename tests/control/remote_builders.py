"""Remote nodes that are only played: a lane and hands in memory, for a loop with an explicit clock."""

import datetime as dt
from types import SimpleNamespace

from appliance.control.node_seen import JobResult, Observation, Problem
from appliance.models import Node
from provisioning.certificates import Issued

OLD, NEW = "0" * 63 + "1", "0" * 63 + "2"
HARDWARE = {"cores_physical": 2, "ram_bytes": 16 * 10**9, "python": "3.11.2", "arch": "x86_64"}


class PlayedNode:
    """A box, its lane and the hands that act on it. `away` makes it silent; `alive` is what runs there."""

    def __init__(self, stage, name, **row):
        self.stage, self.name = stage, name
        self.boot_id, self.away, self.skew_s, self.met = "boot-1", False, 0.0, True
        self.alive, self.calls, self.jobs, self.results = {}, [], [], []
        self.failures, self.coming, self.found = {}, set(), ()
        self.certificates, self.release = {}, {}
        self.seen_at = stage.now
        self.hands = self
        seen_at = dt.datetime.fromtimestamp(stage.now, dt.UTC)
        self.row = Node.objects.create(
            name=name, address=f"{name}.test", account="millwright", host_key="SHA256:x", seen_at=seen_at,
            enrolled_at=seen_at, hardware=HARDWARE, boot_id="boot-1",
            **{"release_sha256": OLD, "steward_sha256": "5" * 64, **row},
        )  # fmt: skip
        stage.lanes.by_name[name] = self

    # The lane.

    def observation(self):
        if not self.away:
            self.seen_at, self.met = self.stage.now, True
        if not self.met:
            return None
        return Observation(self.seen_at, self.boot_id, "5" * 64, self.skew_s, HARDWARE, {})

    def problems(self):
        return tuple(Problem(code, f"it is {code}", "mend it") for code in self.found)

    def submit(self, name, work, *, agent="", on_end=None):
        self.jobs.append(name)
        return True

    def take_results(self):
        results, self.results = self.results, []
        return results

    def ended(self, name, error=""):
        """A job has ended so."""
        self.results.append(JobResult(name, error, "x" if error else ""))

    # The hands.

    def running(self):
        if self.away:
            raise OSError("it is away")
        return dict(self.alive)

    def in_hand(self):
        return frozenset(self.coming)

    def take_failures(self):
        failures, self.failures = self.failures, {}
        return failures

    def exit_of(self, agent):
        return 1, ("its last words",)

    def new_port(self, host, taken):
        return next(port for port in range(9200, 10000) if port not in taken)

    def install(self, spec, now):
        self.calls.append(("install", spec.id))
        issued = self.stage.hands._authority.issue_server(spec.id, (spec.host, "localhost"), now)
        self.renew(spec, issued)
        return issued

    def renew(self, spec, issued: Issued):
        self.certificates[spec.id] = issued.sha256
        self.release[spec.id] = Node.objects.get(name=self.name).release_sha256

    def is_installed(self, agent, certificates):
        release = Node.objects.get(name=self.name).release_sha256
        return self.certificates.get(agent) in certificates and self.release.get(agent) == release

    def installed_certificate(self, agent):
        return self.certificates.get(agent, "")

    def start(self, agent):
        self.calls.append(("start", agent))
        self.alive[agent] = 1000 + len(self.calls)

    def stop(self, agent, *, kill=False):
        self.calls.append(("stop", agent))
        self.alive.pop(agent, None)

    def forget(self, agent):
        self.calls.append(("forget", agent))

    def sweep(self, known):
        self.calls.append(("sweep", known))

    # What the test does.

    def reboot(self):
        """The box restarts, as it was told or by itself."""
        self.boot_id, self.alive = "boot-2", {}

    def fresh(self):
        """The row as it is now."""
        return Node.objects.get(name=self.name)

    @property
    def codes(self):
        return [problem["code"] for problem in self.fresh().problems]


def release_of(digest):
    """What the shelf gives."""
    return SimpleNamespace(sha256=digest, path=None, size_bytes=1)

"""A worker with a fleet that is only played: real rows, real lanes, real ticks; stewards answer from memory.

`python -m tests.bench.simulated_fleet make|work HOME ...`, each in a process of its own with Django.
"""

# ruff: noqa: PLC0415 - Django's models can be imported only once it is set up
import argparse
import datetime as dt
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from provisioning.transport import DEFAULT_LIMITS, Limits, OnOutput, Result

DIGEST = "ab" * 32
MODEL_BYTES = 24_000_000
CORES, RAM_BYTES = 8, 32 * 10**9
#: Agents of a deployment at first, and the most.
MOST_FACTOR = 2
TICKS_FILE = "ticks.jsonl"
_CPUINFO = "".join(
    f"processor : {core}\nmodel name : Played CPU\nphysical id : 0\ncore id : {core}\nflags : avx2 fma\n\n"
    for core in range(CORES)
)
_FACTS = {
    "cpuinfo": _CPUINFO, "meminfo": f"MemTotal: {RAM_BYTES // 1024} kB\n", "arch": "x86_64",
    "os_release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n', "python": "3.11.2",
    "disk_bytes": 10**11, "disk_free_bytes": 5 * 10**10,
}  # fmt: skip


class PlayedSteward:
    """A node's steward: its agents as units, kept in memory. Used by its lane's thread alone."""

    def __init__(self, steward_sha256: str, agents: Iterable[str]) -> None:
        self._steward_sha256 = steward_sha256
        self._units = {agent: _unit("active") for agent in agents}
        self._status = b""

    def run(
        self,
        command: str,
        *,
        stdin: Iterable[bytes] = (),
        limits: Limits = DEFAULT_LIMITS,
        on_output: OnOutput | None = None,
    ) -> Result:
        """Answer one question, as `transport.Carrier` has it."""
        del command, limits
        assert on_output is not None
        asked = json.loads(b"".join(stdin).split(b"\n", 1)[0])
        on_output(self._answer(str(asked["verb"]), asked))
        return Result(0, b"", b"")

    def close(self) -> None:
        """Nothing waits here."""

    def _answer(self, verb: str, asked: dict[str, Any]) -> bytes:
        if verb == "status":
            self._status = self._status or _line(agents=self._units)
            return self._status
        if verb == "hello":
            return _line(boot_id="boot-1", steward=self._steward_sha256, time=time.time())
        if verb == "facts":
            return _line(**_FACTS)
        if verb == "logs":
            return _line(lines=[])
        if verb == "missing":
            return _line(models=[], releases=[], blobs={})
        agent = str(asked.get("agent", ""))
        brought = [str(one["agent"]) for one in asked.get("agents", ())]
        self._units |= {one: _unit("active") for one in brought}
        if verb == "start":
            self._units[agent] = _unit("active")
        elif verb == "stop" and agent in self._units:
            self._units[agent] = _unit("inactive")
        elif verb == "forget":
            self._units.pop(agent, None)
        self._status = b""
        return _line(agents={one: {} for one in brought})


def _unit(state: str) -> dict[str, object]:
    shown = {"ActiveState": state, "MainPID": "100" if state == "active" else "0", "ExecMainCode": "0"}
    return {
        "unit": shown, "written": {"release": "5e" * 32, "model": DIGEST}, "sha256": {"ca.pem": "ca" * 32},
        "certificate_sha256": "ce" * 32,
    }  # fmt: skip


def _line(**answer: object) -> bytes:
    return json.dumps({"ok": True, **answer}).encode() + b"\n"


def make_rows(nodes: int, agents: int, deployments: int) -> None:
    """Migrate, and fill the database with a fleet that serves."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    call_command("migrate", database="history", verbosity=0)
    from django.conf import settings
    from django.db import transaction

    from appliance.authority import ensure_authority

    ensure_authority(settings.ENVIRONMENT)
    with transaction.atomic():
        boxes = _make_nodes(nodes)
        _make_agents(boxes, agents // deployments, deployments)
    from appliance.publish import write_routes

    write_routes()


def _make_nodes(count: int) -> list[Any]:
    from appliance.control.node_seen import parse_facts
    from appliance.models import Node
    from provisioning.bundle import build_steward

    now = dt.datetime.now(dt.UTC)
    Node.objects.create(name="local", address="127.0.0.1", wanted="cordoned")
    rows = [
        Node(
            name=f"node-{number:03}", address=f"10.99.{number // 250}.{number % 250 + 1}", seen_at=now,
            account="millwright", host_key="SHA256:" + "A" * 43, host_key_kind="ssh-ed25519",
            enrolled_at=now, release_sha256="5e" * 32, boot_id="boot-1", hardware=parse_facts(_FACTS),
            steward_sha256=hashlib.sha256(build_steward()).hexdigest(),
        )
        for number in range(count)
    ]  # fmt: skip
    return Node.objects.bulk_create(rows)


def _make_agents(nodes: list[Any], each: int, deployments: int) -> None:
    from appliance.deployments import deploy
    from appliance.models import Agent, Deployment, InferenceModel, Revision
    from appliance.profiles import starting_profile

    manifest = {"engine": "fake", "digest": DIGEST, "size_bytes": MODEL_BYTES}
    InferenceModel.objects.create(
        name="simulated", source="dir:/simulated", state="ready", digest=DIGEST, manifest=manifest
    )
    now = dt.datetime.now(dt.UTC)
    rows = []
    for number in range(deployments):
        name = f"simulated-{number:02}"
        told = deploy(name, model="simulated", min_agents=1, max_agents=MOST_FACTOR * each, actor="bench")
        revision = Revision.objects.select_related("model").get(deployment=told.deployment)
        for count in range(each):
            place = number * each + count
            node = nodes[place % len(nodes)]
            rows.append(
                Agent(
                    id=f"{name}-{count:06x}",
                    deployment=told.deployment,
                    revision=revision,
                    node=node,
                    host=node.address,
                    port=9200 + place // len(nodes),
                    started_at=now,
                    ready_at=now,
                    profile=starting_profile(node, revision),
                    certificates=["ce" * 32],
                    state="ready",
                    certificate_expires_at=now + dt.timedelta(days=90),
                    release_sha256="5e" * 32,
                    pid=100,
                )
            )
    Agent.objects.bulk_create(rows)
    Revision.objects.update(proven_at=now)
    Deployment.objects.update(desired=each)
    # Every fifth scales by a target, the others by how long requests wait.
    Deployment.objects.filter(name__regex=r"[05]$").update(target_in_flight=46.0)


def work(home: Path) -> None:
    """The worker, with played stewards instead of SSH; each tick leaves a line in the ticks file."""
    from appliance.control import levels
    from appliance.models import Agent
    from provisioning import ssh
    from provisioning.bundle import build_steward

    sha256 = hashlib.sha256(build_steward()).hexdigest()
    own: dict[str, list[str]] = {}
    for agent, host in Agent.objects.values_list("id", "host"):
        own.setdefault(host, []).append(agent)
    stewards = {host: PlayedSteward(sha256, agents) for host, agents in own.items()}
    # Before the lanes are imported: what connects is an argument's default there.
    ssh.connect = lambda address, _host_key, _way, **_given: stewards[address.host]  # type: ignore[assignment]
    levels.request_agent = lambda *_given, **_named: (200, b"")  # type: ignore[attr-defined]
    _time_ticks(home / TICKS_FILE)
    from django.core.management import call_command

    call_command("worker")


def _time_ticks(path: Path) -> None:
    from appliance.control import tick

    real = tick.Loop.tick
    file = path.open("a", buffering=1)

    def timed(self: tick.Loop, trigger: str, now: float | None = None) -> object:
        began, cpu = time.time(), time.thread_time()
        plan = real(self, trigger, now)
        took_s = time.time() - began
        changed = 0 if plan is None else sum(abs(one.desired - one.before) for one in plan.deployments)
        told = {"at": began, "took_s": took_s, "cpu_s": time.thread_time() - cpu, "trigger": trigger}
        file.write(json.dumps(told | {"ran": plan is not None, "changed": changed}) + "\n")
        return plan

    tick.Loop.tick = timed  # type: ignore[method-assign,assignment]
    if seconds := float(os.environ.get("MILLWRIGHT_PROFILE_TICKS") or 0):
        _profile(path.with_name("ticks.prof"), seconds)


def _profile(path: Path, seconds: float) -> None:
    """For whoever makes ticks faster: a profile of the thread that runs them, after so many seconds."""
    import cProfile

    from appliance.control import tick

    profile, timed, until = cProfile.Profile(), tick.Loop.tick, time.time() + seconds

    def profiled(self: tick.Loop, trigger: str, now: float | None = None) -> object:
        profile.enable()
        try:
            return timed(self, trigger, now)
        finally:
            profile.disable()
            if time.time() > until:
                profile.dump_stats(path)

    tick.Loop.tick = profiled  # type: ignore[method-assign,assignment]


def main() -> None:
    """`make HOME NODES AGENTS DEPLOYMENTS`, or `work HOME`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("make", "work"))
    parser.add_argument("home", type=Path)
    parser.add_argument("counts", type=int, nargs="*")
    given = parser.parse_args()
    import django

    django.setup()
    if given.what == "make":
        make_rows(*given.counts)
    else:
        work(given.home)


if __name__ == "__main__":
    main()

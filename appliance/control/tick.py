"""One pass of the loop: observe, decide, write, act."""

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from django.db import Error as DatabaseError
from django.db import transaction

from appliance.control import lease
from appliance.control.ask import Asker
from appliance.control.gateway_board import GatewayBoard
from appliance.control.hands import AgentSpec, Hands, LaneBusy
from appliance.control.history import Recorder, Usage
from appliance.control.imports import due_imports
from appliance.control.record import prune_decisions, record
from appliance.control.rows import default_profile, read_agents, read_deployments, read_epoch, read_nodes
from appliance.models import Agent, Decision, Node, Revision, RouteState
from appliance.models.agents import new_agent_id
from appliance.models.nodes import LOCAL_NODE
from appliance.policies.fleet import AgentFacts, Exit, FleetSnapshot
from appliance.policies.reconcile import Create, EndOrphan, Forget, Plan, Start, Stop, plan
from appliance.policies.snapshot import Generation
from appliance.publish import read_generation, touch_routes, write_routes
from provisioning.errors import ProvisioningError

LOCAL_HOST = "127.0.0.1"
_HARDWARE_EVERY_S = 600.0
_HOUSEKEEPING_EVERY_S = 60.0
#: What a node may answer with instead of doing what it was asked.
NodeErrors = (OSError, ProvisioningError, LaneBusy)

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outside:
    """What a loop touches beyond rows; tests give it others."""

    board: GatewayBoard
    hands: Hands
    asker: Asker
    routes_file: Path
    read_hardware: Callable[[], Mapping[str, object]]
    read_usage: Callable[[], Usage | None]
    enqueue_import: Callable[[int], object]


class Loop:
    """The loop of one process. `tick` may be called from any thread; only one runs at a time."""

    def __init__(self, outside: Outside, owner: str | None = None) -> None:
        self._outside = outside
        self.owner = owner or lease.this_owner()
        self._turn = threading.Lock()
        self._next = threading.Lock()
        self._recorder = Recorder()
        self._routes_seen: tuple[int, Generation | None] = (0, None)
        self._hardware_at = float("-inf")
        self._housekeeping_at = float("-inf")

    def tick(self, trigger: str, now: float | None = None) -> Plan | None:
        """Run one pass; None where another process has the lease, or one waits that will see all this.

        Raises LostLease where it was taken over meanwhile: then nothing more was written.
        """
        if not self._next.acquire(blocking=False):
            return None
        with self._turn:
            self._next.release()
            held = lease.take(self.owner)
            if held is None:
                return None
            now = time.time() if now is None else now
            self._see_node(now)
            snapshot = self._observe(now)
            decided = plan(snapshot)
            created = self._prepare(decided, now)
            record(held, snapshot, decided, created, trigger)
            self._act(held, decided, created, now)
            self._after(snapshot, now)
            return decided

    # Observe.

    def _see_node(self, now: float) -> None:
        """Keep the row of this machine: its hardware, and that it was seen."""
        seen_at = dt.datetime.fromtimestamp(now, dt.UTC)
        if now - self._hardware_at >= _HARDWARE_EVERY_S:
            hardware = dict(self._outside.read_hardware())
            Node.objects.update_or_create(
                name=LOCAL_NODE,
                defaults={"hardware": hardware, "seen_at": seen_at},
                create_defaults={"hardware": hardware, "seen_at": seen_at, "address": LOCAL_HOST},
            )
            self._hardware_at = now
        else:
            Node.objects.filter(name=LOCAL_NODE).update(seen_at=seen_at)

    def _observe(self, now: float) -> FleetSnapshot:
        view = self._outside.board.view(now)
        nodes = read_nodes()
        cores = next((node.cores for node in nodes if node.name == LOCAL_NODE), 1)
        agents = read_agents()
        running = _try(self._outside.hands.running)
        snapshot = FleetSnapshot(
            now=now,
            epoch=read_epoch(),
            deployments=read_deployments(cores),
            agents=agents,
            nodes=nodes,
            reports=view.reports,
            silent=view.silent,
            heard_since=view.heard_since,
            held=view.held,
            running=running,
            exits={} if running is None else self._exits(agents, running),
            busy=self._outside.asker.answers(now),
        )
        self._ask_leaving(snapshot)
        return snapshot

    def _exits(self, agents: tuple[AgentFacts, ...], running: Mapping[str, int]) -> dict[str, Exit]:
        found = {}
        for agent in agents:
            if agent.wanted == "warm" and agent.started_at is not None and agent.id not in running:
                ended = _try(self._outside.hands.exit_of, agent.id)
                if ended is not None:
                    found[agent.id] = Exit(*ended)
        return found

    def _ask_leaving(self, snapshot: FleetSnapshot) -> None:
        """Ask agents that leave and that no gateway tells of, whether they hold work."""
        silent = []
        for agent in snapshot.agents:
            if agent.wanted == "draining" and snapshot.running and agent.id in snapshot.running:
                link = snapshot.link(agent)
                if link is None or link.busy is None:
                    silent.append(agent.id)
        if silent:
            rows = Agent.objects.filter(pk__in=silent)
            self._outside.asker.ask(rows.values_list("id", "host", "port"))

    # Act. Never inside a transaction.

    def _prepare(self, decided: Plan, now: float) -> list[Agent]:
        """Before the rows are written: files of new agents come, of forgotten ones go."""
        created = []
        for action in decided.actions:
            if isinstance(action, Create):
                agent = _try(self._install_new, action, now)
                if agent is not None:
                    created.append(agent)
            elif isinstance(action, Forget):
                _try(self._outside.hands.forget, action.agent)
        return created

    def _install_new(self, action: Create, now: float) -> Agent:
        revision = Revision.objects.select_related("deployment", "model").get(pk=action.revision)
        node = Node.objects.get(name=action.node)
        agent = Agent(
            id=new_agent_id(action.deployment),
            deployment=revision.deployment,
            revision=revision,
            node=node,
            host=LOCAL_HOST,
            port=self._new_port(),
            profile=default_profile(node.cores),
            started_at=dt.datetime.fromtimestamp(now, dt.UTC),
            unready_at=dt.datetime.fromtimestamp(now, dt.UTC),
        )
        self._install(agent, now)
        return agent

    def _install(self, agent: Agent, now: float) -> None:
        at = dt.datetime.fromtimestamp(now, dt.UTC)
        agent.certificate_sha256 = self._outside.hands.install(describe(agent), at).sha256

    def _new_port(self) -> int:
        taken = frozenset(Agent.objects.values_list("port", flat=True))
        return self._outside.hands.new_port(LOCAL_HOST, taken)

    def _act(self, held: lease.Held, decided: Plan, created: list[Agent], now: float) -> None:
        """Do the rest. What it taught of agents is written in one more transaction, where there is any."""
        learned: dict[str, dict[str, object]] = {}
        for agent in created:
            learned[agent.id] = self._start(agent.id)
        for action in decided.actions:
            if isinstance(action, Start):
                learned[action.agent] = self._restart(action, now)
            elif isinstance(action, Stop | EndOrphan):
                kill = isinstance(action, Stop) and action.kill
                _try(self._outside.hands.stop, action.agent, kill=kill)
        learned = {agent: changes for agent, changes in learned.items() if changes}
        if not learned:
            return
        with transaction.atomic():
            lease.confirm(held)
            for agent_id, changes in learned.items():
                Agent.objects.filter(pk=agent_id).update(**changes)
            if any("certificate_sha256" in changes for changes in learned.values()):
                touch_routes()

    def _start(self, agent: str) -> dict[str, object]:
        try:
            return {"pid": self._outside.hands.start(agent)}
        except NodeErrors as error:
            log.warning("agent %s could not be started: %s", agent, error)
            return {"error": f"it could not be started: {error}"}

    def _restart(self, action: Start, now: float) -> dict[str, object]:
        """Start again; with new files where the old are gone, or port or certificate will not do."""
        agent = Agent.objects.select_related("deployment", "revision__model", "node").get(pk=action.agent)
        changes: dict[str, object] = {}
        at = dt.datetime.fromtimestamp(now, dt.UTC)
        try:
            if action.new_port:
                agent.port = changes["port"] = self._new_port()
            if action.new_port or not self._outside.hands.is_installed(
                agent.id, agent.certificate_sha256, at
            ):
                self._install(agent, now)
                changes["certificate_sha256"] = agent.certificate_sha256
        except NodeErrors as error:
            return {"error": f"it could not be installed: {error}"}
        return changes | self._start(agent.id)

    # Afterwards: what no decision waits for.

    def _after(self, snapshot: FleetSnapshot, now: float) -> None:
        self._keep_routes_file()
        for model in due_imports():
            self._outside.enqueue_import(model)
        try:
            self._recorder.write(snapshot, _try(self._outside.read_usage))
        except DatabaseError:  # history may be lost without harm
            log.warning("history could not be written", exc_info=True)
        if now - self._housekeeping_at >= _HOUSEKEEPING_EVERY_S:
            self._housekeeping_at = now
            known = frozenset(Agent.objects.values_list("id", flat=True))
            _try(self._outside.hands.sweep, known)
            for name in Decision.objects.order_by().values_list("deployment", flat=True).distinct():
                prune_decisions(name)

    def _keep_routes_file(self) -> None:
        """Write the route snapshot again where the file is missing, damaged or older than the rows."""
        path = self._outside.routes_file
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            stamp = -1
        if self._routes_seen[0] != stamp:
            self._routes_seen = (stamp, read_generation(path))
        state = RouteState.objects.first()
        if state is None or self._routes_seen[1] != Generation(state.epoch, state.number):
            write_routes()


def describe(agent: Agent) -> AgentSpec:
    """What an agent's files are made from. Its deployment, revision and model must be loaded."""
    model = agent.revision.model
    return AgentSpec(
        id=agent.id,
        deployment=agent.deployment.name,
        revision=str(agent.revision),
        task=model.task,
        digest=agent.revision.digest,
        host=agent.host,
        port=agent.port,
        profile=agent.profile,
        engine=str(model.manifest.get("engine") or "ctranslate2"),
        settings=agent.revision.settings,
    )


def _try(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T | None:
    """Do it; None, and a line in the log, where the node does not let us."""
    try:
        return work(*given, **named)
    except NodeErrors as error:
        log.warning("the node did not do as asked: %s", error)
        return None

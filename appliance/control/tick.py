"""One pass of the loop: observe, decide, write, act."""

import datetime as dt
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from django.db import Error as DatabaseError
from django.db import transaction

from appliance.authority import RENEW_WITH_LEFT
from appliance.control import lease
from appliance.control.ask import Asker
from appliance.control.calibration import Calibrations
from appliance.control.gateway_board import GatewayBoard
from appliance.control.hands import NODE_ERRORS, NodeHands, describe
from appliance.control.history import Recorder, Usage
from appliance.control.imports import due_imports
from appliance.control.inputs import InputLog, prune_inputs
from appliance.control.levels import LevelOrders
from appliance.control.node_orders import NodeOffice
from appliance.control.node_power import PowerOffice
from appliance.control.node_views import LOCAL_HOST, NodeView, NodeViews, node_facts
from appliance.control.orders import give_orders
from appliance.control.record import prune_all_decisions, prune_decisions, record
from appliance.control.renewal import Renewals
from appliance.control.rows import AgentRows, read_deployments, read_epoch
from appliance.control.shape_orders import ShapeOrders
from appliance.models import Agent, Decision, Revision, RouteState
from appliance.models.agents import new_agent_id
from appliance.policies.actions import Create, EndOrphan, Forget, Plan, Start, Stop
from appliance.policies.fleet import AgentFacts, Exit, FleetSnapshot
from appliance.policies.node_care import NodeOrders, NodeStep, plan_care
from appliance.policies.profiles import Profile, ProfileKey, is_same_shape
from appliance.policies.reconcile import plan
from appliance.policies.snapshot import Generation
from appliance.profiles import read_profiles, starting_profile
from appliance.publish import read_generation, touch_routes, write_routes
from provisioning.certificates import valid_until

_HOUSEKEEPING_EVERY_S = 60.0
_PRUNE_EVERY_S = 600.0
#: What asks for a tick without anything new to see.
_OF_THE_CLOCK = frozenset({"tick", "watchdog"})
#: How often certificates are looked at while none is being renewed.
_RENEW_EVERY_S = 5.0

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outside:
    """What a loop touches beyond rows; tests give it others."""

    board: GatewayBoard
    nodes: NodeViews
    office: NodeOffice
    power: PowerOffice
    renewals: Renewals
    calibrations: Calibrations
    asker: Asker
    levels: LevelOrders
    shapes: ShapeOrders
    routes_file: Path
    read_usage: Callable[[], Usage | None]
    enqueue_import: Callable[[int], object]
    enroll: Callable[[], object]


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one pass looked at and decided."""

    held: lease.Held
    now: float
    views: Sequence[NodeView]
    orders: Sequence[NodeOrders]
    snapshot: FleetSnapshot
    decided: Plan
    care: Sequence[NodeStep]
    created: list[Agent] = field(default_factory=list)
    revisions: dict[int, Revision] = field(default_factory=dict)
    known: dict[ProfileKey, Profile] = field(default_factory=dict)
    ports: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))


class Loop:
    """The loop of one process. `tick` may be called from any thread; only one runs at a time."""

    def __init__(self, outside: Outside, owner: str | None = None) -> None:
        self._outside = outside
        self.owner = owner or lease.this_owner()
        self._turn = threading.Lock()
        self._next = threading.Lock()
        self._recorder = Recorder()
        self._agents = AgentRows()
        self._inputs = InputLog()
        self._routes_seen: tuple[int, Generation | None] = (0, None)
        self._housekeeping_at = float("-inf")
        self._prune_at = float("-inf")
        self._renewed_at = float("-inf")

    def tick(self, trigger: str, now: float | None = None) -> Plan | None:
        """Run one pass; None where another process has the lease, or one waits that will see all this.

        The clock's ticks never wait for one that runs, which asks for the next: else long ones would come in
        pairs. Raises LostLease where it was taken over meanwhile: then nothing more was written.
        """
        if trigger in _OF_THE_CLOCK and self._turn.locked():
            return None
        if not self._next.acquire(blocking=False):
            return None
        with self._turn:
            self._next.release()
            held = lease.take(self.owner)
            if held is None:
                return None
            now = time.time() if now is None else now
            views = self._outside.nodes.look(now)
            orders = self._outside.office.read(views, now)
            snapshot = self._observe(views, orders, now)
            decided = plan(snapshot)
            care = plan_care(orders, decided.agents, now)
            power = self._outside.power.decide(views, orders, snapshot, decided)
            this = _Pass(held, now, views, orders, snapshot, decided, care)
            self._prepare(this)
            with transaction.atomic():
                record(held, snapshot, decided, this.created, trigger)
                self._inputs.write(decided.deployments, now)
                self._outside.office.record(care, views, now)
                power = self._outside.power.record(power, views, now)
            self._inputs.keep()
            self._act(this)
            self._outside.power.act(power, views)
            self._after(this)
            return decided

    # Observe.

    def _observe(self, views: Sequence[NodeView], orders: Sequence[NodeOrders], now: float) -> FleetSnapshot:
        view = self._outside.board.view(now)
        nodes = tuple(
            node_facts(node, order, now)
            for node, order in zip(views, orders, strict=True)
            if node.hands is not None or node.row.power_stage
        )
        known = read_profiles()
        agents = self._agents.read(known)
        running = {node.name: node.running for node in views}
        hands = [node.hands for node in views if node.hands is not None]
        snapshot = FleetSnapshot(
            now=now,
            epoch=read_epoch(),
            deployments=read_deployments([node.row for node in views], known, agents),
            agents=agents,
            nodes=nodes,
            reports=view.reports,
            silent=view.silent,
            heard_since=view.heard_since,
            held=view.held,
            running=running,
            in_hand=self._outside.calibrations.in_hand().union(
                self._outside.shapes.in_hand(), *(one.in_hand() for one in hands)
            ),
            failures={agent: why for one in hands for agent, why in one.take_failures().items()},
            exits=self._exits(agents, running),
            busy=self._outside.asker.answers(now),
            unshapable=self._outside.shapes.failures(),
        )
        self._ask_leaving(snapshot)
        return snapshot

    def _exits(
        self, agents: tuple[AgentFacts, ...], running: Mapping[str, Mapping[str, int] | None]
    ) -> dict[str, Exit]:
        found = {}
        for agent in agents:
            there = running.get(agent.node)
            hands = self._outside.nodes.hands(agent.node)
            gone = there is not None and agent.id not in there
            if gone and hands is not None and agent.wanted == "warm" and agent.started_at is not None:
                ended = _try(hands.exit_of, agent.id)
                if ended is not None:
                    found[agent.id] = Exit(*ended)
        return found

    def _ask_leaving(self, snapshot: FleetSnapshot) -> None:
        """Ask agents that leave and that no gateway tells of, whether they hold work."""
        silent = []
        for agent in snapshot.agents:
            leaves = agent.wanted in ("draining", "resting") or (
                agent.wanted == "parked" and agent.parked_at is None
            )
            if leaves and snapshot.pid(agent) is not None:
                link = snapshot.link(agent)
                if link is None or link.busy is None:
                    silent.append(agent.id)
        if silent:
            rows = Agent.objects.filter(pk__in=silent)
            self._outside.asker.ask(rows.values_list("id", "host", "port"))

    # Act. Never inside a transaction.

    def _prepare(self, this: _Pass) -> None:
        """Before the rows are written: files of new agents come, of forgotten ones go."""
        new = {action.revision for action in this.decided.actions if isinstance(action, Create)}
        if new:  # what new agents are made from is read once
            this.revisions.update(Revision.objects.select_related("deployment", "model").in_bulk(new))
            this.known.update(read_profiles())
            for host, port in Agent.objects.values_list("host", "port").iterator():
                this.ports[host].add(port)
        for action in this.decided.actions:
            if isinstance(action, Create):
                agent = self._try_new(action, this)
                if agent is not None:
                    this.created.append(agent)
            elif isinstance(action, Forget):
                _try(self._hands(action.node).forget, action.agent)

    def _try_new(self, action: Create, this: _Pass) -> Agent | None:
        """What is wrong with one deployment must not end the tick of all."""
        try:
            return _try(self._install_new, action, this)
        except Exception:
            log.exception("an agent of %s could not be made", action.deployment)
            return None

    def _hands(self, node: str) -> NodeHands:
        """Raises OSError where the node cannot be acted on at all."""
        hands = self._outside.nodes.hands(node)
        if hands is None:
            raise OSError(f"node {node} cannot be reached yet")
        return hands

    def _install_new(self, action: Create, this: _Pass) -> Agent:
        revision = this.revisions[action.revision]
        node = next(view.row for view in this.views if view.name == action.node)
        now = dt.datetime.fromtimestamp(this.now, dt.UTC)
        agent = Agent(
            id=new_agent_id(action.deployment),
            deployment=revision.deployment,
            revision=revision,
            node=node,
            host=LOCAL_HOST if node.is_local else node.address,
            profile=starting_profile(node, revision, this.known),
            release_sha256=node.release_sha256,
            started_at=now,
            unready_at=now if node.is_local else None,
        )
        taken = this.ports[agent.host]
        agent.port = self._hands(node.name).new_port(agent.host, frozenset(taken))
        taken.add(agent.port)
        self._install(agent, this.now)
        return agent

    def _install(self, agent: Agent, now: float) -> None:
        at = dt.datetime.fromtimestamp(now, dt.UTC)
        issued = self._hands(agent.node.name).install(describe(agent), at)
        agent.certificates = [issued.sha256]
        agent.certificate_expires_at = valid_until(issued.certificate_pem)
        agent.release_sha256 = agent.node.release_sha256

    def _new_port(self, agent: Agent) -> int:
        """A port that no agent of that host has."""
        others = Agent.objects.filter(host=agent.host).values_list("port", flat=True)
        return self._hands(agent.node.name).new_port(agent.host, frozenset(others))

    def _act(self, this: _Pass) -> None:
        """Do the rest. What it taught of agents is written in one more transaction, where there is any."""
        learned: dict[str, dict[str, object]] = {}
        for agent in this.created:
            learned[agent.id] = self._start(agent.node.name, agent.id)
        for action in this.decided.actions:
            if isinstance(action, Start):
                learned[action.agent] = self._restart(action, this.now)
            elif isinstance(action, Stop | EndOrphan):
                kill = isinstance(action, Stop) and action.kill
                _try(self._stop, action.node, action.agent, kill=kill)
        give_orders(this.decided.actions, self._outside.levels, self._outside.shapes)
        self._outside.office.act(this.care, this.views)
        learned = {agent: changes for agent, changes in learned.items() if changes}
        if not learned:
            return
        with transaction.atomic():
            lease.confirm(this.held)
            for agent_id, changes in learned.items():
                Agent.objects.filter(pk=agent_id).update(**changes)
            if any("certificates" in changes for changes in learned.values()):
                touch_routes()

    def _stop(self, node: str, agent: str, *, kill: bool) -> None:
        self._hands(node).stop(agent, kill=kill)

    def _start(self, node: str, agent: str) -> dict[str, object]:
        try:
            pid = self._hands(node).start(agent)
        except NODE_ERRORS as error:
            log.warning("agent %s could not be started: %s", agent, error)
            return {"error": f"it could not be started: {error}"}
        return {} if pid is None else {"pid": pid}

    def _restart(self, action: Start, now: float) -> dict[str, object]:
        """Start again; with new files where the old are gone, or something in them will not do any more."""
        rows = Agent.objects.select_related("deployment", "revision__model", "node")
        agent = rows.filter(pk=action.agent).first()
        if agent is None:  # its node was retired by force this very moment
            return {}
        changes: dict[str, object] = {}
        at = dt.datetime.fromtimestamp(now, dt.UTC)
        try:
            if action.new_port:
                agent.port = changes["port"] = self._new_port(agent)
            ends = agent.certificate_expires_at
            lasts = ends is not None and ends - at > RENEW_WITH_LEFT
            hands = self._hands(action.node)
            profile = starting_profile(agent.node, agent.revision)
            reshaped = bool(agent.damage) or not is_same_shape(profile, agent.profile)
            if (
                action.new_port
                or reshaped
                or not (lasts and hands.is_installed(agent.id, agent.certificates))
            ):
                agent.profile = profile if reshaped else agent.profile
                self._install(agent, now)
                for name in ("certificates", "certificate_expires_at", "release_sha256", "profile"):
                    changes[name] = getattr(agent, name)
        except NODE_ERRORS as error:
            return {"error": f"it could not be installed: {error}"}
        except Exception as error:  # it must not end the tick of all
            log.exception("agent %s could not be installed", action.agent)
            return {"error": f"it could not be installed: {type(error).__name__}: {error}"[:500]}
        return changes | self._start(action.node, agent.id)

    # Afterwards: what no decision waits for.

    def _after(self, this: _Pass) -> None:
        now = this.now
        self._keep_routes_file()
        if self._outside.renewals.under_way or now - self._renewed_at >= _RENEW_EVERY_S:
            self._renewed_at = now
            self._outside.renewals.step(now, self._outside.nodes.hands, this.snapshot.all_serve)
        try:
            self._outside.calibrations.step(this.snapshot, [view.row for view in this.views])
        except DatabaseError:  # it is measured again
            log.warning("a measurement could not be looked after", exc_info=True)
        self._outside.enroll()
        for model in due_imports():
            self._outside.enqueue_import(model)
        try:
            self._recorder.write(this.snapshot, _try(self._outside.read_usage))
        except DatabaseError:  # history may be lost without harm
            log.warning("history could not be written", exc_info=True)
        if now - self._housekeeping_at >= _HOUSEKEEPING_EVERY_S:
            self._housekeeping_at = now
            self._sweep(this.views)
            for name in Decision.objects.order_by().values_list("deployment", flat=True).distinct():
                prune_decisions(name)
        if now - self._prune_at >= _PRUNE_EVERY_S:
            self._prune_at = now
            prune_inputs(now)
            prune_all_decisions()
            _try(self._outside.office.prune, this.views, now)

    def _sweep(self, views: Sequence[NodeView]) -> None:
        """Remove what is left on nodes of agents that have no row."""
        known = frozenset(Agent.objects.values_list("id", flat=True))
        for view in views:
            if view.hands is not None and view.running is not None:
                _try(view.hands.sweep, known)

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


def _try(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T | None:
    """Do it; None, and a line in the log, where the node does not let us."""
    try:
        return work(*given, **named)
    except NODE_ERRORS as error:
        log.warning("the node did not do as asked: %s", error)
        return None

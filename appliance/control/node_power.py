"""Nodes put to sleep and woken: rows and sightings in, steps carried out; `policies.power` decides which.

The node itself is told over its lane; whoever wakes it is asked in a thread of its own, as that may take
some time. What either said is taken in by the next tick.
"""

import datetime as dt
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from appliance import audit
from appliance.control.lane_jobs import Work
from appliance.control.node_orders import note_step
from appliance.control.node_seen import JobResult
from appliance.control.node_views import NodeView
from appliance.control.rows import to_time
from appliance.models import Enrolment, Node, Transfer
from appliance.models.power import power_rules
from appliance.policies.actions import Create, Plan
from appliance.policies.fleet import DeploymentFacts, FleetSnapshot
from appliance.policies.node_care import LOST_AFTER_S, NodeOrders, accepts
from appliance.policies.placement import agent_bytes
from appliance.policies.power import plan_power
from appliance.policies.power_facts import (
    CHANGES_WINDOW_S,
    DID_NOT_SLEEP,
    DID_NOT_WAKE,
    PowerNode,
    PowerStep,
)
from provisioning.errors import ConnectionLost, ProvisioningError
from provisioning.power import PowerSwitch
from provisioning.remote import RemoteNode
from provisioning.steward_client import StewardClient

#: Who ordered it, in the audit log, where nobody did.
BY_LOAD: Final = "autoscaler"
SUSPEND, POWER_OFF = "suspend", "power_off"
#: What a problem of a node's power advises.
REMEDIES: Final = {
    DID_NOT_WAKE: "look at the box, its power and its network card's settings, then wake_node it again",
    DID_NOT_SLEEP: "see the message and the box's own log, then suspend_node it again",
}
#: Machines that are sent for at once; others wait their turn.
_AT_ONCE: Final = 8
_TIMES: Final = frozenset({"power_stage_at", "idle_since", "awake_since"})

log = logging.getLogger(__name__)


def _begin_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="power", daemon=True).start()


@dataclass(frozen=True, slots=True)
class _Command:
    """The newest command to a node's power: at which stage, since when, and how it ended."""

    stage: str
    stage_at: dt.datetime | None
    told: str | None = None


@dataclass(frozen=True, slots=True)
class _Around:
    """What all nodes are seen by: agents and promised bytes by node, what one more agent needs, who lacks."""

    now: float
    agents: "Counter[str]"
    promised: "Counter[str]"
    need: int
    reasons: Mapping[int, str]
    lackers: Sequence[DeploymentFacts]


class PowerOffice:
    """Carries out steps of `policies.power`.

    `open_switch` gives what wakes a node by its `power`, and raises ProvisioningError; `why_unusable` says
    why one could not be woken, '' where it could; `begin` runs what may take some time beside the loop.
    """

    def __init__(
        self,
        open_switch: Callable[[str], PowerSwitch],
        why_unusable: Callable[[str], str] = lambda _power: "",
        begin: Callable[[Callable[[], None]], object] = _begin_thread,
    ) -> None:
        self._open_switch = open_switch
        self._why_unusable = why_unusable
        self._begin = begin
        self._lock = threading.Lock()
        self._sending = threading.BoundedSemaphore(_AT_ONCE)
        self._commands: dict[str, _Command] = {}

    # Decide.

    def decide(
        self, views: Sequence[NodeView], orders: Sequence[NodeOrders], snapshot: FleetSnapshot, decided: Plan
    ) -> list[PowerStep]:
        """What is to be done now. No query where no node may sleep."""
        concerned = [view.row for view in views if _is_concerned(view.row)]
        if not concerned:
            return []
        lacking = shortage(snapshot, decided)
        around = _Around(
            snapshot.now,
            agents=_agents(snapshot, decided),
            promised=_promised(snapshot),
            need=max((agent_bytes(one.model_bytes) for one in snapshot.deployments), default=agent_bytes(0)),
            reasons=_reasons([row for row in concerned if not row.is_local]),
            lackers=[one for one in snapshot.deployments if one.name in lacking],
        )
        nodes = []
        for view, order in zip(views, orders, strict=True):
            try:
                nodes.append(self._node(view, order, around))
            except (TypeError, ValueError, AttributeError):
                log.exception("the row of node %s is damaged: its power stays as it is", view.name)
        return plan_power(nodes, power_rules().as_settings(), snapshot.now, short=sum(lacking.values()))

    def _node(self, view: NodeView, order: NodeOrders, around: _Around) -> PowerNode:
        row = view.row
        failed = [one for one in row.problems if one.get("code") in REMEDIES]
        running = len(view.running or ())
        seen_at = view.seen.at if view.seen is not None else _seconds(row.seen_at)
        return PowerNode(
            name=row.name,
            wakeable=bool(row.power) and row.enrolled_at is not None and not self._why_unusable(row.power),
            local=row.is_local,
            wanted=row.wanted,
            ordered=row.power_wanted,
            stage=row.power_stage,
            stage_at=_seconds(row.power_stage_at) or 0.0,
            tries=row.power_tries,
            awake=view.running is not None and (row.is_local or around.now - (seen_at or 0.0) < LOST_AFTER_S),
            seen_at=seen_at,
            accepts=accepts(order),
            agents=max(around.agents[row.name], running),
            busy=row.operation or ("a measurement" if row.calibration_at else around.reasons.get(row.pk, "")),
            told=self._told(row),
            idle_since=_seconds(row.idle_since),
            awake_since=_seconds(row.awake_since),
            changes=tuple(float(at) for at in row.power_changes),
            failed=str(failed[0].get("code")) if failed else "",
            failed_at=float(failed[0].get("since") or 0.0) if failed else 0.0,
            room=max(0, (row.ram_bytes - around.promised[row.name]) // around.need),
            helps=any(not one.placement.why_not(row.labels) for one in around.lackers),
            cost=float(row.cost_per_hour or 0.0),
        )

    def _told(self, row: Node) -> str | None:
        """How the command of this very stage ended, where it has."""
        with self._lock:
            command = self._commands.get(row.name)
        if command is None or (command.stage, command.stage_at) != (row.power_stage, row.power_stage_at):
            return None
        return command.told

    # Write. In the tick's transaction.

    def record(self, steps: Iterable[PowerStep], views: Iterable[NodeView], now: float) -> list[PowerStep]:
        """Write what steps change of rows; those that hold, as nobody ordered otherwise meanwhile."""
        rows = {view.name: view.row for view in views}
        return [step for step in steps if self._record(step, rows[step.node], now)]

    def _record(self, step: PowerStep, row: Node, now: float) -> bool:
        changes = _columns(step, row, now)
        same = Node.objects.filter(
            pk=row.pk, wanted=row.wanted, power_wanted=row.power_wanted, power_stage=row.power_stage
        )
        if not changes or not same.update(**changes):
            return not changes
        for name, value in changes.items():
            setattr(row, name, value)
        if step.words:
            note_step(row, step.words[:100], step.detail if step.problem else "")
        if step.by_load:
            verb = "wake_node" if step.do == "wake" else "suspend_node"
            audit.record(BY_LOAD, verb, row.name, why=step.words)
        if step.problem:
            log.warning("node %s %s: %s", row.name, step.words, step.detail)
        return True

    # Act. Never in a transaction.

    def act(self, steps: Iterable[PowerStep], views: Iterable[NodeView]) -> None:
        """Hand commands to lanes and switches; returns at once. `steps` are those that `record` wrote."""
        by_name = {view.name: view for view in views}
        for step in steps:
            if not step.do:
                continue
            row = by_name[step.node].row
            command = _Command(row.power_stage, row.power_stage_at)
            with self._lock:
                self._commands[row.name] = command
            if step.do == "sleep":
                self._put_to_sleep(by_name[step.node], command)
            else:
                self._begin(partial(self._send_for, row.name, row.power, row.address, command))

    def _put_to_sleep(self, view: NodeView, command: _Command) -> None:
        if view.lane is None:
            return

        def ended(result: JobResult) -> None:
            # A box that goes while it answers was told all the same.
            lost = result.code in (ConnectionLost.code, "hung", "unreachable")
            self._take(view.name, command, "" if lost else result.error)

        view.lane.submit("sleep", _sleep(_how(view.row)), on_end=ended)

    def _send_for(self, name: str, power: str, address: str, command: _Command) -> None:
        try:
            if power:  # else people switch it on, and it is only looked for
                with self._sending:
                    self._open_switch(power).wake(address)
            self._take(name, command, "")
        except ProvisioningError as error:
            self._take(name, command, error.line)
        except Exception as error:  # the loop must hear of it, whatever it is
            log.exception("sending for node %s", name)
            self._take(name, command, f"{type(error).__name__}: {str(error)[:200]}")

    def _take(self, name: str, command: _Command, told: str) -> None:
        with self._lock:
            if self._commands.get(name) is command:
                self._commands[name] = replace(command, told=told)


def shortage(snapshot: FleetSnapshot, decided: Plan) -> dict[str, int]:
    """For how many agents of each deployment there was no room, now and in the tick before.

    While nodes are looked at for the first time it cannot be told: there may be room enough.
    """
    if any(node.settling for node in snapshot.nodes):
        return {}
    lacked = {one.name for one in snapshot.deployments if one.problem and not one.removing}
    there = Counter(one.deployment for one in decided.agents if one.wanted == "warm")
    there.update(action.deployment for action in decided.actions if isinstance(action, Create))
    missing = {
        each.name: each.desired - there[each.name]
        for each in decided.deployments
        if each.problem and each.name in lacked
    }
    return {name: count for name, count in missing.items() if count > 0}


def _is_concerned(row: Node) -> bool:
    return bool(row.power or row.power_stage or row.power_wanted)


def _agents(snapshot: FleetSnapshot, decided: Plan) -> "Counter[str]":
    """Agents by node: those there are before and after this tick, and those that come with it."""
    after = Counter(one.node for one in decided.agents)
    before = Counter(one.node for one in snapshot.agents)
    return (after | before) + Counter(one.node for one in decided.actions if isinstance(one, Create))


def _promised(snapshot: FleetSnapshot) -> "Counter[str]":
    """Bytes of RAM by node."""
    promised: Counter[str] = Counter()
    for one in snapshot.agents:
        promised[one.node] += agent_bytes(one.model_bytes)
    return promised


def _reasons(rows: Sequence[Node]) -> dict[int, str]:
    """Why nodes must not sleep though no agent is there, by primary key: two queries."""
    keys = [row.pk for row in rows]
    sending = Transfer.objects.filter(node__in=keys, state=Transfer.State.RUNNING)
    open_states = (Enrolment.State.WAITING, Enrolment.State.RUNNING)
    enrolling = Enrolment.objects.filter(node__in=keys, state__in=open_states)
    found = dict.fromkeys(sending.values_list("node_id", flat=True), "a transfer")
    return found | {key: "its enrolment" for key in enrolling.values_list("node_id", flat=True) if key}


def _columns(step: PowerStep, row: Node, now: float) -> dict[str, Any]:
    changes: dict[str, Any] = dict(step.changes)
    for name in _TIMES & set(changes):
        changes[name] = to_time(changes[name])
    if "power_changes" in changes:
        changes["power_changes"] = [at for at in changes["power_changes"] if abs(now - at) < CHANGES_WINDOW_S]
    others = [one for one in row.problems if one.get("code") not in REMEDIES]
    if step.problem:
        problem = {"code": step.problem, "message": f"{step.words}: {step.detail}"[:500], "since": now}
        changes["problems"] = [*others, problem | {"remedy": REMEDIES[step.problem]}]
    elif step.clears and len(others) != len(row.problems):
        changes["problems"] = others
    return changes


def _how(row: Node) -> str:
    """A box with a program of the operator's is switched on by that: it is powered off."""
    if row.power_how in (SUSPEND, POWER_OFF):
        return row.power_how
    return POWER_OFF if row.power.startswith("exec:") else power_rules().sleep_how


def _sleep(verb: str) -> Work:
    def work(_node: RemoteNode, client: StewardClient) -> None:
        client.ask(verb)

    return work


def _seconds(at: dt.datetime | None) -> float | None:
    return None if at is None else at.timestamp()

"""All nodes as the loop has them: rows, what was seen of them lately, and hands to act on each.

Rows of nodes are kept here: what was observed is written where it changed, `seen_at` every few seconds.
"""

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import connections, transaction

from appliance.control.hands import NODE_ERRORS, NodeHands
from appliance.control.lanes import Lanes
from appliance.control.node_lane import NodeLane
from appliance.control.node_problems import BROKEN
from appliance.control.node_seen import NodeAccess, Observation, Problem
from appliance.control.rows import to_time
from appliance.kept_rows import KeptRows
from appliance.models import Node
from appliance.models.json_columns import Damaged
from appliance.models.nodes import LOCAL_NODE
from appliance.policies.fleet import NodeFacts
from appliance.policies.node_care import LOST_AFTER_S, NodeOrders, accepts, is_lost, stay_of
from appliance.policies.power_facts import DID_NOT_SLEEP, DID_NOT_WAKE

LOCAL_HOST = "127.0.0.1"
#: Problems that an operation left behind; the next operation, or people, take them away.
KEPT_PROBLEMS = frozenset({"upgrade_failed", "reboot_failed", DID_NOT_SLEEP, DID_NOT_WAKE})
#: Of a node that goes to sleep or comes back it is no problem that it does not answer.
_NOT_THERE = frozenset(kind.code for kind in BROKEN)
_HARDWARE_EVERY_S = 600.0
#: `seen_at` is written so often; a node counts as unreachable after 10 s.
_SEEN_EVERY_S = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node at one instant. `running` is None where it cannot be told; `lane` None on node `local`.

    `watched_since` is since when this process looks at it: before that its absence says nothing.
    """

    row: Node
    hands: NodeHands | None
    lane: NodeLane | None
    seen: Observation | None
    running: Mapping[str, int] | None
    watched_since: float = 0.0

    @property
    def name(self) -> str:
        """The node's."""
        return self.row.name


class NodeViews:
    """Keeps lanes in step with rows, and rows in step with what lanes saw."""

    def __init__(
        self,
        local: NodeHands,
        lanes: Lanes,
        hands_of: Callable[[NodeLane], NodeHands],
        read_hardware: Callable[[], Mapping[str, object]],
    ) -> None:
        self._local = local
        self._lanes = lanes
        self._hands_of = hands_of
        self._read_hardware = read_hardware
        self._hands: dict[str, tuple[NodeLane, NodeHands, float]] = {}
        self._hardware_at = float("-inf")
        # When it was seen last is no news: it was written here.
        columns = [field.attname for field in Node._meta.concrete_fields if field.attname != "seen_at"]  # noqa: SLF001 - Django's documented way to them
        self._rows = KeptRows(Node.objects.filter(retired_at__isnull=True), columns, lambda row: row)

    def look(self, now: float) -> list[NodeView]:
        """All nodes that are not retired, as they are now. Writes what was observed of them."""
        self._see_local(now)
        rows = self._rows.read()
        self._lanes.keep(access_of(row) for row in rows if _is_reached(row))
        self._hands = {name: kept for name, kept in self._hands.items() if self._lanes.lane(name) is kept[0]}
        views = []
        changed: dict[int, dict[str, Any]] = {}
        for row in rows:
            if row.is_local:
                if isinstance(row.hardware, Damaged):
                    self._hardware_at = float("-inf")  # it is read in the next tick
                if changes := take_in(row, None, (), now):
                    changed[row.pk] = changes
                views.append(NodeView(row, self._local, None, None, _try_running(self._local)))
            else:
                views.append(self._try_view(row, now, changed))
        for pk, changes in changed.items():
            if set(changes) != {"seen_at"}:  # what stands in the row in hand may not come to be written
                self._rows.forget(pk)
        if changed:
            _write(changed)
        return views

    def hands(self, name: str) -> NodeHands | None:
        """How to act on a node; None where it cannot be reached at all."""
        if name == LOCAL_NODE:
            return self._local
        kept = self._hands.get(name)
        return kept[1] if kept is not None else None

    def _try_view(self, row: Node, now: float, changed: dict[int, dict[str, Any]]) -> NodeView:
        """What one node says must never end the tick of all: such a node is as one that is not seen."""
        try:
            return self._view(row, now, changed)
        except Exception:
            log.exception("node %s could not be looked at", row.name)
            changed.pop(row.pk, None)
            self._rows.forget(row.pk)
            return NodeView(row, self.hands(row.name), self._lanes.lane(row.name), None, None)

    def _view(self, row: Node, now: float, changed: dict[int, dict[str, Any]]) -> NodeView:
        lane = self._lanes.lane(row.name)
        if lane is None:
            return NodeView(row, None, None, None, None)
        if row.name not in self._hands:
            self._hands[row.name] = (lane, self._hands_of(lane), now)
        _, hands, since = self._hands[row.name]
        seen = lane.observation()
        problems = lane.problems()
        if row.power_stage in (Node.PowerStage.SLEEPING, Node.PowerStage.WAKING):
            problems = tuple(one for one in problems if one.code not in _NOT_THERE)
        changes = take_in(row, seen, problems, now)
        if changes:
            changed[row.pk] = changes
        running = _try_running(hands) if seen is not None else None
        return NodeView(row, hands, lane, seen, running, since)

    def _see_local(self, now: float) -> None:
        """Keep the row of this machine: its hardware, and that it was seen."""
        seen_at = to_time(now)
        if now - self._hardware_at >= _HARDWARE_EVERY_S:
            hardware = dict(self._read_hardware())
            Node.objects.update_or_create(
                name=LOCAL_NODE,
                defaults={"hardware": hardware, "seen_at": seen_at},
                create_defaults={"hardware": hardware, "seen_at": seen_at, "address": LOCAL_HOST},
            )
            self._hardware_at = now
        else:
            Node.objects.filter(name=LOCAL_NODE).update(seen_at=seen_at)


def _write(changed: Mapping[int, Mapping[str, Any]]) -> None:
    """What was observed; when nodes were seen all at once, since that is most of it."""
    columns = Node._meta  # noqa: SLF001 - Django's documented way to a table's name
    seen_at = columns.get_field("seen_at").column
    with transaction.atomic(), (line := connections[Node.objects.db]).cursor() as cursor:
        cursor.executemany(
            f"UPDATE {columns.db_table} SET {seen_at} = %s WHERE id = %s",  # noqa: S608 - names of our own
            [
                (line.ops.adapt_datetimefield_value(changes["seen_at"]), pk)
                for pk, changes in changed.items()
                if "seen_at" in changes
            ],
        )
        for pk, changes in changed.items():
            others = {name: value for name, value in changes.items() if name != "seen_at"}
            if others:
                Node.objects.filter(pk=pk).update(**others)


def _is_reached(row: Node) -> bool:
    """Whether the loop speaks with it: once enrolled, and to clean up what a broken enrolment left.

    One that is asleep is left alone: with some network cards a mere question wakes it.
    """
    if row.is_local or row.power_stage == Node.PowerStage.ASLEEP:
        return False
    return row.enrolled_at is not None or row.wanted == Node.Wanted.RETIRED


def access_of(row: Node) -> NodeAccess:
    """What a lane must know of a node."""
    return NodeAccess(
        row.name, row.address, row.port, row.account, row.host_key, row.host_key_kind, row.release_sha256
    )


def node_facts(view: NodeView, orders: NodeOrders, now: float) -> NodeFacts:
    """What placement and plans must know of a node."""
    row = view.row
    since = row.operation_stage_at if row.operation_stage else row.wanted_at
    if row.power_stage and not row.operation_stage:
        since = row.power_stage_at
    new = view.running is None and now - view.watched_since < LOST_AFTER_S and not row.is_local
    return NodeFacts(
        name=row.name,
        ram_bytes=row.ram_bytes or None,
        cores=row.cores,
        accepts=accepts(orders) and view.running is not None and not row.damage,
        settling=accepts(orders) and new and not row.damage,
        stay=stay_of(orders),
        leaving_since=since.timestamp() if since is not None else None,
        lost=is_lost(orders, now),
        power_stage=row.power_stage,
        labels={str(key): str(value) for key, value in row.labels.items()},
        readable=not row.damage,
        region=row.region,
        cost_per_hour=None if row.cost_per_hour is None else float(row.cost_per_hour),
        preemptible=row.preemptible,
        can_sleep=bool(row.power),
    )


def take_in(row: Node, seen: Observation | None, problems: tuple[Problem, ...], now: float) -> dict[str, Any]:
    """Change the row in hand as the node was seen; the columns that changed, which are not written here."""
    damage = (_damaged(row.damage),) if row.damage else ()
    found = _with_since(row.problems, (*problems, *damage), now)
    changes: dict[str, Any] = {} if found == row.problems else {"problems": found}
    if seen is not None:
        told: dict[str, object] = {"boot_id": seen.boot_id, "steward_sha256": seen.steward_sha256}
        if seen.hardware is not None:
            told["hardware"] = {**seen.hardware, "skew_s": round(seen.skew_s)}
        changes |= {name: value for name, value in told.items() if value and getattr(row, name) != value}
        at = dt.datetime.fromtimestamp(seen.at, dt.UTC)
        # Of an earlier time, too: the clock may have been put back.
        if row.seen_at is None or abs((at - row.seen_at).total_seconds()) >= _SEEN_EVERY_S:
            changes["seen_at"] = at
    for name, value in changes.items():
        setattr(row, name, value)
    return changes


def _damaged(columns: str) -> Problem:
    return Problem(
        "row_damaged",
        f"the {columns} of its row cannot be read: no new agents come, those that are there stay as they are",
        "set its labels again; its hardware is read off the machine once it answers",
    )


def _with_since(
    before: list[dict[str, Any]], problems: tuple[Problem, ...], now: float
) -> list[dict[str, Any]]:
    """The problems as rows have them: one that was there before keeps its beginning."""
    since = {one.get("code"): one.get("since", now) for one in before}
    kept = [one for one in before if one.get("code") in KEPT_PROBLEMS]
    return kept + [
        {
            "code": one.code,
            "message": one.message[:500],
            "remedy": one.remedy[:500],
            "since": since.get(one.code, now),
        }
        for one in problems
    ]


def _try_running(hands: NodeHands) -> Mapping[str, int] | None:
    try:
        return hands.running()
    except NODE_ERRORS as error:
        log.debug("it cannot be told what runs: %s", error)
        return None

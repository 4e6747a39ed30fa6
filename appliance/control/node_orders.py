"""Orders on nodes: rows and sightings in, steps carried out; `policies.node_care` decides which steps."""

import datetime as dt
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from appliance.control.lane_jobs import Work
from appliance.control.node_problems import BROKEN
from appliance.control.node_views import NodeView
from appliance.control.release_shelf import ReleaseShelf
from appliance.control.transfers import shown_transfer
from appliance.models import Agent, Node, RemoteStep, Revision
from appliance.policies.node_care import NodeOrders, NodeStep
from provisioning.bundle import Release, prune_releases
from provisioning.delivery import deliver_release
from provisioning.errors import ProvisioningError
from provisioning.remote import RemoteNode
from provisioning.steward_client import StewardClient
from provisioning.transport import Limits

#: Taking everything off a box: agents are ended and accounts removed.
RETIRE_LIMITS = Limits(idle_s=60.0, total_s=120.0)
#: The problem that a failed operation leaves behind, and what to do about it.
REMEDIES: dict[str, tuple[str, str]] = {
    Node.Operation.UPGRADE: (
        "upgrade_failed", "see its agents' logs; the other nodes keep what they have"
    ),
    Node.Operation.REBOOT: ("reboot_failed", "see its own log for what keeps it, then order it again"),
}  # fmt: skip
#: Steps kept of each node.
KEPT_STEPS = 500
_TRIES = 5
#: With these the node is only away: what did not get there for that is no failed try.
_AWAY = frozenset(kind.code for kind in BROKEN)
_BUILD_KEPT_S = 3600.0

log = logging.getLogger(__name__)


class NodeOffice:
    """Carries out orders on nodes, and remembers what the newest release of each is."""

    def __init__(self, shelf: ReleaseShelf, releases_dir: Path) -> None:
        self._shelf = shelf
        self._releases_dir = releases_dir
        self._delivered: set[tuple[str, str]] = set()
        self._failed: dict[str, tuple[int, str]] = {}

    def read(self, views: Iterable[NodeView], now: float) -> list[NodeOrders]:
        """Every node's orders and how far they are; takes in how jobs ended."""
        return [self._orders(view, now) for view in views]

    def _orders(self, view: NodeView, now: float) -> NodeOrders:
        row = view.row
        trouble = self._take_results(view, now)
        newest = ""
        if row.operation == Node.Operation.UPGRADE and not row.operation_stage:
            release = self._newest(row)
            if isinstance(release, ProvisioningError):
                trouble = release.line
            elif release is not None:
                newest = release.sha256
        seen_at = view.seen.at if view.seen is not None else max(_seconds(row.seen_at), view.watched_since)
        return NodeOrders(
            name=row.name,
            local=row.is_local,
            enrolled=row.is_local or row.enrolled_at is not None,
            wanted=row.wanted,
            operation=row.operation,
            stage=row.operation_stage,
            power_stage=row.power_stage,
            ordered_at=_seconds(row.operation_at),
            stage_at=_seconds(row.operation_stage_at),
            ordered_boot_id=row.operation_boot_id,
            boot_id=view.seen.boot_id if view.seen else "",
            release=row.release_sha256,
            next_release=row.next_release_sha256,
            newest=newest,
            delivered=(row.name, newest) in self._delivered,
            trouble=trouble,
            seen_at=seen_at,
            runs=None if view.running is None else frozenset(view.running),
            problems=frozenset(str(one.get("code")) for one in row.problems),
        )

    def _newest(self, row: Node) -> Release | ProvisioningError | None:
        python, arch = str(row.hardware.get("python") or ""), str(row.hardware.get("arch") or "")
        if not python or not arch:
            return None
        return self._shelf.wanted(python, arch)

    def _take_results(self, view: NodeView, now: float) -> str:
        """How jobs of a node ended. A delivery that fails again and again is trouble; others come again."""
        if view.lane is None:
            return ""
        for result in view.lane.take_results():
            kind, _, about = result.name.partition(":")
            if kind != "prune" or result.error:
                note_step(view.row, result.name[:100], result.error)
            if result.error:
                log.warning("%s on node %s failed: %s", result.name, view.name, result.error)
            if kind == "release" and not result.error:
                self._delivered.add((view.name, about))
                self._failed.pop(view.name, None)
            elif kind == "release" and not _AWAY & {str(one.get("code")) for one in view.row.problems}:
                count = self._failed.get(view.name, (0, ""))[0] + 1
                self._failed[view.name] = (count, result.error)
            elif kind == "retire" and not result.error:
                _retired(view.row, now)
        count, error = self._failed.get(view.name, (0, ""))
        if count < _TRIES:
            return ""
        del self._failed[view.name]
        return error

    def record(self, steps: Sequence[NodeStep], views: Iterable[NodeView], now: float) -> None:
        """Write what steps change of rows, where nobody changed the order meanwhile. In a transaction."""
        rows = {view.name: view.row for view in views}
        for step in steps:
            row = rows[step.node]
            changes: dict[str, Any] = dict(step.changes)
            for column in {"operation_at", "operation_stage_at"} & set(changes):
                changes[column] = dt.datetime.fromtimestamp(now, dt.UTC)
            if step.do == "retired":
                _retired(row, now)
            if step.problem:
                code = REMEDIES[row.operation][0]
                changes["problems"] = [*_without(row, code), _failed(row.operation, step.problem, now)]
            same = Node.objects.filter(
                pk=row.pk, wanted=row.wanted, operation=row.operation, operation_stage=row.operation_stage
            )
            if changes and same.update(**changes) and step.words:
                failed = "failed" if step.problem else "done"
                RemoteStep.objects.create(
                    node=row, step=step.words[:100], outcome=failed, detail=step.problem[:1000]
                )
            if changes.get("operation_stage") == "reverting":
                Agent.objects.filter(node=row).update(retry_at=None)

    def act(self, steps: Iterable[NodeStep], views: Iterable[NodeView]) -> None:
        """Hand to lanes what steps ask for; returns at once."""
        by_name = {view.name: view for view in views}
        for step in steps:
            view = by_name[step.node]
            if view.lane is None or not step.do:
                continue
            if step.do == "reboot":
                view.lane.submit("reboot", _reboot(view.row.operation_boot_id))
            elif step.do == "retire":
                view.lane.submit("retire", _retire)
            elif step.do == "deliver":
                self._deliver(view)

    def _deliver(self, view: NodeView) -> None:
        release = self._newest(view.row)
        if not isinstance(release, Release) or view.lane is None:
            return
        row = view.row

        def work(_node: RemoteNode, client: StewardClient) -> None:
            name = f"agents {release.sha256[:12]}"
            with shown_transfer(row.name, "release", name, release.sha256) as shown:
                deliver_release(client, release, shown.tell)

        view.lane.submit(f"release:{release.sha256}", work)

    def prune(self, views: Iterable[NodeView], now: float) -> None:
        """Have nodes and this machine forget releases and models that nothing is started from."""
        digests = list(Revision.objects.values_list("digest", flat=True).distinct())
        used: set[str] = set(self._shelf.digests())
        for view in views:
            row = view.row
            keep = [one for one in (row.release_sha256, row.next_release_sha256) if one]
            used.update(keep)
            busy = row.operation or row.wanted == Node.Wanted.RETIRED
            if view.lane is not None and view.running is not None and not busy:
                view.lane.submit("prune", _prune(keep, digests))
                self._delivered = {one for one in self._delivered if one[0] != view.name}
        young = {
            path.name.removesuffix(".tar.gz")
            for path in self._releases_dir.glob("*.tar.gz")
            if now - path.stat().st_mtime < _BUILD_KEPT_S
        }
        used |= young
        for gone in prune_releases(self._releases_dir, dict.fromkeys(used)):
            log.info("release %s is used nowhere any more: removed", gone)


def note_step(row: Node, step: str, error: str) -> None:
    """Leave a line in the node's log of remote steps, and keep that bounded."""
    outcome = "failed" if error else "done"
    RemoteStep.objects.create(node=row, step=step, outcome=outcome, detail=error[:1000])
    oldest = RemoteStep.objects.filter(node=row).order_by("-id")[KEPT_STEPS - 1 : KEPT_STEPS].first()
    if oldest is not None:
        RemoteStep.objects.filter(node=row, pk__lt=oldest.pk).delete()


def _retired(row: Node, now: float) -> None:
    """The box is as it was: the row stays for the record, and gives its address free."""
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    Node.objects.filter(pk=row.pk, wanted=Node.Wanted.RETIRED).update(retired_at=at, problems=[])


def _reboot(boot_id: str) -> Work:
    """End this boot: not the next one, should the box have restarted before its lane comes to it."""

    def work(_node: RemoteNode, client: StewardClient) -> None:
        if not boot_id or client.ask("hello").get("boot_id") == boot_id:
            client.ask("reboot")

    return work


def _retire(_node: RemoteNode, client: StewardClient) -> None:
    client.ask("retire", limits=RETIRE_LIMITS)


def _prune(releases: list[str], models: list[str]) -> Work:
    def work(_node: RemoteNode, client: StewardClient) -> None:
        client.ask("prune", keep_releases=releases, keep_models=models)

    return work


def _without(row: Node, code: str) -> list[dict[str, Any]]:
    return [one for one in row.problems if one.get("code") != code]


def _failed(operation: str, message: str, now: float) -> dict[str, Any]:
    code, remedy = REMEDIES[operation]
    return {"code": code, "message": message[:500], "remedy": remedy, "since": now}


def _seconds(at: dt.datetime | None) -> float:
    return at.timestamp() if at is not None else 0.0

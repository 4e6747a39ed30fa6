"""Publishes the route snapshot that gateways serve from.

A verb calls `touch_routes()` inside its transaction; after the commit the file is replaced in one
step. Writers take turns, and each writes the newest committed rows, so an older snapshot never
follows a newer one.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F

from appliance.agent_routes import agent_routes
from appliance.models import ApiKey, Deployment, RouteState
from appliance.policies.snapshot import (
    AgentRoute,
    DeploymentRoute,
    Generation,
    KeyRoute,
    RouteSnapshot,
)
from appliance.scaling_settings import default_of, is_dry_run
from appliance.secrets import write_private
from provisioning.file_lock import LockHeld, hold_lock

#: A writer takes milliseconds; one that takes this long is stopped or stuck.
WRITER_TIMEOUT_S = 5.0
#: By then the loop's watchdog has had a tick asked for that was late.
_LEAST_RESUME_AFTER_S = 4.0

log = logging.getLogger(__name__)


class _Dated(msgspec.Struct):
    """As much of a snapshot as tells which it is."""

    generation: Generation


def touch_routes() -> Generation:
    """Count a change of the routes; the snapshot is written when the transaction commits.

    Must be called inside a transaction. Returns the generation that will hold the change.
    """
    state, _ = RouteState.objects.get_or_create(pk=1)
    RouteState.objects.filter(pk=1).update(number=F("number") + 1)
    state.refresh_from_db()
    transaction.on_commit(_write_after_commit)
    return Generation(state.epoch, state.number)


def write_routes() -> Generation:
    """Write the snapshot of what is committed now, unless the file has it already.

    Raises LockHeld where another writer does not get done, OSError where the file cannot be written.
    """
    path: Path = settings.ENVIRONMENT.routes_file
    RouteState.objects.get_or_create(pk=1)
    with hold_lock(path.with_name(".routes.lock"), WRITER_TIMEOUT_S):
        with _consistent_read():
            snapshot = build_snapshot(time.time(), path)
        if read_generation(path) != snapshot.generation:
            write_private(path, msgspec.json.encode(snapshot))
    return snapshot.generation


def _write_after_commit() -> None:
    """The change is committed already: what a stopped writer keeps back, the loop writes later."""
    try:
        write_routes()
    except LockHeld as held:
        log.warning("the route snapshot is not written yet: %s", held)


def read_generation(path: Path) -> Generation | None:
    """The generation of the snapshot on disk; None where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Dated).generation
    except (OSError, msgspec.DecodeError):
        return None


def _read_agents(path: Path) -> dict[str, AgentRoute]:
    """The agents of the snapshot on disk; none where it cannot be read."""
    try:
        snapshot = msgspec.json.decode(path.read_bytes(), type=RouteSnapshot)
    except (OSError, msgspec.DecodeError):
        return {}
    return {agent.id: agent for agent in snapshot.agents}


def build_snapshot(written_at: float, path: Path | None = None) -> RouteSnapshot:
    """The snapshot of the rows as they are; inside a transaction it is one consistent view.

    Agents with a damaged row stay as they are in the snapshot at `path`.
    """
    state = RouteState.objects.get(pk=1)
    return RouteSnapshot(
        generation=Generation(state.epoch, state.number),
        written_at=written_at,
        deployments=tuple(_deployment_routes()),
        agents=agent_routes.read(lambda: {} if path is None else _read_agents(path)),
        keys=tuple(
            KeyRoute(key.sha256, key.name, key.team, key.rpm, tuple(key.scopes))
            for key in ApiKey.objects.filter(revoked_at__isnull=True)
        ),
    )


def _deployment_routes() -> Iterator[DeploymentRoute]:
    rows = Deployment.objects.select_related("model", "revision__deployment")
    # What the loop remembers is most of a row.
    for deployment in rows.defer("scaling_state", "model__manifest", "revision__deployment__scaling_state"):
        yield DeploymentRoute(
            name=deployment.name,
            model=deployment.model.name,
            task=deployment.model.task,
            revision=str(deployment.revision or ""),
            created=int(deployment.created_at.timestamp()),
            max_agents=_most_warm(deployment),
            queue_limit=deployment.queue_limit,
            queue_tokens=deployment.queue_tokens,
            deadline_s=deployment.deadline_s,
            balancing=deployment.balancing,
            sticky=deployment.sticky,
            hedging=deployment.hedging,
            cache_bytes=deployment.cache_bytes,
            cache_shared=deployment.cache_shared,
            accepting=not deployment.removing,
            resume_after_s=_resume_after_s(deployment),
        )


def _resume_after_s(deployment: Deployment) -> float:
    """A loop that is there, and wants more agents for requests that wait, has long made them by then."""
    try:
        wait_ms = float(
            deployment.scaling.get("target_queue_wait_ms") or default_of("target_queue_wait_ms") or 0
        )
    except (AttributeError, TypeError, ValueError):  # a damaged row
        wait_ms = 0.0
    return max(_LEAST_RESUME_AFTER_S, 2 * wait_ms / 1000)


def _most_warm(deployment: Deployment) -> int:
    """Up to how many gateways may resume parked agents: what load must not change keeps its number."""
    if deployment.paused:
        return deployment.desired
    try:
        if is_dry_run(deployment):
            return deployment.desired
        held = deployment.scaling.get("hold")
        return deployment.max_agents if held is None else min(int(held), deployment.max_agents)
    except (AttributeError, TypeError, ValueError):  # a damaged row: the loop leaves it as it is, too
        return deployment.desired


@contextmanager
def _consistent_read() -> Iterator[None]:
    """All that is read inside is of one moment. Unlike `atomic()` it takes no lock that writers wait for."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")

"""The route snapshot as a gateway uses it: read, checked, watched, and kept for a bad day."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.gateway.errors import GatewayError
from appliance.policies.balancing import DEFAULT_POLICY, UnknownPolicy, find_policy
from appliance.policies.snapshot import (
    SNAPSHOT_FORMAT,
    AgentRoute,
    DeploymentRoute,
    Generation,
    KeyRoute,
    RouteSnapshot,
)

log = logging.getLogger(__name__)

POLL_S = 0.05


class BadSnapshot(GatewayError):
    """A document that is no route snapshot; the message says why."""


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """A snapshot, ready to look things up in: deployments and agents by name, keys by digest."""

    generation: Generation
    deployments: Mapping[str, DeploymentRoute]
    agents: Mapping[str, AgentRoute]
    keys: Mapping[bytes, KeyRoute]


_decoder = msgspec.json.Decoder(RouteSnapshot)


def parse_snapshot(raw: bytes) -> RoutingTable:
    """Read a route snapshot. Raises BadSnapshot."""
    try:
        snapshot = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSnapshot(f"not understood: {error}") from error
    if snapshot.format != SNAPSHOT_FORMAT:
        raise BadSnapshot(f"has format {snapshot.format}; {SNAPSHOT_FORMAT} is accepted")
    for agent in snapshot.agents:
        if agent.slots < 1 or agent.ahead < 0 or not 1 <= agent.port <= 65535:
            raise BadSnapshot(
                f"agent {agent.id!r} has slots={agent.slots} ahead={agent.ahead} port={agent.port}: "
                "at least 1, at least 0, and 1 to 65535 are accepted"
            )
    return RoutingTable(
        snapshot.generation,
        {route.name: route for route in snapshot.deployments},
        {route.id: route for route in snapshot.agents},
        {_digest(key): key for key in snapshot.keys},
    )


def _digest(key: KeyRoute) -> bytes:
    try:
        digest = bytes.fromhex(key.sha256)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise BadSnapshot(f"key {key.name!r} has no SHA-256 in hex")
    return digest


def usable_policy(route: DeploymentRoute) -> str:
    """The name of the deployment's balancing policy, or the default where this gateway lacks it."""
    try:
        find_policy(route.balancing)
    except UnknownPolicy as error:
        log.warning("deployment %s: %s; %s is used", route.name, error, DEFAULT_POLICY)
        return DEFAULT_POLICY
    return route.balancing


class RouteFile:
    """The snapshot's file, looked at often and read when it changed.

    The last good document is copied to `kept`, which is read at the start where `path` is
    missing or broken. A file that cannot be used is named once in the log and then ignored.
    """

    def __init__(self, path: Path, kept: Path) -> None:
        self._path = path
        self._kept = kept
        self._seen: tuple[int, int, int] | None = None
        self.table: RoutingTable | None = None

    def load_first(self) -> RoutingTable | None:
        """What to serve at the start, None where there is nothing."""
        if self.poll() is None and self._kept.exists():
            self._take(self._kept)
        return self.table

    def poll(self) -> RoutingTable | None:
        """The new table where the file changed to one that supersedes the present, else None."""
        try:
            found = self._path.stat()
        except OSError:
            return None  # nothing is published (any more): serve on from what there is
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen == self._seen:
            return None
        self._seen = seen
        return self._take(self._path)

    def _take(self, path: Path) -> RoutingTable | None:
        try:
            raw = path.read_bytes()
            table = parse_snapshot(raw)
        except (OSError, BadSnapshot) as error:
            log.warning("route snapshot %s is ignored: %s", path, error)
            return None
        if not table.generation.supersedes(self.table.generation if self.table else None):
            return None
        self.table = table
        if path != self._kept:
            self._keep(raw)
        return table

    def _keep(self, raw: bytes) -> None:
        fresh = self._kept.with_suffix(".new")
        try:
            self._kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_bytes(raw)
            fresh.chmod(0o600)
            fresh.replace(self._kept)
        except OSError as error:
            log.warning("the last good route snapshot is not kept on disk: %s", error)


async def watch_routes(file: RouteFile, apply: Callable[[RoutingTable], None]) -> None:
    """Call `apply` with each new table, within `POLL_S` of its appearance, until cancelled."""
    while True:
        await asyncio.sleep(POLL_S)
        table = file.poll()
        if table is not None:
            apply(table)

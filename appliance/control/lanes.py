"""The lanes of a worker: one for each enrolled node over SSH."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from appliance.control.lane_pace import Pace
from appliance.control.node_lane import PACE, NodeLane
from appliance.control.node_seen import NodeAccess
from appliance.control.transfers import end_interrupted
from provisioning import ssh
from provisioning.bundle import build_steward
from provisioning.enrolment import Connect
from provisioning.identity import Identity

#: New lanes begin one after the other: logging in costs the appliance some 20 ms of one core.
_APART_S: Final = 0.02


class Lanes:
    """Keeps a lane for each node it is told of. All methods may be called from any thread.

    `on_begin` is called with a node's name in its lane's thread before anything else.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        connect: Connect = ssh.connect,
        pace: Pace = PACE,
        clock: Callable[[], float] = time.time,
        on_begin: Callable[[str], None] = end_interrupted,
    ) -> None:
        self._identity = identity
        self._connect = connect
        self._pace = pace
        self._clock = clock
        self._on_begin = on_begin
        self._steward_sha256 = hashlib.sha256(build_steward()).hexdigest()
        self._lock = threading.Lock()
        self._lanes: dict[str, NodeLane] = {}
        self._closed = False

    def keep(self, wanted: Iterable[NodeAccess]) -> None:
        """Start lanes of new nodes, tell the others what changed, end those of nodes that are gone."""
        accesses = {access.name: access for access in wanted}
        with self._lock:
            if self._closed:
                return
            gone = [self._lanes.pop(name) for name in list(self._lanes) if name not in accesses]
            new = [access for name, access in accesses.items() if name not in self._lanes]
            changed = [
                (lane, accesses[name]) for name, lane in self._lanes.items() if lane.access != accesses[name]
            ]
            started = [self._lane(access, number * _APART_S) for number, access in enumerate(new)]
            self._lanes.update({lane.access.name: lane for lane in started})
        for lane in gone:
            lane.close()
        for lane, access in changed:
            lane.update(access)
        for lane in started:
            lane.start()

    def lane(self, name: str) -> NodeLane | None:
        """The lane of a node, None where there is none."""
        with self._lock:
            return self._lanes.get(name)

    def close(self) -> None:
        """End all lanes; returns at once."""
        with self._lock:
            self._closed = True
            lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.close()

    def _lane(self, access: NodeAccess, delay_s: float) -> NodeLane:
        return NodeLane(
            access,
            self._identity,
            steward_sha256=self._steward_sha256,
            connect=self._connect,
            pace=self._pace,
            clock=self._clock,
            delay_s=delay_s,
            on_begin=partial(self._on_begin, access.name),
        )

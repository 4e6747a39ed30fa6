"""The one loop of a worker process, and the threads around it: listeners and watchdog."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial

from django.db import Error as DatabaseError
from django.db import connections

from appliance.authority import client_files, ensure_authority
from appliance.control import imports, lease
from appliance.control.ask import Asker, fetch_load
from appliance.control.calibration import Calibrations
from appliance.control.enrolments import Crew
from appliance.control.gateway_board import GatewayBoard, Listeners
from appliance.control.hands import Hands, Lane, describe
from appliance.control.history import Usage
from appliance.control.lanes import Lanes
from appliance.control.levels import LevelOrders, tell_agent
from appliance.control.measure import Measurer, fetch_measurement
from appliance.control.node_orders import NodeOffice
from appliance.control.node_power import PowerOffice
from appliance.control.node_views import NodeViews
from appliance.control.release_shelf import ReleaseShelf
from appliance.control.remote_hands import RemoteHands
from appliance.control.renewal import Renewals, keep_client_certificates
from appliance.control.shape_orders import ShapeOrders, tell_shape
from appliance.control.tick import Loop, Outside
from appliance.environment import Environment
from appliance.ssh_identity import ensure_identity
from provisioning import local
from provisioning.bundle import build_release
from provisioning.power import open_switch, why_unusable

#: A tick that did not run for so long was lost: the watchdog asks for one.
LATE_S = 3.0
_WATCH_EVERY_S = 0.5
_REST = 4.0

log = logging.getLogger(__name__)
_current: "Runtime | None" = None


class Share:
    """Ticks that queues ask for take a fifth of the time at most: none begins until four times as long."""

    def __init__(self) -> None:
        self._next_at = float("-inf")

    def ran(self, began: float, ended: float) -> None:
        """A tick took this long."""
        self._next_at = ended + _REST * (ended - began)

    def allows(self, now: float) -> bool:
        """Whether one more may run now."""
        return now >= self._next_at


class Runtime:
    """A worker's loop with all it touches. `poke` asks for a tick, `enqueue_import` for an import."""

    def __init__(
        self,
        environment: Environment,
        *,
        poke: Callable[[str], object],
        enqueue_import: Callable[[int], object],
    ) -> None:
        self._poke = poke
        self._board = GatewayBoard()
        self.share = Share()
        self._listeners = Listeners(
            environment.run_dir, self._board, lambda: poke("want"), on_queue=self._look_soon
        )
        self._environment = environment
        self._lane = Lane(local.__name__.rpartition(".")[2])
        self._lanes = Lanes(ensure_identity(environment))
        self._crew = Crew(environment)
        control = client_files(environment, "control")
        self._asker = Asker(lambda host, port: fetch_load(host, port, control))
        self._levels = LevelOrders(lambda path, host, port: tell_agent(path, host, port, control))
        self._shapes = ShapeOrders(partial(tell_shape, files=control))
        self._stop = threading.Event()
        authority = ensure_authority(environment)
        here = Hands(
            environment,
            local.LocalNode(environment.home),
            authority,
            find_port=local.free_port,
            lane=self._lane,
        )
        releases = environment.home / "releases"
        self.loop = Loop(
            Outside(
                board=self._board,
                nodes=NodeViews(
                    here, self._lanes, lambda lane: RemoteHands(environment, lane, authority), read_hardware
                ),
                office=NodeOffice(ReleaseShelf(releases, build_release), releases),
                renewals=Renewals(authority, describe),
                calibrations=Calibrations(
                    Measurer(lambda host, port: fetch_measurement(host, port, control))
                ),
                asker=self._asker,
                levels=self._levels,
                shapes=self._shapes,
                power=PowerOffice(
                    partial(open_switch, programs=environment.power_dir),
                    partial(why_unusable, programs=environment.power_dir),
                ),
                routes_file=environment.routes_file,
                read_usage=read_usage,
                enqueue_import=enqueue_import,
                enroll=self._crew.look,
            )
        )

    def start(self) -> None:
        """Start listening and watching, and ask for the first tick."""
        imports.stopping.clear()
        threads: dict[str, Callable[[], None]] = {
            "listeners": self._listeners.run,
            "watchdog": self._watch,
            "certificates": partial(keep_client_certificates, self._environment, self._stop),
        }
        for name, work in threads.items():
            threading.Thread(target=work, name=name, daemon=True).start()
        self._poke("start")

    def stop(self) -> None:
        """End the threads around the loop, and imports. Agents go on."""
        imports.stopping.set()
        self._stop.set()
        self._crew.close()
        self._listeners.stop()

    def release(self) -> None:
        """Give the lease back, once no tick runs any more."""
        self._asker.close()
        self._levels.close()
        self._shapes.close()
        self._lane.close()
        self._lanes.close()
        try:
            lease.release(self.loop.owner)
        except DatabaseError:
            log.warning("the lease could not be given back: it runs out by itself", exc_info=True)

    def _look_soon(self) -> None:
        """A queue builds up: look before the second is over, where that costs little."""
        if self.share.allows(time.monotonic()):
            self._poke("want")

    def _watch(self) -> None:
        """Must outlive whatever fails: after it, nobody would ask for a tick that was lost."""
        while not self._stop.wait(_WATCH_EVERY_S):
            try:
                if lease.beat_is_late(LATE_S):
                    log.warning("no tick for %g s: asking for one", LATE_S)
                    self._poke("watchdog")
                    self._stop.wait(LATE_S)
            except Exception:  # a full disk fails rows and queue, each with errors of its own
                log.warning("the watchdog could not look", exc_info=True)
                connections.close_all()
                self._stop.wait(LATE_S)


def use(runtime: Runtime | None) -> None:
    """Say which runtime this process' tasks belong to."""
    global _current  # noqa: PLW0603 - one worker process, one loop
    _current = runtime


def tick(trigger: str) -> None:
    """One pass of this process' loop. Does nothing in a process that has none."""
    if _current is None:
        return
    began = time.monotonic()
    try:
        if _current.loop.tick(trigger) is not None:
            _current.share.ran(began, time.monotonic())
    except lease.LostLease as lost:
        log.warning("tick given up: %s", lost)


def read_hardware() -> Mapping[str, object]:
    """This machine's hardware as the node's row keeps it."""
    return asdict(local.read_hardware())


def read_usage() -> Usage | None:
    """This machine's load now."""
    usage = local.read_usage()
    return Usage(usage.cpu_percent, usage.memory_percent)

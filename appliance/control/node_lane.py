"""One enrolled node: a thread with one SSH connection that looks at it and does its work in order.

Nobody waits for a node: all that others call returns at once, with what is known.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from django.db import connections

from appliance.control.lane_jobs import Job, Jobs, OnEnd, Work
from appliance.control.lane_line import Line
from appliance.control.lane_pace import Pace
from appliance.control.lane_watch import LaneWatch
from appliance.control.node_problems import BROKEN, Trouble, find_problems, is_break, problem_of
from appliance.control.node_seen import JobResult, NodeAccess, Observation, Problem
from provisioning import ssh
from provisioning.enrolment import Connect
from provisioning.errors import (
    ConnectionLost,
    DiskFull,
    NodeError,
    ProvisioningError,
    StewardError,
    StewardMissing,
)
from provisioning.identity import Identity
from provisioning.remote import RemoteNode
from provisioning.steward_client import StewardClient

PACE: Final = Pace()
#: A look during a long job shares the line with it: ten times as long as it took there is none.
_SHARE: Final = 10.0

log = logging.getLogger(__name__)


class NodeLane:
    """A node's lane. `start` it once; all public methods may be called from any thread."""

    def __init__(
        self,
        access: NodeAccess,
        identity: Identity,
        *,
        steward_sha256: str = "",
        connect: Connect = ssh.connect,
        pace: Pace = PACE,
        clock: Callable[[], float] = time.time,
        delay_s: float = 0.0,
        on_begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._access = access
        self._steward_sha256 = steward_sha256
        self._pace = pace
        self._delay_s = delay_s
        self._on_begin = on_begin
        self._jobs = Jobs()
        self._watch = LaneWatch(pace, time.monotonic(), clock)
        self._wake, self._ended, self._poked = threading.Event(), threading.Event(), threading.Event()
        self._line = Line(identity, connect, self)
        self._trouble: Trouble | None = None
        self._trouble_way: tuple[object, ...] = ()
        self._tried_at = float("-inf")
        self._asked_at: float | None = None
        self._beside_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"lane-{access.name}", daemon=True)

    # What others call.

    def start(self) -> None:
        """Begin to look after the node."""
        self._thread.start()

    @property
    def access(self) -> NodeAccess:
        """How the node is reached, as it was last told."""
        return self._access

    def observation(self) -> Observation | None:
        """The newest answer, None before the first."""
        return self._watch.observation

    def problems(self) -> tuple[Problem, ...]:
        """What keeps the node from being well now; nothing where it is well, or not known yet."""
        now = time.monotonic()
        broken = is_break(self._trouble, self._watch.heard_at, self._asked_at, now)
        return (broken,) if broken is not None else self._found(now)

    def submit(
        self,
        name: str,
        work: Work,
        *,
        agent: str = "",
        about: str = "",
        short: bool = False,
        yields: bool = False,
        on_end: OnEnd | None = None,
    ) -> bool:
        """Queue work; False where a job of that name waits or runs, or the queue is full.

        `agent` is whom it brings, renews or removes; `about` whose order it keeps to, if that is another.
        One that is `short` need not wait for a long job about another agent; one that `yields` waits for all
        that are about others. How it ended goes to `on_end`,
        called in the lane's thread, or else to `take_results`.
        """
        added = self._jobs.add(Job(name, work, agent, about or agent, short, yields, on_end))
        self._wake.set()
        return added

    def drop(self, name: str) -> None:
        """Forget a job that waits; break off one that runs, as soon as the node tells of its progress."""
        self._jobs.drop(name)

    def is_first(self, name: str) -> bool:
        """Whether a job of that name waits with nothing before it about the same agent."""
        return self._jobs.is_first(name)

    def in_hand(self) -> frozenset[str]:
        """Agents with work that waits or runs, or whose end the newest observation does not show yet."""
        return self._jobs.agents()

    def names(self) -> frozenset[str]:
        """Jobs that wait or run, or whose effect the newest observation does not show yet."""
        return self._jobs.names()

    def take_results(self) -> list[JobResult]:
        """How jobs ended since the last call, without those that had an `on_end`."""
        return self._jobs.take_results()

    def last_lines(self, agent: str) -> tuple[str, ...]:
        """The end of the log of an agent that was seen to have ended, untrusted text."""
        return self._watch.ended.get(agent, ())

    def poke(self) -> None:
        """Look at the node soon; try to reach it soon where it is not."""
        self._poked.set()
        self._wake.set()

    def update(self, access: NodeAccess) -> None:
        """Go on with this access; connects anew where the way there changed."""
        changed = access.way_there != self._access.way_there
        self._access = access
        if changed:
            self._line.cut()
            self.poke()

    def close(self) -> None:
        """End: what waits is dropped, what runs is cut off. Returns at once."""
        self._ended.set()
        self._jobs.close()
        self._wake.set()
        self._line.cut(for_good=True)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # The thread.

    def _run(self) -> None:
        try:
            self._ended.wait(self._delay_s)
            self._begin()
            while not self._ended.is_set():
                try:
                    self._step()
                except ProvisioningError as error:
                    self._failed(error)
                except Exception as error:  # the lane must outlive whatever an answer leads to
                    log.exception("lane of node %s", self._access.name)
                    self._failed(NodeError(f"the node could not be looked after: {type(error).__name__}"))
        finally:
            self._line.close()
            connections.close_all()

    def _begin(self) -> None:
        try:
            self._on_begin()
        except Exception:  # the node is looked after all the same
            log.exception("the beginning of the lane of node %s", self._access.name)

    def _step(self) -> None:
        """Do the next thing, or wait for it. Raises ProvisioningError."""
        if self._is_pausing():
            return
        client: StewardClient | None = self._line.client
        if client is None or self._line.way != self._access.way_there:
            client = self._connect()
        now = time.monotonic()
        if self._watch.is_overdue(now) or self._poked.is_set():
            self._look(client)
        elif self._jobs.are_waiting():
            self._work(client)
        elif self._jobs.are_unsettled() or self._watch.until_look(now) <= 0:
            self._look(client)
        else:
            self._wait(self._watch.until_look(now))

    def _is_pausing(self) -> bool:
        """After a try that failed: wait, and say whether to wait more."""
        trouble = self._trouble
        if trouble is None or self._line.way != self._access.way_there:
            return False
        now = time.monotonic()
        pause_s = self._pace.pause(trouble, now)
        if self._poked.is_set():
            pause_s = min(pause_s, 2 * self._pace.retry_s)
        left_s = self._tried_at + pause_s - now
        if left_s <= 0:
            return False
        self._wait(left_s)
        return True

    def _wait(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _connect(self) -> StewardClient:
        self._poked.clear()
        self._tried_at = self._asked_at = time.monotonic()
        client = self._line.open(self._access)
        self._watch.connected()
        return client

    def _look(self, client: StewardClient) -> None:
        self._poked.clear()
        self._tried_at = self._asked_at = time.monotonic()
        self._watch.look(client, self._found(self._tried_at))
        self._asked_at = None
        self._trouble = None
        self._jobs.settle()

    def _work(self, client: StewardClient) -> None:
        self._tried_at = time.monotonic()
        self._beside_at = self._tried_at + self._pace.rest_s
        try:
            self._do(self._jobs.take(), client)
        finally:
            connections.close_all()

    def _do(self, job: Job | None, client: StewardClient) -> None:
        """Do a job and keep how it ended. Raises ProvisioningError where the connection is broken."""
        if job is None:
            return
        broken: ProvisioningError | None = None
        try:
            job.work(RemoteNode(client, self._access.release_sha256), client)
            result = JobResult(job.name, "", "")
        except ProvisioningError as error:
            result = JobResult(job.name, error.line, error.code)
            if isinstance(error, DiskFull):
                self._watch.found_full(time.monotonic())
            broken = error if isinstance(error, BROKEN) else None
        except Exception as error:  # the loop must hear of it, whatever it is
            log.exception("job %s on node %s", job.name, self._access.name)
            result = JobResult(job.name, f"{type(error).__name__}: {str(error)[:300]}", "fault")
        self._asked_at = None
        self._watch.touched(time.monotonic())
        self._jobs.end(job, result)
        if broken is not None:
            raise broken

    def asks(self) -> None:
        """A job asks."""
        self._asked_at = time.monotonic()

    def answered(self) -> None:
        """A job was answered."""
        self._asked_at, self._watch.heard_at = None, time.monotonic()

    def progresses(self) -> None:
        """A long job tells of its progress: meanwhile do what is short, and look at the node."""
        self._asked_at = now = time.monotonic()
        self._watch.heard(now)
        carrier = self._line.carrier
        if self._jobs.is_unwanted() or carrier is None:
            raise ConnectionLost("it was broken off: it is no longer wanted")
        beside = StewardClient(carrier)
        short = self._jobs.take_short()
        if short is not None:
            self._do(short, beside)
        elif now >= self._beside_at or self._jobs.are_unsettled():
            self._look_beside(beside)

    def _look_beside(self, client: StewardClient) -> None:
        began = time.monotonic()
        try:
            self._watch.look(client, self._found(began))
        except (StewardError, StewardMissing) as error:
            log.warning("node %s could not be looked at: %s", self._access.name, error)
        self._jobs.settle()
        ended = time.monotonic()
        self._beside_at = ended + max(self._pace.rest_s, _SHARE * (ended - began))

    def _found(self, now: float) -> tuple[Problem, ...]:
        watch, host = self._watch, self._access.host
        return find_problems(watch.observation, watch.full, self._steward_sha256, host, now)

    def _failed(self, error: ProvisioningError) -> None:
        now = time.monotonic()
        self._asked_at = None
        same = self._trouble is not None and self._trouble_way == self._line.way
        since = self._trouble.since if self._trouble is not None and same else now
        self._trouble_way = self._line.way
        known = error if isinstance(error, NodeError) else NodeError(str(error), remedy=error.remedy)
        self._trouble = Trouble(problem_of(known), since)
        if isinstance(error, BROKEN):
            self._line.close()
        self._jobs.settle()
        if is_break(self._trouble, self._watch.heard_at, None, now) is not None:
            self._jobs.fail_waiting(error.line, error.code)

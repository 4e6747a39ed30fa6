"""The work that waits for a node: in order, bounded, each job under a name that only one has at a time."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.control.node_seen import JobResult
from provisioning.remote import RemoteNode
from provisioning.steward_client import StewardClient

MAX_WAITING: Final = 1000
MAX_RESULTS: Final = 1000

log = logging.getLogger(__name__)
Work = Callable[[RemoteNode, StewardClient], None]
OnEnd = Callable[[JobResult], None]


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Work under a name.

    `agent` is whom it brings, renews or removes, '' where that is nobody. `about` is the agent whose jobs
    are never done out of their order; one that is `short` may be done while a long job of another is under
    way, and one that `yields` is done once no other may.
    """

    name: str
    work: Work
    agent: str = ""
    about: str = ""
    short: bool = False
    yields: bool = False
    on_end: OnEnd | None = None


class Jobs:
    """A queue that any thread adds to and one takes from.

    A job that has ended counts as in hand until `settle`, so that what the node then shows has its effect.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._unwanted: set[Job] = set()
        self._ended: list[tuple[Job, JobResult]] = []
        self._results: deque[JobResult] = deque(maxlen=MAX_RESULTS)
        self._closed = False

    def add(self, job: Job) -> bool:
        """Queue it; False where its name is taken, the queue is full or closed."""
        with self._lock:
            if self._closed or len(self._waiting) >= MAX_WAITING:
                return False
            if any(other.name == job.name for other in self._all()):
                return False
            self._waiting.append(job)
            return True

    def drop(self, name: str) -> None:
        """A job is no longer wanted: it is forgotten while it waits; one that runs is to be broken off."""
        with self._lock:
            self._waiting = deque(job for job in self._waiting if job.name != name)
            self._unwanted.update(job for job in self._running if job.name == name)

    def take(self) -> Job | None:
        """The next job, which now runs; None where there is none."""
        with self._lock:
            busy = set()
            for job in self._waiting:
                if not job.yields and job.about not in busy:
                    return self._begin(job)
                busy.add(job.about)
            return self._begin(self._waiting[0]) if self._waiting else None

    def take_short(self) -> Job | None:
        """The first that may be done beside what runs, and now does; None where there is none."""
        with self._lock:
            busy = {job.about for job in self._running}
            for job in self._waiting:
                if job.short and job.about not in busy:
                    return self._begin(job)
                busy.add(job.about)
            return None

    def is_first(self, name: str) -> bool:
        """Whether a job of that name waits, and none about the same agent runs, or waits before it."""
        with self._lock:
            busy = {job.about for job in self._running}
            for job in self._waiting:
                if job.name == name:
                    return job.about not in busy
                busy.add(job.about)
            return False

    def is_unwanted(self) -> bool:
        """Whether what runs is to be broken off."""
        with self._lock:
            return bool(self._unwanted)

    def end(self, job: Job, result: JobResult) -> None:
        """A job that ran has ended so; it stays in hand until `settle`."""
        with self._lock:
            self._running.remove(job)
            self._unwanted.discard(job)
            self._ended.append((job, result))

    def settle(self) -> None:
        """Hand out how jobs ended."""
        with self._lock:
            ended = list(self._ended)
        for job, result in ended:  # before it leaves our hands, so that nobody misses how it ended
            self._tell(job, result)
        with self._lock:
            self._ended = self._ended[len(ended) :]

    def fail_waiting(self, error: str, code: str) -> None:
        """End all that wait with this error."""
        with self._lock:
            failed, self._waiting = self._waiting, deque()
            self._ended += [(job, JobResult(job.name, error, code)) for job in failed]
        self.settle()

    def close(self) -> None:
        """Drop all that wait, and take no more."""
        with self._lock:
            self._closed = True
            self._waiting.clear()

    def are_waiting(self) -> bool:
        """Whether there is anything to take."""
        with self._lock:
            return bool(self._waiting)

    def are_unsettled(self) -> bool:
        """Whether jobs have ended of which that was not handed out."""
        with self._lock:
            return bool(self._ended)

    def names(self) -> frozenset[str]:
        """Of all in hand."""
        with self._lock:
            return frozenset(job.name for job in self._all())

    def agents(self) -> frozenset[str]:
        """Whom those bring, renew or remove."""
        with self._lock:
            return frozenset(job.agent for job in self._all() if job.agent)

    def take_results(self) -> list[JobResult]:
        """How jobs ended since the last call, oldest first."""
        with self._lock:
            results = list(self._results)
            self._results.clear()
            return results

    def _begin(self, job: Job) -> Job:
        self._waiting.remove(job)
        self._running.append(job)
        return job

    def _tell(self, job: Job, result: JobResult) -> None:
        if job.on_end is None:
            with self._lock:
                self._results.append(result)
            return
        try:
            job.on_end(result)
        except Exception:  # whoever asked for it must not end the lane
            log.exception("the end of job %s", job.name)

    def _all(self) -> list[Job]:
        return [*self._waiting, *self._running, *(job for job, _ in self._ended)]

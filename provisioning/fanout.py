"""The same work on many nodes at once: each with its own outcome, none waiting for a hung one."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from provisioning.errors import Hung, ProvisioningError

T = TypeVar("T")
CONCURRENCY: Final = 16


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of one node: a value, or the error that ended its work."""

    name: str
    value: T | None
    error: Exception | None
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the work was done."""
        return self.error is None

    @property
    def line(self) -> str:
        """Cause and remedy, '' where the work was done."""
        if isinstance(self.error, ProvisioningError):
            return self.error.line
        return "" if self.error is None else f"unforeseen: {type(self.error).__name__}: {self.error}"


def run_on_all(
    names: Iterable[str], work: Callable[[str], T], *, limit_s: float, concurrency: int = CONCURRENCY
) -> Iterator[Outcome[T]]:
    """Run `work(name)` for every node and yield outcomes as they come. No name may come twice.

    At most `concurrency` nodes are worked on at a time, each in a thread of its own; names are drawn
    only when there is room. One that takes longer than `limit_s` is given up with Hung and gives its
    place to the next: `work` must have time limits of its own, so that its thread ends soon after.
    """
    waiting = iter(names)
    done: queue.SimpleQueue[Outcome[T]] = queue.SimpleQueue()
    running: dict[str, float] = {}
    exhausted = False
    while running or not exhausted:
        while not exhausted and len(running) < concurrency:
            name = next(waiting, None)
            if name is None:
                exhausted = True
                break
            running[name] = time.monotonic()
            threading.Thread(target=_work_on, args=(name, work, done), daemon=True).start()
        if not running:
            break
        first = min(running.values())
        try:
            outcome = done.get(timeout=max(0.0, first + limit_s - time.monotonic()))
        except queue.Empty:
            yield from _give_up(running, limit_s)
            continue
        if running.pop(outcome.name, None) is not None:  # else it was given up before
            yield outcome


def _work_on(name: str, work: Callable[[str], T], done: "queue.SimpleQueue[Outcome[T]]") -> None:
    began = time.monotonic()
    try:
        outcome = Outcome(name, work(name), None, time.monotonic() - began)
    except Exception as error:  # noqa: BLE001 - every node has an outcome, whatever happened to it
        outcome = Outcome(name, None, error, time.monotonic() - began)
    done.put(outcome)


def _give_up(running: dict[str, float], limit_s: float) -> Iterator[Outcome[T]]:
    now = time.monotonic()
    for name, began in list(running.items()):
        if now - began >= limit_s:
            del running[name]
            yield Outcome(name, None, Hung(f"{name} did not finish within {limit_s:g} s"), now - began)

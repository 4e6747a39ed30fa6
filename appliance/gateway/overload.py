"""Who is let into a deployment's queue, and what those are told who are not. Pure."""

from typing import Final, TypeVar

from appliance.gateway import errors
from appliance.gateway.drain import Drain
from appliance.gateway.errors import ApiError
from appliance.gateway.wait_queue import Waiting, WaitQueue

Item = TypeVar("Item", bound=Waiting)

#: Clients ignore longer times, and shorter ones bring them back before anything has changed.
MIN_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0

#: Of its deadline a request may spend this share on the expected wait and service: both vary.
_USABLE: Final = 0.85


def find_hopeless(queue: WaitQueue[Item], drain: Drain, item: Item, deadline_s: float) -> ApiError | None:
    """Why a request would miss its deadline if it waited here, None where it has a chance or nobody knows.

    Worked number: 3,000 tokens ahead at 1,000 per second are 3 s; a deadline of 2 s is refused.
    """
    usable_s = deadline_s * _USABLE - drain.service_s
    wait_s = drain.wait_s(queue.work_ahead(item), item.priority)
    if wait_s is None or wait_s <= usable_s:
        return None
    return errors.overloaded(
        f"the answer would take about {wait_s + drain.service_s:.1f} s, "
        f"too long for the deadline of {deadline_s:g} s",
        bound_retry(wait_s - usable_s),
    )


def describe_full(name: str, queue: WaitQueue[Item], drain: Drain, priority: int) -> ApiError:
    """What a request of this class is told that finds the queue full, or that lost its place there."""
    bound = f"{queue.limit} requests" if len(queue) >= queue.limit else f"{queue.limit_work:.0f} tokens"
    wait_s = drain.wait_s(queue.work_until(priority), priority)
    return errors.overloaded(f"as much waits for {name!r} as may: {bound}", bound_retry(wait_s))


def bound_retry(wait_s: float | None) -> float:
    """A time for Retry-After in seconds: 1 where nothing is known, 60 at most."""
    return MIN_RETRY_S if wait_s is None else min(MAX_RETRY_S, max(MIN_RETRY_S, wait_s))

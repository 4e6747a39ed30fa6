"""How many tokens a request is, from cumulative counters. Standard library only."""

from collections.abc import Iterable, Mapping
from typing import Any

from appliance.policies.slices import NO_SLICES, Counts, Slices, observe_counts

#: As long as the rate of requests is looked at: their product is what came.
WINDOW_S = 60.0
_WIDTH = 2

#: Requests that were answered, and their tokens.
Work = Slices
NO_WORK = NO_SLICES


def work_from_json(given: Mapping[str, Any]) -> Work:
    """What `to_json` gave. Raises what conversions raise on anything else."""
    return Work.from_json(given, _WIDTH)


def observe_work(work: Work, counted: Iterable[tuple[str, float, Counts]], now: float) -> Work:
    """Take in what gateways counted: (process, started at, (requests answered, their tokens))."""
    return observe_counts(work, counted, now, WINDOW_S)


def tokens_each(work: Work) -> float | None:
    """The mean of the last minute; None where nothing was answered in it, or where nobody counts tokens."""
    answered, tokens = work.total() or (0, 0)
    return tokens / answered if answered and tokens else None

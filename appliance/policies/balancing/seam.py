"""What a balancing policy is, and the table in which each registers itself under its name.

A policy is a pure function of the agents that may take work, of `turn`, the index after the one
picked last, of `now`, of the `work` of the request and of how many wait behind it. It answers
with an index, says that waiting is better, or which nothing it is. It changes nothing: who
calls it takes the slot in the same step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

DEFAULT_POLICY: Final = "expected_completion"

#: How fast a doubt fades: an agent is expected to be later by this share of the time left of its doubt.
DOUBT_SHARE: Final = 0.5


class Target(Protocol):
    """An agent as a policy sees it: plain attributes, brought up to date when something happens.

    `in_flight` requests are with it, it executes `slots` at once, and it may be given no more
    while `in_flight >= limit` (`limit` is 0 while it refuses). What it has is expected to be done
    at `busy_until`; a request of `work` is expected to take `fixed_s + per_work_s * work` seconds
    once begun. Until `doubt_until` it is trusted less, since it was slow, or failed.
    """

    @property
    def in_flight(self) -> int: ...

    @property
    def slots(self) -> int: ...

    @property
    def limit(self) -> int: ...

    @property
    def busy_until(self) -> float: ...

    @property
    def fixed_s(self) -> float: ...

    @property
    def per_work_s(self) -> float: ...

    @property
    def doubt_until(self) -> float: ...


class Nothing(Enum):
    """Why there is no agent to pick."""

    NO_AGENT = "no_agent"
    ALL_FULL = "all_full"


@dataclass(frozen=True, slots=True)
class Wait:
    """One has room, but a faster one that is full will have answered sooner: stay in the queue.

    If nothing happens for `for_s` seconds, the choice may be another.
    """

    for_s: float


Choice = int | Wait | Nothing
Pick = Callable[[Sequence[Target], int, float, float, int], Choice]


@dataclass(frozen=True, slots=True)
class Policy:
    """`pick(targets, turn, now, work, behind)`, times in seconds of one clock.

    One that `compares` looks at every target; of very many it is given a sample.
    """

    name: str
    pick: Pick
    compares: bool


_policies: dict[str, Policy] = {}


class UnknownPolicy(Exception):
    """No policy has this name; the message names those there are."""


def register(name: str, *, compares: bool) -> Callable[[Pick], Pick]:
    """Put the decorated function into the table. A name taken by another is refused (ValueError)."""

    def add(pick: Pick) -> Pick:
        if name in _policies:
            raise ValueError(f"two balancing policies are named {name!r}")
        _policies[name] = Policy(name, pick, compares)
        return pick

    return add


def find_policy(name: str) -> Policy:
    """The policy of this name. Raises UnknownPolicy."""
    try:
        return _policies[name]
    except KeyError:
        known = ", ".join(policy_names())
        raise UnknownPolicy(f"no balancing policy is named {name!r}; there are: {known}") from None


def policy_names() -> tuple[str, ...]:
    """All names, sorted."""
    return tuple(sorted(_policies))

"""What a balancing policy is, and the table in which each registers itself under its name.

A policy is a pure function of the agents that may take work and of `turn`, the index after the
one picked last. It answers with an index, or says which nothing it is. It changes nothing: who
calls it takes the slot in the same step.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, Protocol

DEFAULT_POLICY: Final = "least_in_flight"


class Target(Protocol):
    """An agent as a policy sees it.

    `in_flight` requests are with it, it executes `slots` at once, and it may be given no more
    while `in_flight >= limit` (`limit` is 0 while it refuses).
    """

    @property
    def in_flight(self) -> int: ...

    @property
    def slots(self) -> int: ...

    @property
    def limit(self) -> int: ...


class Nothing(Enum):
    """Why there is no agent to pick."""

    NO_AGENT = "no_agent"
    ALL_FULL = "all_full"


Policy = Callable[[Sequence[Target], int], int | Nothing]

_policies: dict[str, Policy] = {}


class UnknownPolicy(Exception):
    """No policy has this name; the message names those there are."""


def register(name: str) -> Callable[[Policy], Policy]:
    """Put the decorated policy into the table. A name taken by another is refused (ValueError)."""

    def add(policy: Policy) -> Policy:
        if name in _policies:
            raise ValueError(f"two balancing policies are named {name!r}")
        _policies[name] = policy
        return policy

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

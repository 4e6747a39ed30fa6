"""What keeps a remote node from being well, of what was last seen of it and what its lane met. Pure."""

from dataclasses import dataclass
from typing import Final

from appliance.control.node_seen import Observation, Problem
from provisioning.errors import (
    ClockOff,
    ConnectionLost,
    DiskFull,
    HostKeyChanged,
    Hung,
    KeyRefused,
    KeyUnusable,
    NodeError,
    PythonMissing,
    PythonTooOld,
    StewardMissing,
    Unreachable,
)
from provisioning.planning import MAX_SKEW_S, MIN_FREE_BYTES, MIN_PYTHON

#: A break that is over sooner is none that people have to hear of.
BREAK_S: Final = 5.0
#: A full disk that was met is believed in for so long, unless the disk is seen to have become freer.
FULL_FOR_S: Final = 600.0
FREER_BYTES: Final = 64 * 1024 * 1024
#: Errors after which a connection is of no use any more.
BROKEN: Final = (ConnectionLost, Hung, Unreachable)
#: Errors that do not pass by themselves, and that no reboot shows.
_AT_ONCE: Final = frozenset(
    kind.code for kind in (HostKeyChanged, KeyRefused, KeyUnusable, StewardMissing, PythonMissing)
)
_FACTS: Final = frozenset({DiskFull.code, PythonTooOld.code})


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the newest try to speak with the node met, and since when tries have failed; monotonic seconds."""

    problem: Problem
    since: float


@dataclass(frozen=True, slots=True)
class Full:
    """A job found the disk full: when, monotonic seconds, and how much was free then, once it is known."""

    at: float
    free_bytes: int | None


def is_break(trouble: Trouble | None, heard_at: float, asked_at: float | None, now: float) -> Problem | None:
    """What stands between us and the node, where it has for long enough; monotonic seconds.

    `heard_at` is when it last answered or the lane began; `asked_at` when a question was put that is not
    answered yet.
    """
    if trouble is not None:
        lasts = now - heard_at >= BREAK_S
        return trouble.problem if lasts or trouble.problem.code in _AT_ONCE else None
    if asked_at is not None and now - max(asked_at, heard_at) >= BREAK_S:
        return problem_of(Hung(f"the node has not answered for more than {BREAK_S:g} s"))
    return None


def find_problems(
    seen: Observation | None, full: Full | None, steward_sha256: str, address: str, now: float
) -> tuple[Problem, ...]:
    """What is wrong with a node that answers. `steward_sha256` is the steward it should have."""
    if seen is None:
        return ()
    found = (
        _clock(seen),
        _disk(seen, full, now),
        _python(seen),
        _steward(seen, steward_sha256, address),
    )
    return tuple(problem for problem in found if problem is not None)


def is_of_facts(problem: Problem) -> bool:
    """Whether reading the machine's facts again can show it gone."""
    return problem.code in _FACTS


def problem_of(error: NodeError) -> Problem:
    """An error as a problem."""
    if isinstance(error, StewardMissing) and "unable to execute" in str(
        error
    ):  # sudo's words: no interpreter
        error = PythonMissing("the box has no /usr/bin/python3 any more")
    return Problem(error.code, str(error), error.remedy)


def still_full(full: Full | None, free_bytes: int | None, now: float) -> Full | None:
    """The same finding as long as it is believed in, with the room there was once that is known."""
    if full is None or free_bytes is None:
        return full
    if full.free_bytes is None:
        return Full(full.at, free_bytes)
    gone = now - full.at >= FULL_FOR_S or free_bytes > full.free_bytes + FREER_BYTES
    return None if gone else full


def free_of(seen: Observation | None) -> int | None:
    """Free bytes where agents live, None where not known."""
    free = None if seen is None or seen.hardware is None else seen.hardware.get("disk_free_bytes")
    return free if isinstance(free, int) else None


def _clock(seen: Observation) -> Problem | None:
    if abs(seen.skew_s) <= MAX_SKEW_S:
        return None
    minutes = round(abs(seen.skew_s) / 60)
    direction = "ahead" if seen.skew_s > 0 else "behind"
    return problem_of(ClockOff(f"the node's clock is {minutes} minutes {direction}"))


def _disk(seen: Observation, full: Full | None, now: float) -> Problem | None:
    free = free_of(seen)
    if free is not None and free < MIN_FREE_BYTES:
        needed = MIN_FREE_BYTES // 2**20
        return problem_of(DiskFull(f"less than {needed} MiB are free under /var/lib on the node"))
    if full is not None and now - full.at < FULL_FOR_S:
        return problem_of(DiskFull("the node's disk has no room for what it was sent"))
    return None


def _python(seen: Observation) -> Problem | None:
    version = str((seen.hardware or {}).get("python") or "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not version or numbers >= MIN_PYTHON:
        return None
    return problem_of(PythonTooOld(f"the node has Python {version}"))


def _steward(seen: Observation, wanted: str, address: str) -> Problem | None:
    if not wanted or seen.steward_sha256 == wanted:
        return None
    return Problem(
        "steward_outdated",
        "the node's steward is another than this appliance's",
        f"run `manage.py enroll_node {address} --name NAME` again to renew it",
    )

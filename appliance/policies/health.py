"""Whether an agent that answers with errors, breaks or is silent gets work. Pure: state, event, now -> state.

After errors in a row, or among too many, an agent is ejected: it gets no work for a time that doubles
with each repetition. Then it is on trial, half open: one request at a time, until one is answered
(it starts slowly) or fails (it is ejected for longer). Times are seconds of the caller's clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal

Event = Literal["error", "busy", "broken"]

#: So many errors without an answer in between eject. A broken connection weighs more: it took all that was in
#: flight with it, and is noticed only so often.
IN_ROW: Final = 5
WEIGHTS: Final[dict[Event, int]] = {"error": 1, "busy": 1, "broken": 3}
#: Or this share of at least so many results within the window.
WINDOW_S: Final = 10.0
LEAST_RESULTS: Final = 20
ERROR_SHARE: Final = 0.5
#: 0.5, 1, 2, 4, 8 and 10 s. Envoy begins with 30 s; here what fails is tried elsewhere: a trial costs one
#: client some milliseconds, and an agent that is well again is wanted back. The longest bounds how late
#: that is seen.
FIRST_S: Final = 0.5
LONGEST_S: Final = 10.0
#: Each time an agent was well for so long, one repetition is forgotten.
FORGET_S: Final = 10.0
#: At most this share of a pool is ejected for errors, but always one; and below this share of healthy ones
#: errors are ignored: when most fail, it is not the agents, or there is nothing better.
MOST_EJECTED: Final = 0.5
PANIC: Final = 0.5

_WORDS: Final[dict[Event, str]] = {
    "error": "it answered with errors",
    "busy": "it answered that it is too busy",
    "broken": "its connection broke under requests",
}


class Phase(Enum):
    """How far an agent is trusted."""

    HEALTHY = "healthy"
    EJECTED = "ejected"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class Health:
    """What is remembered of one agent.

    `until` is when an ejection ends, None: when the agent is heard again. `times` counts ejections,
    `well_since` is when the last one was over. `in_row` errors have come since `answered` answers;
    the window began at `window_at`, with `window_answered` answers, and has seen `errors`.
    """

    phase: Phase = Phase.HEALTHY
    why: str = ""
    until: float | None = None
    times: int = 0
    well_since: float = 0.0
    in_row: int = 0
    answered: int = 0
    window_at: float = float("-inf")
    window_answered: int = 0
    errors: int = 0

    @property
    def silent(self) -> bool:
        """Whether it is out because nothing is heard of it."""
        return self.phase is Phase.EJECTED and self.until is None


HEALTHY: Final = Health()


def note_error(health: Health, event: Event, answered: int, now: float) -> tuple[Health, str]:
    """Count an error of an agent that has given `answered` answers so far; and why to eject it, or ""."""
    in_row = (health.in_row if answered == health.answered else 0) + WEIGHTS[event]
    if now - health.window_at > WINDOW_S:
        health = replace(health, window_at=now, window_answered=answered, errors=0)
    health = replace(health, in_row=in_row, answered=answered, errors=health.errors + 1)
    if health.phase is Phase.EJECTED:
        return health, ""  # of what it had before
    if health.phase is Phase.TRIAL:
        return health, f"{_WORDS[event]} on trial"
    if in_row >= IN_ROW:
        return health, f"{_WORDS[event]}, {in_row} in a row"
    results = health.errors + answered - health.window_answered
    if results >= LEAST_RESULTS and health.errors >= ERROR_SHARE * results:
        return health, f"{_WORDS[event]}, {health.errors} of the last {results}"
    return health, ""


def is_well(health: Health, answered: int) -> bool:
    """Whether an agent that has given so many answers has not failed since the last of them."""
    return health.phase is Phase.HEALTHY and (health.in_row == 0 or answered > health.answered)


def may_eject(others: Sequence[Health]) -> bool:
    """Whether one agent more may be ejected for errors, by the state of the others that could take its work.

    Worked numbers: of 2 or 3 agents one may be out, of 4 two; a lone agent never is.
    """
    out = sum(health.phase is Phase.EJECTED for health in others)
    return out < len(others) and out < max(1, int(MOST_EJECTED * (len(others) + 1)))


def eject(health: Health, why: str, now: float) -> Health:
    """No work for a while: 0.5 s, and twice as long with each ejection that soon follows another."""
    forgotten = int((now - health.well_since) / FORGET_S) if health.phase is Phase.HEALTHY else 0
    times = max(0, health.times - forgotten) + 1
    until = now + min(LONGEST_S, FIRST_S * 2 ** (min(times, 10) - 1))
    return Health(Phase.EJECTED, why, until, times, health.well_since, health.in_row, health.answered)


def note_silence(health: Health, silent_s: float) -> Health:
    """No work until it is heard again."""
    return replace(health, phase=Phase.EJECTED, why=f"nothing heard for {silent_s:.2f} s", until=None)


def note_heard(health: Health) -> Health:
    """It speaks again: on trial, where silence was the reason."""
    return replace(health, phase=Phase.TRIAL) if health.silent else health


def note_time(health: Health, now: float) -> Health:
    """On trial, where the ejection is over."""
    if health.phase is Phase.EJECTED and health.until is not None and now >= health.until:
        return replace(health, phase=Phase.TRIAL, until=None)
    return health


def note_answer(health: Health, now: float) -> Health:
    """It has answered: a trial is passed."""
    if health.phase is Phase.TRIAL:
        return Health(times=health.times, well_since=now)
    return health


def choose_usable(members: Sequence[Health]) -> list[bool]:
    """Which members of a pool get work: the healthy ones and those on trial.

    Where that is less than half of all, every one that is heard: errors are ignored, silence is not.
    """
    usable = [health.phase is not Phase.EJECTED for health in members]
    if sum(usable) < PANIC * len(members):
        return [not health.silent for health in members]
    return usable

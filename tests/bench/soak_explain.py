"""Why a request of the soak was not answered with 200: explained by what was done, or not at all. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.bench.tally import Event

#: So long after a fault was healed its traces may be seen: backlogs empty, agents warm up.
RECOVERY_S = 6.0
#: Gateways look for routes every 200 ms.
ROUTES_S = 1.0
#: An answer that says that a deadline has passed comes no later than this after it.
DEADLINE_SLACK_S = 1.0
HURRIED_S = 0.5


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to whom, when, and when it was undone; `recovered_at` None: it never recovered.

    Times are of the monotonic clock. `deployment` is the one that it concerns, None: all.
    """

    name: str
    target: str
    began_at: float
    healed_at: float
    recovered_at: float | None = None
    deployment: str | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """An outcome that requests of a kind may have; `during` names the faults that explain it, () any time."""

    kind: str
    outcome: str
    code: str | None
    why: str
    during: tuple[str, ...] = ()
    within_s: float | None = None


UNDEPLOYED = "undeploy"
#: Faults that make work wait. A stall is of the machine itself: a thread that only sleeps woke late.
DELAYS = ("kill", "stop", "cut", "reset", "slow", "replace", "routes", "stall", UNDEPLOYED)
_DEADLINE = {"during": DELAYS, "within_s": HURRIED_S + DEADLINE_SLACK_S}
ALLOWED = (
    Allowed("rated", "429", "rate_limit_exceeded", "its key's rate was used up"),
    Allowed("nonsense", "400", None, "its body is no request"),
    Allowed("coming", "404", "model_not_found", "its deployment was away", (UNDEPLOYED,)),
    Allowed("hurried", "504", "deadline_exceeded", "its deadline passed during a fault", **_DEADLINE),
    Allowed("hurried", "503", "no_capacity", "its deadline passed during a fault", **_DEADLINE),
    Allowed("hurried", "429", "overloaded", "it would have missed its deadline during a fault", **_DEADLINE),
)


def explain(event: Event, faults: Sequence[Fault], allowed: Iterable[Allowed] = ALLOWED) -> str | None:
    """Why the request ended so, None where nothing that was done explains it.

    Worked number: a 504 at 7.2 s of a request due at 6.7 s, during a stop from 5 s to 7 s.
    """
    for one in allowed:
        if (one.kind, one.outcome) != (event.kind, event.outcome) or one.code not in (None, event.code):
            continue
        if one.within_s is not None and event.at - event.due_at > one.within_s:
            continue
        if not one.during or any(_touches(fault, event) for fault in faults if fault.name in one.during):
            return one.why
    return None


def _touches(fault: Fault, event: Event) -> bool:
    after_s = ROUTES_S if fault.name == UNDEPLOYED and event.outcome == "404" else RECOVERY_S
    end = max(fault.healed_at, fault.recovered_at or 0.0) + after_s
    return fault.began_at <= event.at and event.due_at <= end

"""The names by which people set how a deployment scales, and what each accepts. Standard library only."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from appliance.policies.scaling_facts import ScalingPolicy
from appliance.policies.schedules import MOST_AGENTS, MOST_SCHEDULES, BadSchedule, Schedule, parse_schedule

#: How people say that there is to be none.
NONE: Final = ("none", "null", "")
_MAX_SHOWN: Final = 40
#: More an agent does not accept.
MOST_THREADS: Final = 256
MOST_BATCH: Final = 1024
#: Under this name a row keeps schedules, as a list of texts.
SCHEDULES: Final = "schedule"


class BadKey(ValueError):
    """Not a key, or a value that it does not accept; the text says which and what is accepted."""


@dataclass(frozen=True, slots=True)
class Key:
    """A field of the policy, what it means, and the bounds of its value, which is divided to be the field's.

    `whole`: no fractions. `clears`: "none" is accepted, too.
    """

    field: str
    meaning: str
    low: float
    high: float
    whole: bool = False
    clears: bool = False
    divided_by: float = 1.0

    @property
    def accepted(self) -> str:
        """In words."""
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:,g} to {_say(self.high)}" + (", or none" if self.clears else "")


def _say(number: float) -> str:
    return f"{number:,.0f}" if number >= 1 else f"{number:g}"


def _count(field: str, meaning: str, low: int, high: int = MOST_AGENTS, *, clears: bool = False) -> Key:
    return Key(field, meaning, low, high, whole=True, clears=clears)


KEYS: Mapping[str, Key] = {
    "min": _count("min_agents", "agents there are at least", 0),
    "max": _count("max_agents", "agents there are at most", 1),
    "warm_floor": _count("warm_floor", "agents beyond what load asks, kept warm", 0),
    "activation": _count("activation", "agents at first, where there were none", 1),
    "target_in_flight": Key(
        "target",
        "requests one agent should have, executing and waiting; none: 70 % of its slots",
        0.01,
        100_000,
        clears=True,
    ),
    "target_cpu_percent": Key(
        "target_cpu_percent", "CPU that the nodes of its agents should have, percent", 1, 100, clears=True
    ),
    "target_rps": Key(
        "target_rps", "requests a second that one agent should get", 0.001, 1_000_000, clears=True
    ),
    "target_p95_ms": Key(
        "target_p95_ms", "95 % of requests are to take less, milliseconds", 1, 3_600_000, clears=True
    ),
    "target_ttft_ms": Key(
        "target_ttft_ms",
        "95 % of requests are to have their first token in less, milliseconds",
        1,
        3_600_000,
        clears=True,
    ),
    "target_tokens_per_s": Key(
        "target_tokens_per_s", "tokens that one agent should do in a second", 0.001, 1e9, clears=True
    ),
    "target_queue_wait_ms": Key(
        "slo_wait_s",
        "a request that waits longer for an agent is a miss, milliseconds",
        1,
        3_600_000,
        divided_by=1000.0,
    ),
    "idle_s": Key("idle_s", "seconds without a request before zero", 1, 86_400),
    "stable_window_s": Key("stable_window_s", "seconds over which concurrency is averaged", 6, 3600),
    "panic_window_s": Key("panic_window_s", "seconds of the shorter window, which answers to bursts", 1, 600),
    "panic_ratio": Key("panic_threshold", "a burst is so many times what the ready agents carry", 1.1, 1000),
    "tolerance": Key("tolerance", "a part of the target by which it may be missed", 0, 0.9),
    "max_up_per_min": _count("max_up_per_min", "so many agents more at most, in any minute", 1, clears=True),
    "max_down_per_min": _count(
        "max_down_per_min", "so many agents fewer at most, in any minute", 1, clears=True
    ),
    "stabilization_s": Key("stabilization_s", "seconds for which the most that was wanted is kept", 0, 3600),
    "miss_cost_s": Key("miss_cost_s", "agent-seconds that a miss is worth", 0, 1_000_000),
    "peak_s": Key("peak_s", "seconds for which what bursts needed is kept", 0, 3600),
    "season_s": Key(
        "season_s", "seconds after which load repeats (a day: 86400); 0: no forecast", 0, 31 * 86_400
    ),
    "start_s": Key("start_s", "seconds until a new agent serves, for planning ahead", 0.1, 3600),
    "park_s": Key(
        "park_s", "seconds that agents too many stay parked, without weights; 0: they end", 0, 86_400
    ),
    "hold": _count("hold", "so many agents whatever load asks, within min and max", 0, clears=True),
    "threads": _count(
        "threads",
        "engine threads that an agent starts with at most; none: all cores of its box",
        1,
        MOST_THREADS,
        clears=True,
    ),
    "max_threads": _count(
        "max_threads",
        "engine threads to which one grows where no agent can be added; none: all cores",
        1,
        MOST_THREADS,
        clears=True,
    ),
    "max_batch": _count(
        "max_batch",
        "sequences of a batch to which it grows then; none: as many as were measured to do most",
        1,
        MOST_BATCH,
        clears=True,
    ),
}


def set_key(policy: ScalingPolicy, name: str, text: str) -> ScalingPolicy:
    """The policy with one key set from text. Bounds of one key against another are `check`'s. Raises BadKey.

    A target in flight that people set is kept to beside the rules of waiting.
    """
    if name not in KEYS:
        raise BadKey(f"{name[:_MAX_SHOWN]!r} is not a key: accepted are {', '.join((*KEYS, SCHEDULES))}")
    key = KEYS[name]
    is_none = key.clears and text.strip().lower() in NONE
    if name == "target_in_flight":
        policy = replace(policy, by_concurrency=not is_none)
    if is_none:
        return policy if name == "target_in_flight" else _replaced(policy, key.field, None)
    number = _number(key, text)
    if number is None:
        raise BadKey(f"{name}={text[:_MAX_SHOWN]}: {key.accepted} is accepted")
    value: float | int = int(number) if key.whole else number / key.divided_by
    return _replaced(policy, key.field, value)


def get_key(policy: ScalingPolicy, name: str) -> float | int | None:
    """What a key of the policy is, as people say it; None for "none"."""
    key = KEYS[name]
    value = getattr(policy, key.field)
    if value is None or (name == "target_in_flight" and not policy.by_concurrency):
        return None
    return int(value) if key.whole else round(float(value) * key.divided_by, 9)


def policy_from(base: ScalingPolicy, kept: Mapping[str, Any]) -> ScalingPolicy:
    """`base` with what a row keeps by key. What this version does not accept stays at its default."""
    for name, value in kept.items():
        try:
            if name == SCHEDULES:
                base = replace(base, schedules=_read_known(value if isinstance(value, list) else ()))
            else:
                base = set_key(base, name, "none" if value is None else str(value))
        except BadKey:
            continue
    return base


def _read_known(texts: Iterable[object]) -> tuple[Schedule, ...]:
    """Those that are understood: one whose time zone is not known any more takes no other with it."""
    found: list[Schedule] = []
    for text in texts:
        try:
            found += read_schedules([text])
        except BadKey:
            continue
    return tuple(dict.fromkeys(found[:MOST_SCHEDULES]))


def read_schedules(texts: Iterable[object]) -> tuple[Schedule, ...]:
    """Schedules of texts, each once. Raises BadKey."""
    found: dict[Schedule, None] = {}
    for text in texts:
        try:
            found[parse_schedule(str(text))] = None
        except BadSchedule as error:
            raise BadKey(str(error)) from None
    if len(found) > MOST_SCHEDULES:
        raise BadKey(f"{len(found)} schedules are too many: up to {MOST_SCHEDULES} are accepted")
    return tuple(found)


def check(policy: ScalingPolicy) -> ScalingPolicy:
    """The policy itself. Raises BadKey where its values contradict each other."""
    least, most = policy.min_agents, policy.max_agents
    if most < least:
        raise BadKey(f"max={most} is below min={least}: raise max or lower min")
    if policy.panic_window_s > policy.stable_window_s:
        raise BadKey(
            f"panic_window_s={policy.panic_window_s:g} is above stable_window_s={policy.stable_window_s:g}: "
            "the panic window is the shorter one"
        )
    if policy.hold is not None and not least <= policy.hold <= most:
        raise BadKey(f"hold={policy.hold} is outside min={least} and max={most}: change these, or hold")
    if policy.warm_floor > most:
        raise BadKey(f"warm_floor={policy.warm_floor} is above max={most}: raise max or lower warm_floor")
    if policy.activation > most:
        raise BadKey(f"activation={policy.activation} is above max={most}: raise max or lower activation")
    start, grown = policy.threads, policy.max_threads
    if start is not None and grown is not None and grown < start:
        raise BadKey(f"max_threads={grown} is below threads={start}: raise max_threads or lower threads")
    for one in policy.schedules:
        allowed = most if one.max_agents is None else one.max_agents
        if one.min_agents > allowed:
            raise BadKey(f"schedule '{one.text}' asks more than max={allowed}: raise max, or give it one")
    return policy


def _replaced(policy: ScalingPolicy, field: str, value: float | None) -> ScalingPolicy:
    changes: dict[str, Any] = {field: value}
    return replace(policy, **changes)


def _number(key: Key, text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number) or not key.low <= number <= key.high or (key.whole and number % 1):
        return None
    return number


assert {key.field for key in KEYS.values()} <= {field.name for field in fields(ScalingPolicy)}

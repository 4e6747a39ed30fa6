"""How a deployment scales: what its row keeps of that, as the policy has it and as people say it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from appliance.errors import BadArgument, VerbError
from appliance.models import Deployment
from appliance.policies.scaling import ScalingPolicy
from appliance.policies.scaling_keys import (
    KEYS,
    NONE,
    SCHEDULES,
    BadKey,
    check,
    get_key,
    policy_from,
    read_schedules,
    set_key,
)
from appliance.row_settings import DEFAULT, Setting, flag, parse_pairs, to_text

#: Requests an agent should carry, as a part of those it executes at once, unless people say otherwise.
UTILIZATION: Final = 0.7
#: What replays showed to be best (decision 0009): how long what was wanted is kept, and an idle last agent.
STABILIZATION_S: Final = 14.0
IDLE_S: Final = 75.0
PAUSED: Final = flag("paused", "keep the number of agents as it is")
DRY_RUN: Final = flag("dry_run", "decide and tell, but leave the number of agents as it is")
ADD, REMOVE = f"{SCHEDULES}+", f"{SCHEDULES}-"
_OTHER_TARGETS = (key for key in KEYS if key.startswith("target_") and key != "target_queue_wait_ms")
#: What belongs together, by heading, in the order in which people are shown it: each setting once.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "How many": ("min", "max", "hold", "warm_floor", "activation", PAUSED.key, DRY_RUN.key, SCHEDULES),
    "Idle": ("idle_s", "park_s"),
    "Targets": ("target_queue_wait_ms", "miss_cost_s", *_OTHER_TARGETS),
    "Windows and bursts": ("stable_window_s", "panic_window_s", "panic_ratio", "tolerance", "peak_s"),
    "Steps": ("max_up_per_min", "max_down_per_min", "stabilization_s"),
    "Looking ahead": ("start_s", "season_s"),
    "Size of an agent": ("threads", "max_threads", "max_batch"),
}
#: Keys with a column of their own; the rest is in the column `scaling`.
_COLUMNS: Final = {"min": "min_agents", "max": "max_agents", "target_in_flight": "target_in_flight"}
_DEFAULTS: Final = ScalingPolicy(stabilization_s=STABILIZATION_S, idle_s=IDLE_S)
_MAX_SHOWN: Final = 40

#: A setting as people and programs are told it; None is "none". Schedules are a list.
Shown = str | int | float | bool | list[str] | None


def wanted_policy(
    row: Deployment, *, slots: float | None = None, capacity_rps: float | None = None
) -> ScalingPolicy:
    """How it scales, on agents that execute `slots` requests at once and do `capacity_rps`, where known."""
    policy = ScalingPolicy(
        min_agents=row.min_agents,
        max_agents=row.max_agents,
        slots=slots,
        capacity_rps=capacity_rps,
        stabilization_s=STABILIZATION_S,
        idle_s=IDLE_S,
        by_concurrency=row.target_in_flight is not None,
    )
    target = row.target_in_flight or (UTILIZATION * slots if slots else policy.target)
    return policy_from(replace(policy, target=target), row.scaling)


def is_dry_run(row: Deployment) -> bool:
    """Whether load changes nothing."""
    return bool(row.scaling.get(DRY_RUN.key))


def show_scaling(row: Deployment) -> dict[str, Shown]:
    """All settings by key."""
    policy = wanted_policy(row)
    values: dict[str, Shown] = {key: get_key(policy, key) for key in KEYS}
    schedules = [one.text for one in policy.schedules]
    return {**values, "paused": row.paused, "dry_run": is_dry_run(row), SCHEDULES: schedules}


def default_of(key: str) -> float | int | None:
    """What a key is unless people set it; None is "none"."""
    return get_key(_DEFAULTS, key)


def explain_key(key: str) -> tuple[str, str]:
    """A sentence that says what a key means, and what it is where nothing is set."""
    one = KEYS[key]
    meaning, _, none = one.meaning.partition("; none: ")
    unset = none or "none" if one.clears else f"the default, {say(default_of(key))}"
    return f"{meaning[:1].upper()}{meaning[1:]}.", unset


def set_otherwise(policy: ScalingPolicy) -> dict[str, Shown]:
    """What of a policy is not the default, by key, and what is known of its agents."""
    found: dict[str, Shown] = {
        key: get_key(policy, key) for key in KEYS if get_key(policy, key) != get_key(_DEFAULTS, key)
    }
    known = {"slots": policy.slots, "capacity_rps": policy.capacity_rps}
    found |= {name: value for name, value in known.items() if value is not None}
    return found | ({SCHEDULES: [one.text for one in policy.schedules]} if policy.schedules else {})


def say(value: object) -> str:
    """A setting in words."""
    if value is None or value == []:
        return "none"
    return "; ".join(map(str, value)) if isinstance(value, list) else to_text(value)


def parse_changes(texts: Iterable[str]) -> dict[str, object]:
    """Values by key, of texts such as `min=2`; `schedule+=` and `schedule-=` may come several times.

    Raises BadArgument.
    """
    several: dict[str, list[str]] = {}
    rest = []
    for text in texts:
        key, equals, value = text.partition("=")
        if equals and key.strip() in (ADD, REMOVE):
            several.setdefault(key.strip(), []).append(value.strip())
        else:
            rest.append(text)
    return {**parse_pairs(rest), **several}


def apply_changes(row: Deployment, changes: Mapping[str, object]) -> None:
    """Set them in the row, unsaved.

    Raises BadArgument where one is not acceptable, VerbError where they are not beside what else is set.
    """
    try:
        for key, value in changes.items():
            if key == PAUSED.key:
                row.paused = _read_flag(PAUSED, value)
            elif key == DRY_RUN.key:
                _set_dry_run(row, wanted=_read_flag(DRY_RUN, value))
            elif key in (SCHEDULES, ADD, REMOVE):
                _set_schedules(row, key, value)
            else:
                _set_value(row, key, _text(value))
    except BadKey as error:
        raise BadArgument(str(error)) from None
    check_scaling(row)


def check_scaling(row: Deployment) -> None:
    """Raise VerbError where what is set contradicts itself, as a minimum above the maximum."""
    try:
        check(wanted_policy(row))
    except BadKey as error:
        raise VerbError(str(error)) from None


def _read_flag(setting: Setting, value: object) -> bool:
    try:
        return bool(setting.read(value))
    except ValueError:
        raise BadKey(f"{setting.key}={str(value)[:_MAX_SHOWN]}: {setting.accepted} is accepted") from None


def _set_dry_run(row: Deployment, *, wanted: bool) -> None:
    row.scaling = {name: kept for name, kept in row.scaling.items() if name != DRY_RUN.key}
    if wanted:
        row.scaling[DRY_RUN.key] = True


def _set_value(row: Deployment, key: str, text: str) -> None:
    """A key that is unset, or has its default, is not kept."""
    if key not in KEYS:
        known = ", ".join((*KEYS, PAUSED.key, DRY_RUN.key, SCHEDULES))
        raise BadKey(f"{key[:_MAX_SHOWN]!r} is not a key: accepted are {known}")
    resets = text == DEFAULT and key not in ("min", "max")
    policy = ScalingPolicy() if resets else set_key(ScalingPolicy(), key, text)
    value = None if resets else get_key(policy, key)
    if key in _COLUMNS:
        setattr(row, _COLUMNS[key], value)
        return
    row.scaling = {name: kept for name, kept in row.scaling.items() if name != key}
    if value is not None:
        row.scaling[key] = value


def _set_schedules(row: Deployment, key: str, value: object) -> None:
    texts = [str(one) for one in value] if isinstance(value, list | tuple) else [_text(value)]
    kept = [one.text for one in wanted_policy(row).schedules]
    if key == ADD:
        texts = [*kept, *texts]
    elif key == REMOVE:
        gone = {_find_schedule(kept, text) for text in texts}
        texts = [text for text in kept if text not in gone]
    elif len(texts) == 1 and texts[0].lower() in (*NONE, DEFAULT):
        texts = []
    row.scaling = {name: other for name, other in row.scaling.items() if name != SCHEDULES}
    schedules = [one.text for one in read_schedules(texts)]
    if schedules:
        row.scaling[SCHEDULES] = schedules


def _find_schedule(kept: list[str], text: str) -> str:
    """By its number, as it is listed, or its words."""
    if text.isdecimal() and 1 <= int(text[:3]) <= len(kept):
        return kept[int(text[:3]) - 1]
    [wanted] = [text] if text.isdecimal() else [one.text for one in read_schedules([text])]
    if wanted not in kept:
        there = "; ".join(f"{number}: {one}" for number, one in enumerate(kept, 1)) or "(none)"
        raise BadKey(f"{REMOVE}={text[:_MAX_SHOWN]}: there is no such schedule; there are: {there}")
    return wanted


def _text(value: object) -> str:
    if value is None:
        return "none"
    return str(value)

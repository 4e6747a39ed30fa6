"""The names by which people set how a deployment scales, and what each accepts. Standard library only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from appliance.policies.scaling_facts import ScalingPolicy


class BadKey(ValueError):
    """Not a key, or a value that it does not accept; the text says which and what is accepted."""


@dataclass(frozen=True, slots=True)
class Key:
    """A field of the policy, the bounds of its value, and by what a value is divided to be the field's.

    `whole`: no fractions. `clears`: "none" is accepted, too.
    """

    field: str
    low: float
    high: float
    whole: bool = False
    clears: bool = False
    divided_by: float = 1.0

    @property
    def accepted(self) -> str:
        """In words."""
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}" + (", or none" if self.clears else "")


KEYS: Mapping[str, Key] = {
    "min": Key("min_agents", 0, 1000, whole=True),
    "max": Key("max_agents", 1, 1000, whole=True),
    "warm_floor": Key("warm_floor", 0, 1000, whole=True),
    "target_in_flight": Key("target", 0.01, 100_000),
    "target_cpu_percent": Key("target_cpu_percent", 1, 100, clears=True),
    "target_rps": Key("target_rps", 0.001, 1_000_000, clears=True),
    "target_p95_ms": Key("target_p95_ms", 1, 3_600_000, clears=True),
    "target_queue_wait_ms": Key("slo_wait_s", 1, 3_600_000, divided_by=1000.0),
    "idle_s": Key("idle_s", 1, 86_400),
    "stable_window_s": Key("stable_window_s", 6, 3600),
    "panic_window_s": Key("panic_window_s", 1, 600),
    "panic_ratio": Key("panic_threshold", 1.1, 1000),
    "tolerance": Key("tolerance", 0, 0.9),
    "max_up_per_min": Key("max_up_per_min", 1, 1000, whole=True, clears=True),
    "max_down_per_min": Key("max_down_per_min", 1, 1000, whole=True, clears=True),
    "stabilization_s": Key("stabilization_s", 0, 3600),
    "miss_cost_s": Key("miss_cost_s", 0, 1_000_000),
    "peak_s": Key("peak_s", 0, 3600),
    "season_s": Key("season_s", 0, 31 * 86_400),
}


def set_key(policy: ScalingPolicy, name: str, text: str) -> ScalingPolicy:
    """The policy with one key set from text. Bounds of one key against another are `check`'s. Raises BadKey.

    A target in flight that people set is kept to beside the rules of waiting.
    """
    if name not in KEYS:
        raise BadKey(f"{name!r} is not a key: accepted are {', '.join(KEYS)}")
    key = KEYS[name]
    if key.clears and text.strip().lower() in ("none", "null", ""):
        return _replaced(policy, key.field, None)
    number = _number(key, text)
    if number is None:
        raise BadKey(f"{name}={text}: {key.accepted} is accepted")
    value: float | int = int(number) if key.whole else number / key.divided_by
    if name == "target_in_flight":
        policy = replace(policy, by_concurrency=True)
    return _replaced(policy, key.field, value)


def check(policy: ScalingPolicy) -> ScalingPolicy:
    """The policy itself. Raises BadKey where its values contradict each other."""
    if policy.max_agents < policy.min_agents:
        raise BadKey(f"max={policy.max_agents} is below min={policy.min_agents}: raise max or lower min")
    if policy.panic_window_s > policy.stable_window_s:
        raise BadKey(
            f"panic_window_s={policy.panic_window_s:g} is above stable_window_s={policy.stable_window_s:g}: "
            "the panic window is the shorter one"
        )
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

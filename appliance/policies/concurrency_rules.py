"""How many agents carry a concurrency: two means of it, a stable one and a short one that answers to bursts.

Standard library only.
"""

import math
from dataclasses import replace

from appliance.policies.scaling_facts import ScalingPolicy, ScalingState


def want_agents(
    policy: ScalingPolicy, *, ready: int, stable: float, panic: float, state: ScalingState, now: float
) -> tuple[int, int, ScalingState, list[str]]:
    """The core: (what the load asks, the same within rates and panic, state, clamps).

    `stable` and `panic` are mean concurrencies. With 10 ready agents of target 1, a stable mean of 11
    and a panic mean of 25 it answers 25, and panics.
    """
    clamps: list[str] = []
    asked_stable, asked_panic = math.ceil(stable / policy.target), math.ceil(panic / policy.target)
    base = max(1, ready)
    most = max(math.ceil(policy.max_up_rate * base), base + 1)
    least = min(math.floor(ready / policy.max_down_rate), max(0, ready - 1))
    want_stable = min(max(asked_stable, least), most)
    want_panic = min(max(asked_panic, least), most)
    if asked_panic / base >= policy.panic_threshold:
        peak = state.panic_peak if state.panic_at is not None else 0
        state = replace(state, panic_at=now, panic_peak=max(peak, ready))
    elif state.panic_at is not None and now - state.panic_at > policy.stable_window_s:
        state = replace(state, panic_at=None, panic_peak=0)
    asked, want = asked_stable, want_stable
    if state.panic_at is not None:
        asked = max(asked_stable, asked_panic)
        want = max(want_stable, want_panic)
        if want < state.panic_peak:
            want = state.panic_peak
            clamps.append("panic: never down")
        state = replace(state, panic_peak=max(want, state.panic_peak))
    if want < asked:
        clamps.append("up rate")
    elif want > asked and want == least:
        clamps.append("down rate")
    return asked, want, state, clamps


def within_tolerance(policy: ScalingPolicy, stable: float, current: int) -> bool:
    """Whether so many agents carry it well enough for nothing to be done."""
    return current > 0 and abs(1 - stable / (policy.target * current)) <= policy.tolerance

"""How many warm agents a deployment should have, from its load. Standard library only.

Two averages of concurrency: a stable one of a minute and a short one that answers to bursts (panic).
`decide` is a function of policy, load, its own last state and `now`; missing data never scales down.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from appliance.policies.windows import (
    Window,
    add_spans,
    average,
    span_of,
    window_from_json,
    window_to_json,
)


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """The knobs. `target` is the concurrency one agent should carry; rates are factors of ready agents.

    `tolerance` is the band around the target in which nothing is done, as a fraction.
    """

    min_agents: int = 1
    max_agents: int = 1
    target: float = 1.0
    stable_window_s: float = 60.0
    panic_window_s: float = 6.0
    panic_threshold: float = 2.0
    tolerance: float = 0.1
    max_up_rate: float = 1000.0
    max_down_rate: float = 2.0
    stabilization_s: float = 60.0
    idle_s: float = 60.0


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """What one gateway process counted for the deployment. `process` names it: id and start."""

    process: str
    started_at: float
    at: float
    concurrency_s: float
    in_flight: int
    queued: int


@dataclass(frozen=True, slots=True)
class Load:
    """What is known now. `current` is the number wanted so far, `ready` what can serve.

    `complete` is false where a gateway is silent: the load may then be more than what is seen.
    `held` says that a gateway told of a request that no warm agent can take.
    """

    current: int
    ready: int
    gateways: tuple[GatewayLoad, ...]
    complete: bool = True
    held: bool = False


@dataclass(frozen=True, slots=True)
class ScalingState:
    """The policy's memory. Times are Unix seconds; `recent` are (time, want) that may still hold it up."""

    at: float
    window: Window = ()
    previous: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    panic_at: float | None = None
    panic_peak: int = 0
    active_at: float = 0.0
    recent: tuple[tuple[float, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The state as JSON types."""
        return {
            "at": self.at,
            "window": window_to_json(self.window),
            "previous": {name: list(pair) for name, pair in self.previous.items()},
            "panic_at": self.panic_at,
            "panic_peak": self.panic_peak,
            "active_at": self.active_at,
            "recent": [list(pair) for pair in self.recent],
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and why. `want` is what the load asks before any clamp, None: cannot tell.

    `kind` names the sort of reason in one word; a change of it is worth a row.
    """

    replicas: int
    state: ScalingState
    reason: str
    kind: str
    valid: bool
    want: int | None = None
    clamps: tuple[str, ...] = ()
    inputs: Mapping[str, float | int | None] = field(default_factory=dict)


def state_from_json(given: Mapping[str, Any]) -> ScalingState | None:
    """The opposite of `to_json`; None where there is none, or it is not understood."""
    try:
        return ScalingState(
            at=float(given["at"]),
            window=window_from_json(given["window"]),
            previous={str(k): (float(v[0]), float(v[1])) for k, v in given["previous"].items()},
            panic_at=None if given["panic_at"] is None else float(given["panic_at"]),
            panic_peak=int(given["panic_peak"]),
            active_at=float(given["active_at"]),
            recent=tuple((float(at), int(want)) for at, want in given["recent"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None


def decide(policy: ScalingPolicy, load: Load, state: ScalingState | None, now: float) -> Decision:
    """The number of agents to want, within the policy's bounds.

    A state that is None or older than the stable window is not trusted: it starts as if in panic at the
    current count, so that a restart never scales down.
    """
    if state is None or now - state.at > policy.stable_window_s or state.at > now + 1:
        panicking = load.current > 0 or load.ready > 0
        state = ScalingState(
            at=now, panic_at=now if panicking else None, panic_peak=load.current, active_at=now
        )
    if not load.gateways:
        return _cannot_tell(policy, load, state)
    state = _remember(policy, load, state, now)
    stable = average(state.window, now=now, length_s=policy.stable_window_s)
    panic = average(state.window, now=now, length_s=policy.panic_window_s)
    if stable is None or panic is None:
        stable = panic = float(sum(gateway.in_flight + gateway.queued for gateway in load.gateways))
    return _answer(policy, load, state, now, stable=stable, panic=panic)


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


def _remember(policy: ScalingPolicy, load: Load, state: ScalingState, now: float) -> ScalingState:
    spans = []
    previous = dict(state.previous)
    busy = load.held
    for gateway in load.gateways:
        known = {gateway.process: previous[gateway.process]} if gateway.process in previous else {}
        span = span_of(known, gateway.process, gateway.started_at, gateway.at, gateway.concurrency_s)
        previous[gateway.process] = (gateway.at, gateway.concurrency_s)
        busy = busy or gateway.in_flight + gateway.queued > 0
        if span is not None:
            spans.append(span)
            busy = busy or span[2] > 0
    kept = {name: pair for name, pair in previous.items() if now - pair[0] <= policy.stable_window_s}
    return replace(
        state,
        at=now,
        window=add_spans(state.window, spans, keep_s=policy.stable_window_s + 1),
        previous=kept,
        active_at=now if busy else state.active_at,
    )


def _answer(
    policy: ScalingPolicy, load: Load, state: ScalingState, now: float, *, stable: float, panic: float
) -> Decision:
    asked, want, state, clamps = want_agents(
        policy, ready=load.ready, stable=stable, panic=panic, state=state, now=now
    )
    kind = "load"
    words = (
        f"mean concurrency {stable:.2f} over {policy.stable_window_s:g} s and {panic:.2f} over "
        f"{policy.panic_window_s:g} s, target {policy.target:g} an agent"
    )
    if state.panic_at is not None:
        kind = "panic"
    elif _within_tolerance(policy, stable, load.current):
        want = load.current
        clamps.append("tolerance")
    idle_for_s = now - state.active_at
    waiting = load.held or any(gateway.queued for gateway in load.gateways)
    if want == 0 and waiting:
        asked, want, kind = max(1, asked), 1, "held"
        words = "a request is held and no agent is warm"
    if want == 0 and idle_for_s < policy.idle_s and load.current > 0:
        want = 1
        clamps.append(f"idle for {idle_for_s:.0f} of {policy.idle_s:g} s")
    want, state = _stabilize(policy, load, state, now, want=want, idle_for_s=idle_for_s, clamps=clamps)
    if want < load.current and not load.complete:
        want, kind = load.current, "cannot_tell"
        clamps.append("a gateway is silent: never down")
        words += "; a gateway is silent, so the load may be more"
    replicas = _bound(policy, want, clamps)
    if want == 0 and idle_for_s >= policy.idle_s:
        kind, words = "idle", f"no request for {policy.idle_s:g} s"
    return Decision(
        replicas, state, f"{words}: {_said(load.current, replicas, clamps)}", kind, valid=True, want=asked,
        clamps=tuple(clamps), inputs=_inputs(load, stable, panic),
    )  # fmt: skip


def _within_tolerance(policy: ScalingPolicy, stable: float, current: int) -> bool:
    return current > 0 and abs(1 - stable / (policy.target * current)) <= policy.tolerance


def _stabilize(
    policy: ScalingPolicy, load: Load, state: ScalingState, now: float, *, want: int, idle_for_s: float,
    clamps: list[str],
) -> tuple[int, ScalingState]:  # fmt: skip
    """Down only to the most that was wanted lately; whatever is idle long enough need not wait again."""
    recent = [(at, was) for at, was in state.recent if now - at < policy.stabilization_s and was > want]
    state = replace(state, recent=(*recent, (now, want)))
    held_up = min(load.current, max((was for _, was in recent), default=0))
    if held_up > want and idle_for_s < policy.idle_s:
        clamps.append(f"wanted {held_up} within the last {policy.stabilization_s:g} s")
        return held_up, state
    return want, state


def _cannot_tell(policy: ScalingPolicy, load: Load, state: ScalingState) -> Decision:
    """Nobody reports: nothing changes but what people ordered, and a held request that was told of."""
    clamps: list[str] = []
    want = 1 if load.held and load.current == 0 else load.current
    replicas = _bound(policy, want, clamps)
    return Decision(
        replicas, state, f"no gateway reports, cannot tell: {_said(load.current, replicas, clamps)}",
        "cannot_tell", valid=False, want=None, clamps=tuple(clamps), inputs=_inputs(load, None, None),
    )  # fmt: skip


def _bound(policy: ScalingPolicy, want: int, clamps: list[str]) -> int:
    if want < policy.min_agents:
        clamps.append(f"min {policy.min_agents}")
        return policy.min_agents
    if want > policy.max_agents:
        clamps.append(f"max {policy.max_agents}")
        return policy.max_agents
    return want


def _said(current: int, replicas: int, clamps: list[str]) -> str:
    change = f"stay at {replicas}" if replicas == current else f"{current} -> {replicas}"
    return f"{change} ({', '.join(clamps)})" if clamps else change


def _inputs(load: Load, stable: float | None, panic: float | None) -> dict[str, float | int | None]:
    return {
        "stable": None if stable is None else round(stable, 3),
        "panic": None if panic is None else round(panic, 3),
        "ready": load.ready,
        "current": load.current,
        "gateways": len(load.gateways),
        "in_flight": sum(gateway.in_flight for gateway in load.gateways),
        "queued": sum(gateway.queued for gateway in load.gateways),
    }

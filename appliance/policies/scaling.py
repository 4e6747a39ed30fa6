"""How many warm agents a deployment should have, from its load. Standard library only.

Each rule says how many it wants, the largest wins. Where requests and their times are counted these are the
rules of waiting; else two averages of concurrency: a stable one of a minute and a short one that
answers to bursts (panic). `decide` is a function of policy, load, its own last state and `now`; missing
data never scales down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from appliance.policies.concurrency_rules import want_agents, within_tolerance
from appliance.policies.demand import SHORT_S, forget, observe
from appliance.policies.forecast import forecast_rate, observe_season
from appliance.policies.idle_gaps import NO_GAPS, is_planned, observe_gap
from appliance.policies.scaling_facts import (
    Decision,
    GatewayLoad,
    Load,
    ScalingPolicy,
    ScalingState,
    Want,
    state_from_json,
)
from appliance.policies.schedules import Bounds, bounds_at
from appliance.policies.signal_rules import figures_of, observe_signals, signal_wants
from appliance.policies.step_limits import add_step, last_minute, limit_steps
from appliance.policies.waiting_rules import (
    COLD_MISSES,
    LASTS_S,
    TICK_S,
    Queueing,
    agents_for_lasting,
    agents_for_wait,
    observe_queueing,
    servers_for_backlog,
    servers_for_peak,
)
from appliance.policies.windows import add_spans, average, span_of

__all__ = [
    "Decision", "GatewayLoad", "Load", "ScalingPolicy", "ScalingState", "decide", "state_from_json",
    "want_agents",
]  # fmt: skip


@dataclass(slots=True)
class _Turn:
    """A decision in the making: what is wanted so far, why, and what changed it."""

    state: ScalingState
    asked: int
    want: int
    kind: str
    words: str
    clamps: list[str]
    inputs: dict[str, float | int | None]
    bounds: Bounds


def decide(policy: ScalingPolicy, load: Load, state: ScalingState | None, now: float) -> Decision:
    """The number of agents to want, within the policy's bounds.

    A state that is None or older than the stable window is not trusted: it starts as if in panic at the
    current count, so that a restart never scales down.
    """
    if state is None or now - state.at > policy.stable_window_s or state.at > now + 1:
        panicking = load.current > 0 or load.ready > 0
        state = ScalingState(
            at=now, panic_at=now if panicking else None, panic_peak=load.current, active_at=now,
            season=None if state is None else state.season, gaps=NO_GAPS if state is None else state.gaps,
        )  # fmt: skip
    bounds = bounds_at(
        policy.schedules, policy.min_agents, policy.max_agents, now, lead_s=policy.start_s + TICK_S
    )
    policy = replace(policy, min_agents=bounds.least, max_agents=bounds.most)
    if not load.gateways:
        return _cannot_tell(policy, load, state, bounds, now)
    grows = load.queued > state.queued
    state, load = observe_signals(policy, load, _remember(policy, load, state, now), now)
    stable = average(state.window, now=now, length_s=policy.stable_window_s)
    panic = average(state.window, now=now, length_s=policy.panic_window_s)
    if stable is None or panic is None:
        stable = panic = float(load.in_flight + load.queued)
    inputs = _inputs(load, stable, panic) | figures_of(policy, load)
    seen = _look(policy, load, state, now)
    if seen is None or policy.by_concurrency or not _knows_service(policy, state):
        turn = _by_concurrency(
            policy, load, state, now, stable=stable, panic=panic, inputs=inputs, bounds=bounds
        )
    else:
        turn = _Turn(state, 0, 0, "load", "nothing comes", [], inputs, bounds)
    blind = policy.slots is not None and seen is None
    if seen is not None:
        blind = _by_rules(turn, _waiting_wants(policy, load, turn, seen, now))
    is_over = _is_over(policy, state, now)
    blind = _by_rules(turn, signal_wants(policy, load, seen, grows=grows, is_over=is_over)) or blind
    if not policy.by_concurrency and policy.slots is not None:
        _stay_since_start(policy, load, turn, now)
    return _conclude(policy, load, turn, now, blind=blind)


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
    gaps = state.gaps
    if busy and state.active_at < state.at and policy.slots is not None:  # an idle gap is over
        gaps = observe_gap(
            gaps, now - state.active_at, miss_s=COLD_MISSES * policy.miss_cost_s, keep_s=policy.idle_s,
            lead_s=policy.start_s + TICK_S,
        )  # fmt: skip
    state = replace(
        state,
        at=now,
        window=add_spans(state.window, spans, keep_s=policy.stable_window_s + 1),
        previous=kept,
        active_at=now if busy else state.active_at,
        steps=last_minute(state.steps, now),
        queued=load.queued,
        gaps=gaps,
    )
    return _count(policy, load, state, now)


def _count(policy: ScalingPolicy, load: Load, state: ScalingState, now: float) -> ScalingState:
    """Take in the requests that came, of gateways that count them all."""
    counted = [
        (one.process, one.started_at, (one.accepted, one.finished, one.service_s or 0.0))
        for one in load.gateways
        if one.accepted is not None
        and one.finished is not None
        and (one.service_s is not None or policy.capacity_rps)
    ]
    if policy.slots is None or len(counted) < len(load.gateways):
        return state
    demand = forget(observe(state.demand, counted, now), frozenset(state.previous))
    season = state.season
    if policy.season_s > 0 and demand.history:
        season = observe_season(season, policy.season_s, demand.history[-1][1], now)
    return replace(state, demand=demand, season=season if policy.season_s > 0 else None)


def _is_over(policy: ScalingPolicy, state: ScalingState, now: float) -> bool:
    """A rate is that of a minute: an idle time that people set shorter is taken at its word."""
    return policy.idle_s < SHORT_S and now - state.active_at >= policy.idle_s


def _knows_service(policy: ScalingPolicy, state: ScalingState) -> bool:
    """Whether it is known how long a request executes; before the first answer it is not."""
    return bool(policy.capacity_rps) or state.demand.service_s is not None


def _look(policy: ScalingPolicy, load: Load, state: ScalingState, now: float) -> Queueing | None:
    """The picture for the rules of waiting; None where there are none, or requests are not counted now."""
    history = state.demand.history
    if policy.slots is None or not history or history[-1][0] < now:
        return None
    demand = state.demand
    if policy.capacity_rps:
        demand = replace(demand, service_s=policy.slots / policy.capacity_rps)
    return observe_queueing(
        demand, now, in_system=load.in_flight + load.queued, slots=policy.slots,
        slo_wait_s=policy.slo_wait_s, start_s=policy.start_s, miss_cost_s=policy.miss_cost_s,
    )  # fmt: skip


# The rules.


def _by_concurrency(
    policy: ScalingPolicy, load: Load, state: ScalingState, now: float, *, stable: float, panic: float,
    inputs: dict[str, float | int | None], bounds: Bounds,
) -> _Turn:  # fmt: skip
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
    elif within_tolerance(policy, stable, load.current):
        want = load.current
        clamps.append("tolerance")
    return _Turn(state, asked, want, kind, words, clamps, inputs, bounds)


def _waiting_wants(
    policy: ScalingPolicy, load: Load, turn: _Turn, seen: Queueing, now: float
) -> Sequence[Want]:
    demand, state = turn.state.demand, turn.state
    peak = round(servers_for_peak(demand, now, seen), 3)  # of earlier ones only higher ones still count
    peaks = (*(one for one in state.peaks if now - one[0] < policy.peak_s and one[1] > peak), (now, peak))
    turn.state = replace(state, peaks=peaks)
    turn.inputs |= {"rate_rps": round(seen.rate_rps, 3), "service_s": round(seen.service_s, 4)}
    backlog = servers_for_backlog(demand, now, seen, queued=load.queued, ready=load.ready)
    coming = (
        f"{seen.mean_rps:.2f} requests/s of {seen.service_s:.2f} s each, {seen.rate_rps:.2f}/s expected, "
        f"{seen.in_system} there"
    )
    is_over = _is_over(policy, state, now)
    wants = [
        Want("wait", 0 if is_over else agents_for_wait(seen, policy.max_agents), coming),
        Want(
            "peak", 0 if is_over else _agents(max(need for _, need in peaks), seen.slots),
            f"the work of bursts in the last {policy.peak_s:g} s",
        ),
        Want("backlog", _agents(backlog, seen.slots), f"{load.queued} wait for {load.ready} ready"),
        Want(
            "lasting", 0 if is_over else agents_for_lasting(demand, now, seen, load.current),
            f"the work of what came in the last {LASTS_S:g} s",
        ),
    ]  # fmt: skip
    known = [forecast_rate(state.season, now + seen.lead_s + ahead) for ahead in (0.0, 15.0, 30.0)]
    rates = [rate for rate in known if rate is not None]
    if rates and max(rates) > seen.rate_rps:
        then = replace(seen, rate_rps=max(rates), in_system=0)
        words = f"{then.rate_rps:.2f} requests/s came at this time before"
        wants.append(Want("forecast", agents_for_wait(then, policy.max_agents), words))
    return wants


def _agents(servers: float, slots: float) -> int:
    """A twentieth of an agent too little is none too few."""
    return max(0, math.ceil(servers / slots - 0.05))


def _by_rules(turn: _Turn, wants: Sequence[Want]) -> bool:
    """Raise the turn to the largest want; whether a rule could not tell."""
    for one in wants:
        turn.inputs[f"want_{one.rule}"] = one.agents
        if one.agents is not None and one.agents > turn.want:
            turn.want = turn.asked = one.agents
            turn.kind, turn.words = ("load" if one.rule == "wait" else one.rule), one.words
    return any(one.agents is None for one in wants)


def _stay_since_start(policy: ScalingPolicy, load: Load, turn: _Turn, now: float) -> None:
    """For a stable window nothing goes after a start without memory, or a burst."""
    began = turn.state.panic_at
    if began is None:
        return
    if now - began > policy.stable_window_s:
        turn.state = replace(turn.state, panic_at=None, panic_peak=0)
    elif turn.want < load.current:
        turn.want = load.current
        turn.clamps.append("too little is known since the start: never down")


# From what is wanted to what is done.


def _conclude(policy: ScalingPolicy, load: Load, turn: _Turn, now: float, *, blind: bool) -> Decision:
    clamps, idle_for_s = turn.clamps, now - turn.state.active_at
    if turn.want == 0 and (load.held or load.queued):
        turn.asked, turn.want, turn.kind = max(1, turn.asked), 1, "held"
        turn.words = "a request is held and no agent is warm"
    if load.current == 0 and 0 < turn.want < policy.activation:
        turn.want = policy.activation
        clamps.append(f"activation {policy.activation}")
    if turn.want == 0 and idle_for_s < policy.idle_s and load.current > 0:
        turn.want = 1
        clamps.append(f"idle for {idle_for_s:.0f} of {policy.idle_s:g} s")
    if not blind and load.complete and load.current <= 1:
        _follow_gaps(policy, load, turn, idle_for_s)
    if policy.warm_floor:
        turn.want += policy.warm_floor
        clamps.append(f"warm floor {policy.warm_floor}")
    idle = turn.want == 0 and idle_for_s >= policy.idle_s
    _stabilize(policy, load, turn, now, idle_for_s=idle_for_s)
    turn.want, limit = limit_steps(policy, turn.state.steps, load.current, turn.want)
    clamps += [limit] if limit else []
    if turn.want < load.current and (blind or not load.complete):
        turn.want, turn.kind = load.current, "cannot_tell"
        why = "a gateway is silent" if not load.complete else "a figure is missing"
        clamps.append(f"{why}: never down")
        turn.words += f"; {why}, so the load may be more"
    replicas = _bound(turn.bounds, turn.want, clamps)
    if idle and turn.kind != "cannot_tell":
        turn.kind, turn.words = "idle", f"no request for {policy.idle_s:g} s"
    if policy.hold is not None:
        replicas = _held(policy.hold, turn)
    turn.state = replace(turn.state, steps=add_step(turn.state.steps, now, replicas - load.current))
    return Decision(
        replicas, turn.state, f"{turn.words}: {_said(load.current, replicas, turn.clamps)}", turn.kind,
        valid=True, want=turn.asked, clamps=tuple(turn.clamps), inputs=turn.inputs,
        unbounded=None if policy.hold is not None else turn.want, bounds=turn.bounds,
        lowers=not blind and load.complete,
    )  # fmt: skip


def _follow_gaps(policy: ScalingPolicy, load: Load, turn: _Turn, idle_for_s: float) -> None:
    """While nothing is there, the last agent follows earlier gaps; a short `idle_s` is taken at its word."""
    gaps, lead_s = turn.state.gaps, policy.start_s + TICK_S
    there = load.held or load.in_flight + load.queued > 0 or policy.idle_s < SHORT_S
    if there or turn.want > 1 or idle_for_s <= 0 or policy.slots is None or not gaps.used:
        return
    wanted = int(is_planned(gaps.plan, idle_for_s, lead_s))
    if wanted != turn.want:
        turn.want = turn.asked = wanted
        turn.kind = "gaps"
        due = "a call is due" if wanted else "no call is due"
        turn.words = f"idle for {idle_for_s:.0f} s, by earlier gaps {due}"
    turn.state = replace(turn.state, recent=())


def _held(number: int, turn: _Turn) -> int:
    """What people ordered stands against all but the bounds."""
    asked = turn.want
    turn.clamps = []
    turn.kind, turn.words = "hold", f"held at {number} by order, load asks {asked}"
    return _bound(turn.bounds, number, turn.clamps)


def _stabilize(policy: ScalingPolicy, load: Load, turn: _Turn, now: float, *, idle_for_s: float) -> None:
    """Down only to the most that was wanted lately; whatever is idle long enough need not wait again."""
    want = turn.want
    recent = [(at, was) for at, was in turn.state.recent if now - at < policy.stabilization_s and was > want]
    turn.state = replace(turn.state, recent=(*recent, (now, want)))
    held_up = min(load.current, max((was for _, was in recent), default=0))
    if held_up > want and idle_for_s < policy.idle_s:
        turn.clamps.append(f"wanted {held_up} within the last {policy.stabilization_s:g} s")
        turn.want = held_up


def _cannot_tell(
    policy: ScalingPolicy, load: Load, state: ScalingState, bounds: Bounds, now: float
) -> Decision:
    """Nobody reports: nothing changes but what people ordered, and a held request that was told of."""
    turn = _Turn(state, 0, load.current, "cannot_tell", "no gateway reports, cannot tell", [],
                 _inputs(load, None, None), bounds)  # fmt: skip
    if load.held and load.current == 0:
        turn.want = policy.activation
    replicas = _bound(bounds, turn.want, turn.clamps)
    if policy.hold is not None:
        replicas = _held(policy.hold, turn)
    state = replace(state, steps=add_step(state.steps, now, replicas - load.current))
    return Decision(
        replicas, state, f"{turn.words}: {_said(load.current, replicas, turn.clamps)}", turn.kind,
        valid=False, want=None, clamps=tuple(turn.clamps), inputs=turn.inputs, bounds=bounds,
    )  # fmt: skip


def _bound(bounds: Bounds, want: int, clamps: list[str]) -> int:
    if want < bounds.least:
        clamps.append(f"min {bounds.least}" + (f" by schedule {bounds.least_by}" if bounds.least_by else ""))
        return bounds.least
    if want > bounds.most:
        clamps.append(f"max {bounds.most}" + (f" by schedule {bounds.most_by}" if bounds.most_by else ""))
        return bounds.most
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
        "in_flight": load.in_flight,
        "queued": load.queued,
    }

"""Rules with a target of their own: requests and tokens a second, CPU, p95 of latency and of the first token.

Standard library only. What a rule looks at is taken in where people set its target, and only then.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from appliance.policies.latency import NO_LATENCY, Latency, observe_latency, p95_ms
from appliance.policies.scaling_facts import Load, ScalingPolicy, ScalingState, Want
from appliance.policies.slices import NO_SLICES, Counts
from appliance.policies.waiting_rules import Queueing
from appliance.policies.work import NO_WORK, Work, observe_work, tokens_each

#: A queue that grows counts as too long from this part of the acceptable wait on.
EARLY = 0.7


def observe_signals(
    policy: ScalingPolicy, load: Load, state: ScalingState, now: float
) -> tuple[ScalingState, Load]:
    """The state with what gateways counted for targets that are set; the load with the figures of that.

    What the load has already stays. Where a gateway does not count, the others tell only what is over its
    target: so it may raise, and never lower.
    """
    asked = (policy.target_p95_ms, policy.target_ttft_ms, policy.target_tokens_per_s)
    kept = (state.latency, state.first_token, state.work)
    if asked == (None, None, None) and all(one is NO_SLICES for one in kept):
        return state, load
    durations = [one.durations for one in load.gateways]
    first_tokens = [one.first_tokens for one in load.gateways]
    latency = _time(policy.target_p95_ms, state.latency, load, durations, now)
    first_token = _time(policy.target_ttft_ms, state.first_token, load, first_tokens, now)
    work = _weigh(policy, state.work, load, now)
    weighed = all(one.tokens is not None and one.finished is not None for one in load.gateways)
    load = replace(
        load,
        p95_ms=_known(load.p95_ms, policy.target_p95_ms, latency, durations),
        ttft_ms=_known(load.ttft_ms, policy.target_ttft_ms, first_token, first_tokens),
        tokens_each=tokens_each(work) if load.tokens_each is None and weighed else load.tokens_each,
    )
    return replace(state, latency=latency, first_token=first_token, work=work), load


def _time(
    target: float | None, latency: Latency, load: Load, counts: Sequence[Counts | None], now: float
) -> Latency:
    if target is None:
        return NO_LATENCY
    told = zip(load.gateways, counts, strict=True)
    return observe_latency(
        latency, [(one.process, one.started_at, each) for one, each in told if each is not None], now
    )


def _weigh(policy: ScalingPolicy, work: Work, load: Load, now: float) -> Work:
    if policy.target_tokens_per_s is None:
        return NO_WORK
    counted = [
        (one.process, one.started_at, (one.finished, one.tokens))
        for one in load.gateways
        if one.finished is not None and one.tokens is not None
    ]
    return observe_work(work, counted, now)


def _known(
    given: float | None, target: float | None, latency: Latency, counts: Sequence[Counts | None]
) -> float | None:
    if given is not None or target is None:
        return given
    value = p95_ms(latency)
    return value if value is None or None not in counts or value > target else None


def figures_of(policy: ScalingPolicy, load: Load) -> dict[str, float]:
    """What is known of what targets are set for, to be kept with a decision."""
    looked_at = (
        ("cpu_percent", policy.target_cpu_percent, load.cpu_percent),
        ("p95_ms", policy.target_p95_ms, load.p95_ms),
        ("ttft_ms", policy.target_ttft_ms, load.ttft_ms),
        ("tokens_each", policy.target_tokens_per_s, load.tokens_each),
    )
    return {
        name: round(value, 3) for name, target, value in looked_at if target is not None and value is not None
    }


def signal_wants(
    policy: ScalingPolicy, load: Load, seen: Queueing | None, *, grows: bool, is_over: bool = False
) -> Sequence[Want]:
    """One for each target that people set; None agents where its figure is missing.

    `grows`: more requests wait than did at the last look. `is_over`: people count it as idle already, so that
    the rate of the last minute asks for nothing.
    """
    wants = []
    if policy.target_rps is not None:
        wants.append(_by_rate(policy.target_rps, seen, is_over=is_over))
    if policy.target_tokens_per_s is not None:
        wants.append(_by_work(policy.target_tokens_per_s, load, seen, is_over=is_over))
    if policy.target_cpu_percent is not None:
        wants.append(_by_cpu(policy, policy.target_cpu_percent, load))
    if policy.target_p95_ms is not None:
        wants.append(_by_time("p95", "p95", load.p95_ms, policy.target_p95_ms, load))
    if policy.target_ttft_ms is not None:
        words = "p95 of the time to first token"
        wants.append(_by_time("ttft", words, load.ttft_ms, policy.target_ttft_ms, load))
    oldest_s = max((gateway.oldest_wait_s for gateway in load.gateways), default=0.0)
    if oldest_s > policy.slo_wait_s * (EARLY if grows else 1.0):
        wants.append(_by_wait(policy, load, oldest_s, grows=grows))
    return wants


def _by_wait(policy: ScalingPolicy, load: Load, oldest_s: float, *, grows: bool) -> Want:
    """Nothing goes while a request waits too long; while the queue grows, more come than are ready.

    At most twice as many, and not more than the queue would occupy. Those that were ordered and do not
    serve yet count: with 4 ready of 6, 5 waiting for 2 s of 2 and a slot each, 6 are kept.
    """
    words = f"a request has waited {oldest_s:.1f} s of {policy.slo_wait_s:g}"
    if not grows:
        return Want("breach", load.current, f"{words}: not fewer now")
    over = min(1.0, oldest_s / policy.slo_wait_s - EARLY)
    more = min(math.ceil(load.ready * over), math.ceil(load.queued / (policy.slots or policy.target)))
    return Want("breach", max(load.current, load.ready + max(1, more)), f"{words}, and the queue grows")


def _by_rate(target: float, seen: Queueing | None, *, is_over: bool) -> Want:
    if seen is None:
        return Want("rps", None, "the rate of requests is not known")
    words = f"{seen.rate_rps:.2f} requests/s, target {target:g} an agent"
    return Want("rps", 0 if is_over else math.ceil(seen.rate_rps / target - 0.05), words)


def _by_work(target: float, load: Load, seen: Queueing | None, *, is_over: bool) -> Want:
    """By the work that comes, not by what is done: agents that are full do no more, and more are needed.

    20 requests a second of 150 tokens each are 3,000 tokens a second; where an agent should do 1,000: 3.
    """
    if seen is None:
        return Want("tokens", None, "the rate of requests is not known")
    if is_over:
        return Want("tokens", 0, "nothing comes")
    if load.tokens_each is None:
        missing = load.in_flight + load.queued > 0
        return Want("tokens", None if missing else 0, "how many tokens a request is, is not known")
    rate = seen.rate_rps * load.tokens_each
    words = f"{seen.rate_rps:.2f} requests/s of {load.tokens_each:.0f} tokens, target {target:g}/s an agent"
    return Want("tokens", math.ceil(rate / target - 0.05), words)


def _by_cpu(policy: ScalingPolicy, target: float, load: Load) -> Want:
    """In proportion, at most twice as many at once: with 4 ready at 90 % of a target of 60 %, 6."""
    if load.cpu_percent is None:
        return Want("cpu", None, "CPU is not known")
    words = f"CPU {load.cpu_percent:.0f} %, target {target:g} %"
    ratio = load.cpu_percent / target
    if abs(1 - ratio) <= policy.tolerance:
        return Want("cpu", load.ready, words)
    return Want("cpu", math.ceil(load.ready * min(ratio, 2.0) - 0.05), words)


def _by_time(rule: str, what: str, value_ms: float | None, target_ms: float, load: Load) -> Want:
    """Over its target: more than are ready, by how far it is over. Below it says nothing of fewer.

    At most twice as many: with 4 ready and 150 ms of 100, 6.
    """
    if value_ms is None:
        return Want(rule, None if load.in_flight + load.queued else 0, f"{what} is not known")
    words = f"{what} {value_ms:.0f} ms, target {target_ms:g} ms"
    if value_ms <= target_ms:
        return Want(rule, 0, words)
    return Want(rule, load.ready + math.ceil(load.ready * min(value_ms / target_ms - 1, 1.0)), words)

"""Rules with a target of their own: requests a second, CPU, p95 latency. Standard library only."""

import math
from collections.abc import Sequence

from appliance.policies.scaling_facts import Load, ScalingPolicy, Want
from appliance.policies.waiting_rules import Queueing

#: A queue that grows counts as too long from this part of the acceptable wait on.
EARLY = 0.7


def signal_wants(policy: ScalingPolicy, load: Load, seen: Queueing | None, *, grows: bool) -> Sequence[Want]:
    """One for each target that people set; None agents where its figure is missing.

    `grows`: more requests wait than did at the last look.
    """
    wants = []
    if policy.target_rps is not None:
        wants.append(_by_rate(policy.target_rps, seen))
    if policy.target_cpu_percent is not None:
        wants.append(_by_cpu(policy, policy.target_cpu_percent, load))
    if policy.target_p95_ms is not None:
        wants.append(_by_latency(policy.target_p95_ms, load))
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


def _by_rate(target: float, seen: Queueing | None) -> Want:
    if seen is None:
        return Want("rps", None, "the rate of requests is not known")
    words = f"{seen.rate_rps:.2f} requests/s, target {target:g} an agent"
    return Want("rps", math.ceil(seen.rate_rps / target - 0.05), words)


def _by_cpu(policy: ScalingPolicy, target: float, load: Load) -> Want:
    """In proportion, at most twice as many at once: with 4 ready at 90 % of a target of 60 %, 6."""
    if load.cpu_percent is None:
        return Want("cpu", None, "CPU is not known")
    words = f"CPU {load.cpu_percent:.0f} %, target {target:g} %"
    ratio = load.cpu_percent / target
    if abs(1 - ratio) <= policy.tolerance:
        return Want("cpu", load.ready, words)
    return Want("cpu", math.ceil(load.ready * min(ratio, 2.0) - 0.05), words)


def _by_latency(target: float, load: Load) -> Want:
    """Over its target: more than are ready, by how far it is over. Below it says nothing of fewer."""
    if load.p95_ms is None:
        return Want("p95", None if load.in_flight + load.queued else 0, "p95 is not known")
    words = f"p95 {load.p95_ms:.0f} ms, target {target:g} ms"
    if load.p95_ms <= target:
        return Want("p95", 0, words)
    return Want("p95", load.ready + math.ceil(load.ready * min(load.p95_ms / target - 1, 1.0)), words)

"""What a gateway says of itself on its inner listener, once a second and at once on an event.

The worker decides on it, the dashboard shows it. Lines of JSON: each one of `GatewayReport`,
`WantEvent` or `GenerationEvent`, told apart by `kind`. Totals only ever grow while the gateway
process (`started_at`) lives, so a lost report loses nothing: readers take differences.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.policies.snapshot import Generation

#: Upper bounds, in seconds, of the histograms' buckets; one more bucket holds what is over.
LATENCY_BUCKETS_S = (
    0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.032, 0.048, 0.064,
    0.096, 0.128, 0.192, 0.256, 0.384, 0.512, 0.768, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0,
)  # fmt: skip

#: How a gateway sees an agent of its snapshot.
LinkState = Literal["connecting", "loading", "ready", "parked", "draining", "ejected"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts per bucket of `LATENCY_BUCKETS_S` and one more, and the sum in seconds."""

    counts: tuple[int, ...]
    sum_s: float


@dataclass(frozen=True, slots=True)
class DeploymentReport:
    """Counters of one deployment; accepted = answered + failed + shed + cancelled + in_flight + queued.

    `concurrency_s` is the time integral of in_flight + queued, so that a difference divided by
    the time between two reports is the true mean concurrency. `oldest_wait_s` is the age of
    the request that has waited longest, 0 where none waits. Of requests that may be cached,
    `cache_hits` got a kept answer, `cache_shared` that of one under way, `cache_misses` were sent;
    `cache_bytes` are kept now. `executed` requests were answered well by agents, which took `service_s`
    seconds from the last time each was sent, and counted `tokens`. `first_token` has how long each of them
    took from accepted to its first token, that of an answer sent whole being its first byte; None: an older
    gateway, which does not count it.
    """

    name: str
    accepted: int
    answered: int
    failed: int
    shed: int
    cancelled: int
    in_flight: int
    queued: int
    concurrency_s: float
    oldest_wait_s: float
    tokens: int
    duration: Histogram
    queue_wait: Histogram
    cache_hits: int = 0
    cache_shared: int = 0
    cache_misses: int = 0
    cache_bytes: int = 0
    executed: int = 0
    service_s: float = 0.0
    first_token: Histogram | None = None


@dataclass(frozen=True, slots=True)
class SpeedReport:
    """With what an agent runs, and what it has learned: a batch takes `fixed_s + per_token_s x tokens`."""

    engine: str
    engine_version: str
    workers: int
    threads: int
    batch_size: int
    batches: int
    fixed_s: float
    per_token_s: float
    capacity_rps: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class AgentReport:
    """One agent as this gateway sees it; what the agent last said of itself rides along.

    The fields from `executing` on are the agent's own words, None until it has spoken on the
    present connection; `load_age_s` tells how old they are. `health` is why it is ejected, or was before
    the trial it is on; `ejected_for_s` how long it will be, None also where until it is heard again. One that
    is `resumed` was parked, and this gateway had a request for it. `idle_s` is how long ago it answered last,
    None where it never did.
    """

    id: str
    deployment: str
    node: str
    state: LinkState
    in_flight: int
    sent: int
    answered: int
    failed: int
    refused: int
    health: str = ""
    ejected_for_s: float | None = None
    load_age_s: float | None = None
    executing: int | None = None
    waiting: int | None = None
    tokens_total: int | None = None
    cpu_percent: float | None = None
    node_cpu_percent: float | None = None
    rss_bytes: int | None = None
    node_available_bytes: int | None = None
    speed: SpeedReport | None = None
    resumed: bool = False
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """Everything at one instant: taken in one go, so that its counters balance exactly."""

    gateway: str
    pid: int
    started_at: float
    at: float
    generation: Generation | None
    deployments: tuple[DeploymentReport, ...]
    agents: tuple[AgentReport, ...]
    kind: Literal["report"] = "report"


@dataclass(frozen=True, slots=True)
class WantEvent:
    """Something for the control loop to look at now: a held request, a queue, or a broken connection."""

    gateway: str
    at: float
    deployment: str
    reason: Literal["held", "queued", "agent_lost"]
    agent: str | None = None
    kind: Literal["want"] = "want"


@dataclass(frozen=True, slots=True)
class GenerationEvent:
    """The gateway serves another snapshot from now on."""

    gateway: str
    at: float
    generation: Generation
    kind: Literal["generation"] = "generation"


def bucket_index(seconds: float) -> int:
    """Which bucket of `LATENCY_BUCKETS_S` counts a duration."""
    return bisect_left(LATENCY_BUCKETS_S, seconds)


def quantile(counts: Sequence[int], q: float) -> float | None:
    """The q-quantile (0..1) in seconds of bucket counts, or None where nothing was counted.

    Linear inside the bucket, as Prometheus' `histogram_quantile` has it; what lies over the last
    bound is reported as that bound.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank, below = q * total, 0
    for index, count in enumerate(counts):
        if below + count >= rank and count:
            if index == len(LATENCY_BUCKETS_S):
                return LATENCY_BUCKETS_S[-1]
            low = LATENCY_BUCKETS_S[index - 1] if index else 0.0
            return low + (LATENCY_BUCKETS_S[index] - low) * (rank - below) / count
        below += count
    return LATENCY_BUCKETS_S[-1]

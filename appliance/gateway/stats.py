"""What is counted: plain integers on the hot path, read by the report and by the scrape."""

from collections.abc import Iterable
from time import monotonic

from appliance.policies.report import LATENCY_BUCKETS_S, Histogram, bucket_index

#: How a request can end. Each accepted request ends in exactly one of them.
OUTCOMES = ("answered", "failed", "shed", "cancelled")

_SUMMED = (
    "accepted", "active", "in_flight", *OUTCOMES, "prompt_tokens", "completion_tokens", "executed",
    "service_s",
)  # fmt: skip

#: How a request that may be cached was begun: with an answer kept, with one under way, or anew.
CACHE_RESULTS = ("hit", "miss", "shared")

#: How an attempt at an agent can end; hedged: the other attempt of its request answered first.
ATTEMPT_RESULTS = ("answered", "error", "refused", "broken", "silent", "cancelled", "timeout", "hedged")

#: The code under which a request is counted whose client left before the answer.
CODE_CLIENT_LEFT = 499


class Durations:
    """Counts per bucket, and the sum in seconds."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bucket_index(seconds)] += 1
        self.sum_s += seconds

    def add(self, other: "Durations") -> None:
        """Count all of another's in."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum_s += other.sum_s

    def to_histogram(self) -> Histogram:
        """A frozen copy."""
        return Histogram(tuple(self.counts), self.sum_s)


class DeploymentStats:
    """The counters of one deployment.

    accepted = answered + failed + shed + cancelled + active, where `active` requests are in
    flight or queued.
    """

    __slots__ = (
        "_changed_at",
        "_concurrency_s",
        "accepted",
        "active",
        "answered",
        "cache",
        "cancelled",
        "completion_tokens",
        "duration",
        "executed",
        "failed",
        "first_token",
        "in_flight",
        "prompt_tokens",
        "queue_wait",
        "service_s",
        "shed",
    )

    def __init__(self, now: float) -> None:
        self.accepted = self.answered = self.failed = self.shed = self.cancelled = 0
        self.active = self.in_flight = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.executed, self.service_s = 0, 0.0
        self.cache = dict.fromkeys(CACHE_RESULTS, 0)
        self.duration = Durations()
        self.queue_wait = Durations()
        self.first_token = Durations()
        self._concurrency_s = 0.0
        self._changed_at = now

    def accept(self, now: float) -> None:
        """One more request, queued or in flight."""
        self._concurrency_s += self.active * (now - self._changed_at)
        self._changed_at = now
        self.accepted += 1
        self.active += 1

    def finish(self, outcome: str, now: float, accepted_at: float) -> None:
        """One request less; `outcome` is one of OUTCOMES."""
        self._concurrency_s += self.active * (now - self._changed_at)
        self._changed_at = now
        self.active -= 1
        if outcome == "answered":
            self.answered += 1
        elif outcome == "failed":
            self.failed += 1
        elif outcome == "shed":
            self.shed += 1
        else:
            self.cancelled += 1
        self.duration.observe(now - accepted_at)

    def concurrency_s(self, now: float) -> float:
        """The time integral of `active` until now, in request-seconds."""
        return self._concurrency_s + self.active * (now - self._changed_at)

    def add(self, other: "DeploymentStats") -> None:
        """Count all of another's totals in (those of a deployment that is gone, or a sum)."""
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for result, count in other.cache.items():
            self.cache[result] += count
        self.duration.add(other.duration)
        self.queue_wait.add(other.queue_wait)
        self.first_token.add(other.first_token)


class GatewayStats:
    """What is counted over all deployments, and what those that are gone have counted."""

    def __init__(self) -> None:
        self.codes: dict[tuple[str, str, int], int] = {}
        self.attempts = dict.fromkeys(ATTEMPT_RESULTS, 0)
        self.gone = DeploymentStats(monotonic())

    def count_code(self, deployment: str, task: str, code: int) -> None:
        """One HTTP answer; `deployment` is empty where the request named none that exists."""
        key = (deployment, task, code)
        self.codes[key] = self.codes.get(key, 0) + 1

    def total(self, present: Iterable[DeploymentStats]) -> DeploymentStats:
        """The sum over the present deployments and those that are gone."""
        total = DeploymentStats(monotonic())
        total.add(self.gone)
        for stats in present:
            total.add(stats)
        return total

"""The report of the inner listener and the Prometheus scrape: both read the same counters, in one go."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from agents.protocol import LoadReport
from appliance.gateway.calls import Deployment
from appliance.gateway.fleet import Agent, Fleet
from appliance.gateway.stats import OUTCOMES, DeploymentStats, Durations, GatewayStats
from appliance.policies.report import LATENCY_BUCKETS_S, AgentReport, DeploymentReport, SpeedReport

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

#: Beyond these, what an agent says of itself is no figure and no name.
_MOST: Final = 2**53
_LONGEST_NAME: Final = 64

_BOUNDS = [f"{bound:g}" for bound in LATENCY_BUCKETS_S] + ["+Inf"]


def report_deployment(deployment: Deployment, now: float) -> DeploymentReport:
    """The counters of one deployment. `now` is in monotonic seconds."""
    stats = deployment.stats
    return DeploymentReport(
        name=deployment.route.name,
        accepted=stats.accepted,
        answered=stats.answered,
        failed=stats.failed,
        shed=stats.shed,
        cancelled=stats.cancelled,
        in_flight=stats.in_flight,
        queued=stats.active - stats.in_flight,
        concurrency_s=stats.concurrency_s(now),
        oldest_wait_s=deployment.oldest_wait_s(now),
        tokens=stats.prompt_tokens + stats.completion_tokens,
        duration=stats.duration.to_histogram(),
        queue_wait=stats.queue_wait.to_histogram(),
        cache_hits=stats.cache["hit"],
        cache_shared=stats.cache["shared"],
        cache_misses=stats.cache["miss"],
        cache_bytes=deployment.cache.held_bytes,
        executed=stats.executed,
        service_s=stats.service_s,
        first_token=stats.first_token.to_histogram(),
    )


def report_agent(agent: Agent, now: float) -> AgentReport:
    """One agent as this gateway sees it. `now` is in monotonic seconds."""
    slots, load, health = agent.slots, agent.slots.load, agent.slots.health
    fresh = slots.beat or load  # a beat tells of the same, and is younger
    return AgentReport(
        id=agent.route.id,
        deployment=agent.route.deployment,
        node=agent.route.node,
        state=slots.link_state,
        in_flight=slots.in_flight,
        sent=slots.sent,
        answered=slots.answered,
        failed=slots.failed,
        refused=slots.refused,
        load_age_s=now - slots.heard_at if load else None,
        health=health.why,
        ejected_for_s=max(0.0, health.until - now) if health.until is not None else None,
        executing=fresh.executing if fresh else None,
        waiting=fresh.waiting if fresh else None,
        tokens_total=load.tokens_total if load else None,
        cpu_percent=fresh.cpu_percent if fresh else None,
        node_cpu_percent=fresh.node_cpu_percent if fresh else None,
        rss_bytes=load.rss_bytes if load else None,
        node_available_bytes=load.node_available_bytes if load else None,
        speed=report_speed(load) if load else None,
        resumed=slots.resumed,
        idle_s=max(0.0, now - slots.measured_at) if slots.measured_at else None,
    )


def report_speed(load: LoadReport) -> SpeedReport | None:
    """What it says of its speed; None of what is no speed, for readers take a report whole or not at all."""
    counts = (load.workers, load.threads, load.batch_size, load.batches_total)
    speeds = (load.fixed_s, load.per_token_s, load.capacity_rps, load.tokens_per_s)
    names = (load.engine, load.engine_version)
    if not all(type(one) is int and 0 <= one < _MOST for one in counts) or not load.threads:
        return None
    if not all(type(one) in (int, float) and 0 <= one < _MOST for one in speeds):
        return None
    if not all(isinstance(one, str) and len(one) <= _LONGEST_NAME for one in names):
        return None
    return SpeedReport(
        engine=load.engine,
        engine_version=load.engine_version,
        workers=load.workers,
        threads=load.threads,
        batch_size=load.batch_size,
        batches=load.batches_total,
        fixed_s=load.fixed_s,
        per_token_s=load.per_token_s,
        capacity_rps=load.capacity_rps,
        tokens_per_s=load.tokens_per_s,
    )


class GatewayCollector(Collector):
    """Makes the metric families of one scrape from the counters."""

    def __init__(self, fleet: Fleet, stats: GatewayStats) -> None:
        self._fleet = fleet
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """All families. Nothing awaits in between, so they balance."""
        total = self._fleet.total()
        yield self._requests()
        yield CounterMetricFamily(
            "millwright_accepted", "Client requests with a valid key and body", total.accepted
        )
        yield _labelled(
            "millwright_finished", "Accepted requests that have ended", "outcome",
            {name: getattr(total, name) for name in OUTCOMES},
        )  # fmt: skip
        yield GaugeMetricFamily(
            "millwright_in_flight", "Requests sent to an agent and not answered", total.in_flight
        )
        yield GaugeMetricFamily(
            "millwright_queue_depth", "Requests accepted and not yet sent", total.active - total.in_flight
        )
        yield from self._rest(total)

    def _rest(self, total: DeploymentStats) -> Iterator[Metric]:
        yield _labelled(
            "millwright_attempts", "Attempts at agents that have ended", "result", self._stats.attempts
        )
        yield _labelled(
            "millwright_tokens", "Tokens as the agents counted them", "kind",
            {"prompt": total.prompt_tokens, "completion": total.completion_tokens},
        )  # fmt: skip
        yield self._cache(total)
        yield _histogram("millwright_request_duration_seconds", "From accepted to ended", total.duration)
        yield _histogram(
            "millwright_time_to_first_token_seconds", "From accepted to the first token of an agent's answer",
            total.first_token,
        )  # fmt: skip
        yield _histogram("millwright_queue_wait_seconds", "From accepted to first sent", total.queue_wait)
        yield self._agents()

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            "millwright_requests", "Inference requests by HTTP code", labels=["deployment", "task", "code"]
        )
        for (deployment, task, code), count in self._stats.codes.items():
            family.add_metric([deployment, task, str(code)], count)
        return family

    def _cache(self, total: DeploymentStats) -> Metric:
        """By deployment; what those that are gone have counted is under an empty name."""
        family = CounterMetricFamily(
            "millwright_cache", "Requests that may be cached, by where the answer came from",
            labels=["deployment", "result"],
        )  # fmt: skip
        gone = dict(total.cache)
        for name, deployment in self._fleet.deployments.items():
            for result, count in deployment.stats.cache.items():
                family.add_metric([name, result], count)
                gone[result] -= count
        for result, count in gone.items() if any(gone.values()) else ():
            family.add_metric(["", result], count)
        return family

    def _agents(self) -> Metric:
        family = GaugeMetricFamily(
            "millwright_agents", "Agents as this gateway sees them", labels=["deployment", "state"]
        )
        counts: dict[tuple[str, str], int] = {}
        for agent in self._fleet.agents.values():
            key = (agent.route.deployment, agent.slots.link_state)
            counts[key] = counts.get(key, 0) + 1
        for (deployment, state), count in counts.items():
            family.add_metric([deployment, state], count)
        return family


class Scrape:
    """The registry of this gateway, apart from the library's global one."""

    def __init__(self, fleet: Fleet, stats: GatewayStats) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(GatewayCollector(fleet, stats))
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """The text of one scrape."""
        return generate_latest(self._registry)


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, text: str, durations: Durations) -> Metric:
    counts = accumulate(durations.counts)
    buckets = [(bound, float(count)) for bound, count in zip(_BOUNDS, counts, strict=True)]
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=durations.sum_s)

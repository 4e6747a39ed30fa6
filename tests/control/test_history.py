"""Metric history: rates from counters, rolled up and bounded."""

import pytest
from fleet_builders import (
    NOW,
    agent_report,
    deployment,
    deployment_report,
    gateway_report,
    histogram,
    snapshot,
)

from appliance.control.history import Counted, Recorder, Usage, mean, node_usage, rates
from appliance.models import MetricPoint

START = 1_800_000_000


def pair(at=1.0, **counters):
    return (Counted(0.0, deployment_report()), Counted(at, deployment_report(**counters)))


def test_rates_are_differences_over_time():
    """Two gateways' rates add up, each over its own time; what was answered in between has the quantiles."""
    told = rates(
        [pair(2.0, answered=20, tokens=100, duration=histogram(b3=20), in_flight=2), pair(1.0, answered=5)]
    )
    assert (told["rps"], told["tokens_per_s"], told["in_flight"], told["failed_per_s"]) == (15, 50, 2, 0)
    assert 2.0 < told["p50_ms"] <= 3.0


def test_unknown_is_null():
    """No gateway: nothing is known. A first report: levels are known, rates are not."""
    assert set(rates([]).values()) == {None}
    first = rates([(None, Counted(1.0, deployment_report(queued=3, answered=9)))])
    assert (first["queued"], first["rps"], first["p50_ms"]) == (3, None, None)


def test_means_leave_out_what_is_unknown():
    """Null is not zero."""
    assert mean([{"a": 1, "b": None}, {"a": 3, "b": None}, {"a": None}]) == {"a": 2, "b": None}


def test_node_without_a_reading_is_told_by_its_agents():
    """What an agent said last stands in; without agents it is unknown."""
    said = agent_report(node_cpu_percent=30.0, node_available_bytes=4 * 10**9)
    fleet = snapshot(reports=[gateway_report(said)])
    assert node_usage(fleet, "local", 16 * 10**9, None) == Usage(30.0, 75.0)
    assert node_usage(fleet, "local", 16 * 10**9, Usage(1.0, 2.0)) == Usage(1.0, 2.0)
    assert node_usage(fleet, "elsewhere", None, None) == Usage(None, None)


@pytest.mark.django_db(databases=["default", "history"])
class TestRecorder:
    """Points in the history database."""

    def record(self, seconds, recorder=None, first=0):
        recorder = recorder or Recorder()
        for second in range(first, first + seconds):
            now = float(START + second)
            counted = deployment_report(answered=10 * second)
            report = gateway_report(deployments=[counted], at=now, started_at=NOW)
            recorder.write(snapshot(reports=[report], deployments=[deployment()], now=now), Usage(50.0, 20.0))
        return recorder

    def test_two_ticks_in_a_second_are_one_point(self):
        """A `want` between two ticks replaces the second's point."""
        recorder = self.record(1)
        self.record(1, recorder)
        assert MetricPoint.objects.filter(series="deployment:mini", resolution_s=1).count() == 1

    def test_rolled_up(self):
        """Ten seconds make a point of ten, six of those a point of a minute, with their means."""
        self.record(121)
        points = MetricPoint.objects.filter(series="deployment:mini")
        assert points.filter(resolution_s=10).count() == 12
        assert sorted(points.filter(resolution_s=60).values_list("at", flat=True)) == [START, START + 60]
        assert points.get(resolution_s=60, at=START + 60).values["rps"] == pytest.approx(10)

    def test_a_new_worker_rolls_up_what_the_old_one_left(self):
        """Buckets that were complete when the worker was killed are not lost."""
        self.record(15)
        self.record(10, first=25)
        ten = MetricPoint.objects.filter(series="deployment:mini", resolution_s=10)
        assert sorted(ten.values_list("at", flat=True)) == [START, START + 10, START + 20]

    def test_bounded(self):
        """What is older than its time goes."""
        old = [MetricPoint(series="node:x", resolution_s=step, at=START - kept - 1, values={})
               for step, kept in ((1, 900), (10, 10800), (60, 172800), (3600, 31536000))]  # fmt: skip
        MetricPoint.objects.bulk_create(old)
        self.record(1)
        left = set(MetricPoint.objects.filter(series="node:x").values_list("resolution_s", "at"))
        assert not left & {(one.resolution_s, one.at) for one in old}

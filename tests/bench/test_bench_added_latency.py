"""The arithmetic of added latency and of CPU time, and what is read of a process."""

import os
import time

import pytest

from tests.bench.added_latency import (
    AddedLatency,
    CpuCost,
    compute_added,
    compute_latency_marks,
    render_latency,
    split_engine,
)
from tests.bench.process_figures import CpuWatch, Sampler, read_cpu_s, read_thread_cpu_s


def build_findings(ours=(1.8, 2.1, 9.0), gateway_us=100.0, **changes):
    lone = {"millwright": list(ours), "FastAPI": [2.6, 2.8, 3.0]}
    cost = CpuCost(1000, gateway_us, 150.0, 900.0)
    return AddedLatency([1.2, 1.6, 2.0], lone, [cost] * 3, **changes)


def test_added_is_the_median_of_what_each_round_added():
    """To the call of the same round: the machine may be slower in another."""
    assert compute_added(build_findings()) == {
        "millwright": pytest.approx(0.6),
        "FastAPI": pytest.approx(1.2),
    }


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"ours": (2.0, 2.4, 2.8)}, ["one connection"]),
        ({"ours": (2.6, 3.0, 3.4)}, ["one connection", "less than FastAPI"]),
        ({"gateway_us": 121.0}, ["gateway's CPU"]),
    ],
    ids=["all is well", "slow", "slower than the peer", "dear"],
)
def test_latency_marks_name_what_was_missed(changes, missed):
    """0.7 ms over the call, 120 us of the gateway's CPU, ahead of the peer."""
    found = [mark.text for mark in compute_latency_marks(build_findings(**changes)) if mark.reached is False]
    assert len(found) == len(missed)
    assert all(part in text for part, text in zip(missed, found, strict=True))


def test_a_peer_that_cannot_run_is_unknown():
    """The table stands without it; the mark says why."""
    findings = build_findings(troubles={"FastAPI": "not installed"})
    del findings.lone["FastAPI"]
    [mark] = [mark for mark in compute_latency_marks(findings) if mark.reached is None]
    assert "not installed" in mark.text
    assert "FastAPI" not in render_latency(findings)


def test_the_engines_threads_are_those_that_took_most():
    """As many as there are workers; a thread that is new counts from nothing."""
    before = {1: 5.0, 2: 10.0, 3: 0.5}
    after = {1: 5.4, 2: 12.0, 3: 0.6, 4: 1.5}
    assert split_engine(before, after, 2) == (pytest.approx(3.5), pytest.approx(0.5))


def test_a_process_is_watched_while_it_works():
    """CPU time, that of its threads, memory and descriptors."""
    own = os.getpid()
    watch = CpuWatch({"own": own})
    with Sampler(lambda: {"own": own, "gone": 2**22 + 1}, every_s=0.01) as sampler:
        until = time.monotonic() + 20
        while watch.read()["own"] < 0.02 or not sampler.samples:
            sum(range(10_000))
            assert time.monotonic() < until
    assert sum(read_thread_cpu_s(own).values()) <= read_cpu_s(own) + 0.1
    [samples] = sampler.samples.values()
    assert samples[0].pid == own
    assert samples[0].rss_bytes > 10_000_000
    assert samples[0].descriptors > 2

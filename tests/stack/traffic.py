"""Load on an appliance while a test does something to it."""

import asyncio
import json
import threading
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from appliance.load_test import LoadPlan, parse_url
from appliance.load_test.run import run_load_async

SENTENCES = [f"Sentence number {number} about mills and rivers." for number in range(50)]


class Traffic:
    """Requests at a steady rate from entering the block until `seconds` are over; `summary` holds the result.

    Latency runs from when a request should have been sent, so a gap in service shows in its maximum.
    """

    def __init__(self, appliance, key, *, rps, seconds):
        bodies = tuple(json.dumps({"model": "minilm", "input": text}).encode() for text in SENTENCES)
        headers = (("Authorization", f"Bearer {key}"), ("Content-Type", "application/json"))
        target = parse_url(f"{appliance.api}/v1/embeddings", headers=headers)
        self._plan = LoadPlan(
            target=target, bodies=bodies, connections=256, duration_s=seconds, rps=rps, timeout_s=60
        )
        self.summary = None
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        self.summary = asyncio.run(run_load_async(self._plan))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join()


def counters(appliance):
    """Every sample of the gateway's metrics by name and labels."""
    with urllib.request.urlopen(f"{appliance.api}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def assert_conserved(appliance):
    """In one scrape: accepted = finished + in flight + queued, and nothing is left behind."""
    samples = counters(appliance)

    def total(name):
        return sum(value for (sample, _), value in samples.items() if sample == name)

    accepted, finished = total("millwright_accepted_total"), total("millwright_finished_total")
    in_flight, queued = total("millwright_in_flight"), total("millwright_queue_depth")
    assert accepted == finished + in_flight + queued
    assert (in_flight, queued) == (0, 0)

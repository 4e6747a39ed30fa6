"""A cache is turned on by command, on a running appliance with the real model."""

import json
import urllib.request

import pytest
from traffic import assert_conserved, counters

pytestmark = pytest.mark.slow


def embed(appliance, key, text, **headers):
    """The embedding of a text."""
    request = urllib.request.Request(
        f"{appliance.api}/v1/embeddings",
        data=json.dumps({"model": "minilm", "input": text}).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["data"][0]["embedding"]


def cached(appliance):
    """How many requests were hits and misses so far."""
    samples = counters(appliance)
    return tuple(
        samples["millwright_cache_total", (("deployment", "minilm"), ("result", result))]
        for result in ("hit", "miss")
    )


def test_an_answer_is_given_again_to_its_own_team_alone(appliance):
    """Off, nothing is kept; from the very next request on the second is a hit; another team's is a miss."""
    mine = appliance.create_key("cache-mine", "--team", "one")
    friend = appliance.create_key("cache-friend", "--team", "one")
    other = appliance.create_key("cache-other", "--team", "two")
    text = "A sentence that nobody has asked before."
    plain = embed(appliance, mine, text)
    embed(appliance, mine, text)
    assert cached(appliance) == (0, 0)
    done = appliance.run("set_serving", "minilm", "cache_mb=8")
    assert done.stdout == "deployment minilm changed\n  cache_mb: 0 -> 8\n"
    try:
        first = embed(appliance, mine, text)
        assert cached(appliance) == (0, 1)
        assert first == pytest.approx(plain, abs=1e-6)
        assert embed(appliance, mine, text) == embed(appliance, friend, text) == first
        assert cached(appliance) == (2, 1)
        embed(appliance, other, text)
        assert cached(appliance) == (2, 2)
        embed(appliance, mine, text, **{"x-no-cache": "1"})
        assert cached(appliance) == (2, 2)
        appliance.run("set_serving", "minilm", "cache_shared=yes")
        for key in (mine, other):
            embed(appliance, key, text)
        assert cached(appliance) == (3, 3)
    finally:
        appliance.run("set_serving", "minilm", "cache_mb=0", "cache_shared=no")
    embed(appliance, mine, text)
    assert cached(appliance) == (3, 3)
    assert_conserved(appliance)


def test_a_setting_that_is_refused_changes_nothing(appliance):
    """Exit code 2 and one line; what stood beside it is as it was."""
    before = appliance.run_json("set_serving", "minilm")["settings"]
    refused = appliance.run("set_serving", "minilm", "sticky=yes", "cache_mb=huge", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.strip().splitlines() == [
        "CommandError: cache_mb 'huge' is not accepted: a number from 0 to 4,096 is, as cache_mb=64"
    ]
    assert appliance.run_json("set_serving", "minilm")["settings"] == before

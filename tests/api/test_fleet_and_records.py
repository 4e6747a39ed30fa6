"""The fleet's document and the audit log over the API."""

import pytest

from appliance.fleet import read_fleet
from appliance.models import Agent

pytestmark = pytest.mark.django_db(databases=["default", "history"])


@pytest.mark.parametrize("by", ["vera", "oscar", "key"])
def test_the_fleet_is_that_of_the_command(ask, rows, by):
    """The document of `fleet --json`, with all its keys."""
    status, document, _ = ask("GET", "/api/fleet", by=by)
    assert status == 200
    now = rows["box"].seen_at.timestamp()
    assert document == read_fleet([], now)


def test_an_agents_shape_is_told(ask, rows):
    """As it is wanted; of one that has grown also what it would start with; the same in lists and alone."""
    told = ask("GET", "/api/agents/minilm-000001")[1]
    keys = ("workers", "threads", "batch_size", "stretched", "grown_from")
    assert [told[key] for key in keys] == [2, 1, 8, False, None]
    grown = {"workers": 4, "threads": 1, "batch_size": 8, "limit": 2, "stretched": True}
    Agent.objects.filter(pk="minilm-000001").update(profile=grown)
    start = {"workers": 2, "threads": 1, "batch_size": 8}
    for path in ("/api/agents", "/api/fleet"):
        document = ask("GET", path)[1]
        [told] = [one for one in document.get("items") or document["agents"] if one["id"] == "minilm-000001"]
        assert [told[key] for key in keys] == [4, 1, 8, True, start]
    assert ask("GET", "/api/agents/minilm-000001")[1]["grown_from"] == start


def test_audit_events_are_paged(ask, rows):
    """Who, what and with which detail."""
    status, document, _ = ask("GET", "/api/audit?limit=1", by="alice")
    assert (status, len(document["items"])) == (200, 1)
    assert document["total"] > 1
    assert {"at", "actor", "verb", "target", "detail"} == set(document["items"][0])

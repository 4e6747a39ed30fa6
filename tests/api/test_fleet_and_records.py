"""The fleet's document and the audit log over the API."""

import pytest

from appliance.fleet import read_fleet

pytestmark = pytest.mark.django_db(databases=["default", "history"])


@pytest.mark.parametrize("by", ["vera", "oscar", "key"])
def test_the_fleet_is_that_of_the_command(ask, rows, by):
    """The document of `fleet --json`, with all its keys."""
    status, document, _ = ask("GET", "/api/fleet", by=by)
    assert status == 200
    now = rows["box"].seen_at.timestamp()
    assert document == read_fleet([], now)


def test_audit_events_are_paged(ask, rows):
    """Who, what and with which detail."""
    status, document, _ = ask("GET", "/api/audit?limit=1", by="alice")
    assert (status, len(document["items"])) == (200, 1)
    assert document["total"] > 1
    assert {"at", "actor", "verb", "target", "detail"} == set(document["items"][0])

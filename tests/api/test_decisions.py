"""Decisions over the API: filters, pages by cursor, the table for spreadsheets, the check of the record."""

import csv
import datetime as dt
import io
from urllib.parse import quote

import pytest
from django.utils import timezone

from appliance.models import Decision

pytestmark = pytest.mark.django_db(databases=["default", "history"])


@pytest.fixture
def decided(rows):
    """Nine more decisions, half of them changes, one a minute, on two deployments."""
    now = timezone.now()
    for number in range(1, 10):
        Decision.objects.create(
            at=now - dt.timedelta(minutes=number), deployment="minilm" if number % 3 else "other",
            trigger="tick", kind="load" if number % 2 else "idle", before=2, want=3, after=2 + number % 2,
            reason="3.1 requests/s of 0.90 s", inputs={"want_wait": 3, "want_cpu": None},
            clamps=["max 3"], gateways=["gateway-1@5.000"],
        )  # fmt: skip


def test_decisions_are_listed(ask, rows):
    """Newest first, also of one deployment."""
    status, document, _ = ask("GET", "/api/decisions", by="vera")
    assert (status, document["total"]) == (200, 1)
    assert (document["items"][0]["reason"], document["items"][0]["after"]) == ("load", 2)
    assert ask("GET", "/api/decisions?deployment=minilm")[1]["total"] == 1
    assert ask("GET", "/api/decisions?deployment=other")[1] == {"items": [], "total": 0, "next": None}


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("", 10), ("deployment=other", 3), ("kind=load", 5), ("kind=load,idle", 9), ("changed=true", 6),
        ("since=210s", 4), ("until=210s", 6), ("since=5m&changed=true&deployment=minilm", 2),
        (f"since={quote('2100-01-01T00:00:00+00:00')}", 0),
    ],
)  # fmt: skip
def test_filters(ask, decided, query, total):
    """By deployment, kind, time, and changes alone; all at once where all are given."""
    assert ask("GET", f"/api/decisions?{query}")[1]["total"] == total


def test_pages_follow_the_cursor(ask, decided):
    """Each part begins after the last row of the one before, also where rows come meanwhile."""
    seen, cursor = [], ""
    while True:
        document = ask("GET", f"/api/decisions?limit=4{cursor}")[1]
        seen += [one["id"] for one in document["items"]]
        if document["next"] is None:
            break
        Decision.objects.create(
            at=timezone.now(), deployment="minilm", trigger="tick", before=1, after=1, reason="new"
        )
        cursor = f"&cursor={document['next']}"
    assert len(seen) == len(set(seen)) == 10


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("since=yesterday", "90s, 30m"), ("since=99999d%00", "not accepted"), ("cursor=5", "cursor"),
        ("since=9999-99-99", "not accepted"), ("colour=red", "unknown"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(ask, rows, query, said):
    """A time or a cursor that is none is named, with what is accepted."""
    status, document, _ = ask("GET", f"/api/decisions?{query}")
    assert status == 400
    assert said in document["error"]["message"]


def test_the_table_for_spreadsheets(client, manage_key, decided):
    """Heads and a row a decision; a text that begins as a formula does not is made none."""
    Decision.objects.create(
        at=timezone.now(), deployment="minilm", trigger="tick", before=1, after=2, reason="=cmd()"
    )
    response = client.get(
        "/api/decisions.csv?changed=true", headers={"Authorization": f"Bearer {manage_key}"}
    )
    assert response["Content-Type"].startswith("text/csv")
    heads, first, *others = csv.reader(io.StringIO(response.content.decode()))
    assert heads[:5] == ["at", "deployment", "from", "to", "want"]
    assert (first[-1], len(others)) == ("'=cmd()", 6)
    assert others[-1][8] == "wait 3, cpu ?"


def test_explained_in_sentences(ask, decided):
    """What happened, what was asked by whom, what limited it."""
    [one] = ask("GET", "/api/decisions?kind=load&limit=1")[1]["items"]
    said = "\n".join(one["explanation"])
    assert "minilm went from 2 to 3 agents" in said
    assert "wait 3 (to keep waits short), cpu could not tell (by CPU)" in said
    assert "max 3" in said
    assert "3.1 requests/s of 0.90 s" in said


def test_no_record_is_said(ask, rows):
    """Where the loop recorded nothing there is nothing to check."""
    status, document, _ = ask("GET", "/api/deployments/minilm/record")
    assert status == 404
    assert "can be replayed, nothing is recorded:" in document["error"]["message"]
    _, document, _ = ask("GET", "/api/deployments/nothing/record")
    assert document["error"]["message"] == "no deployment is named 'nothing'; there are: minilm"


def test_the_last_hour_under_other_values(ask, rows):
    """By the keys of set_scaling; without a record it says that nothing can be compared."""
    path = "/api/deployments/minilm/scaling/preview"
    status, document, _ = ask("POST", path, {"changes": {"max": 9, "idle_s": "30"}})
    assert (status, document["new"]) == (200, None)
    assert "only 0 s are recorded" in document["why_not"]
    assert ask("POST", path, {"changes": {"colour": 9}})[0] == 400
    assert ask("POST", "/api/deployments/other/scaling/preview", {"changes": {}})[0] == 404

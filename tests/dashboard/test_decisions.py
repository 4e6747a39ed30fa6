"""The page of decisions: filters, words, pages, and the table for spreadsheets."""

import datetime as dt
import re

import pytest
from django.utils import timezone

from appliance.models import Decision

pytestmark = pytest.mark.django_db(transaction=True)

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def decided(deployment):
    """Sixty decisions, one a minute; every second one changes the number."""
    now = timezone.now()
    Decision.objects.bulk_create(
        Decision(
            at=now - dt.timedelta(minutes=number), deployment="minilm" if number else "other", trigger="tick",
            kind="load" if number % 2 else "idle", before=1, want=4, after=1 + 2 * (number % 2),
            reason=f"reason {number} {HOSTILE}", inputs={"want_wait": 4}, clamps=["max 3"],
        )
        for number in range(60)
    )  # fmt: skip


def shown(client, query=""):
    answer = client.get(f"/decisions/{query}")
    assert answer.status_code == 200
    return answer.content.decode()


def test_outsiders_are_refused(client, log_in, deployment):
    """Strangers are sent to log in; accounts without a role get 403."""
    assert client.get("/decisions/")["Location"] == "/?next=/decisions/"
    assert log_in("charlie").get("/decisions/").status_code == 403


def test_each_is_explained(viewer, decided):
    """In sentences, escaped, newest first; what comes after fifty is one link away."""
    page = shown(viewer)
    assert "minilm went from 1 to 3 agents." in page
    assert "The load asked for 4 agents." in page
    assert "What limited or raised it: max 3." in page
    assert HOSTILE not in page
    assert page.index("reason 0 ") < page.index("reason 1 ")
    assert "reason 55" not in page
    older = re.search(r'id="mw-older" href="(\?[^"]*)"', page)
    assert "reason 55" in shown(viewer, older[1].replace("&amp;", "&"))


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("?deployment=other", 1), ("?kind=load", 30), ("?changed=on", 30), ("?since=1h&kind=idle", 30),
        ("?deployment=nobody", 0),
    ],
)  # fmt: skip
def test_filters(viewer, decided, query, total):
    """By deployment, kind, time and change."""
    assert f"{total}, newest first" in shown(viewer, query)


def test_a_time_that_is_none_is_named(viewer, decided):
    """Also what was typed into the address by hand gets an answer."""
    assert "90s, 30m" in shown(viewer, "?since=soon")
    assert "cursor" in shown(viewer, "?cursor=soon")


def test_export_is_of_what_is_shown(viewer, decided):
    """With the same filters, all pages of it."""
    page = shown(viewer, "?changed=on")
    link = re.search(r'id="mw-export" href="(\?[^"]*)"', page)[1].replace("&amp;", "&")
    answer = viewer.get(f"/decisions/{link}")
    assert answer["Content-Type"].startswith("text/csv")
    assert len(answer.content.decode().strip().splitlines()) == 31


def test_the_form_shows_what_would_have_been(log_in, deployment):
    """Before anything is saved; with nothing recorded it says so, and what is wrong stands in the form."""
    client = log_in("oscar")
    form = "/deployments/minilm/scaling/"
    answer = client.post(
        form, {"preview": "1", "min": "0", "max": "7", "initial-min": "1", "initial-max": "4"}
    )
    page = answer.content.decode()
    assert "The last hour cannot be compared: only 0 s are recorded yet." in page
    assert 'value="7"' in page
    deployment.refresh_from_db()
    assert deployment.max_agents == 4
    wrong = {"preview": "1", "min": "9", "max": "7", "initial-min": "1", "initial-max": "4"}
    assert "raise max or lower min" in client.post(form, wrong).content.decode()

"""The overview page."""

import json
import re
import time

import pytest
from dashboard_builders import ScriptedGateway
from django.conf import settings

from appliance.models import Agent, MetricPoint
from dashboard.sources import HISTORY_S, join_points, read_overview_rows

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])


def test_outsiders_are_refused(log_in):
    """An account without a role gets a plain 403 page."""
    answer = log_in("charlie").get("/")
    assert answer.status_code == 403
    assert "No access" in answer.content.decode()


def test_empty_page_tells_the_next_step(log_in):
    """Without a deployment each table says what to do."""
    page = log_in("vera").get("/").content.decode()
    assert "python manage.py deploy NAME --model MODEL --wait" in page
    assert "No gateway answers" in page


def test_page_is_complete_without_script(log_in, deployment):
    """States, numbers of the gateway and the address of the API are in the first answer."""
    gateway = ScriptedGateway(settings.ENVIRONMENT.run_dir)
    try:
        page = log_in("vera").get("/").content.decode()
    finally:
        gateway.close()
    row = re.search(r'<tr data-key="minilm-aaaaaa" data-level="">.*?</tr>', page, re.DOTALL)[0]
    assert re.search(r'data-cell="answered"[^>]*>1,2\d\d<', row)
    assert 'data-state="ready"' in row
    assert f"http://testserver:{settings.ENVIRONMENT.gateway_port}/v1/embeddings" in page
    assert "No gateway answers" not in page


def test_what_nodes_say_is_escaped(log_in, deployment):
    """Markup in an agent's error and name is text."""
    Agent.objects.update(error="<script>alert(1)</script>")
    page = log_in("vera").get("/").content.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page


def test_history_feeds_the_charts(log_in, deployment):
    """The newest five minutes of history are in the page."""
    now = int(time.time())
    MetricPoint.objects.create(series="deployment:minilm", resolution_s=1, at=now - 2, values={"rps": 7.5})
    MetricPoint.objects.create(series="deployment:minilm", resolution_s=1, at=now - 900, values={"rps": 9})
    page = log_in("vera").get("/").content.decode()
    history = json.loads(re.search(r'id="mw-history"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    assert [value for value in history["lines"]["rps"] if value is not None] == [7.5]
    assert len(history["at"]) == HISTORY_S
    assert 'data-total="rps" data-level="">7.5<' in page


def test_series_are_joined():
    """Rates add up, latency is the slowest's, a missing second stays missing."""
    points = [
        (100, "deployment:a", {"rps": 1.0, "p95_ms": 5.0}),
        (100, "deployment:b", {"rps": 2.0, "p95_ms": None}),
        (102, "node:local", {"cpu_percent": 80.0}),
    ]
    joined = join_points(points, 100, 103, 1)
    assert joined["lines"]["rps"] == [3.0, None, None]
    assert joined["lines"]["p95_ms"] == [5.0, None, None]
    assert joined["lines"]["cpu_percent"] == [None, None, 80.0]


def test_query_count_does_not_grow_with_the_fleet(log_in, deployment, django_assert_max_num_queries):
    """The rows of a snapshot are read in a fixed number of queries."""
    for number in range(20):
        agent = Agent.objects.get(id="minilm-aaaaaa")
        agent.id = f"minilm-{number}"
        agent.save(force_insert=True)
    with django_assert_max_num_queries(5):
        rows = read_overview_rows(time.time())
        assert len({agent.deployment.name + agent.node.name for agent in rows.fleet.agents}) == 1


@pytest.mark.parametrize("name", ["alice", "vera"])
def test_sidebar_shows_what_one_may_see(log_in, name):
    """Users and groups are in an administrator's sidebar alone."""
    page = log_in(name).get("/").content.decode()
    assert "/admin/appliance/deployment/" in page
    assert ("/admin/auth/user/" in page) == (name == "alice")


def test_unknown_page_is_plain(client):
    """A 404 is short, in style, and without details."""
    answer = client.get("/nowhere")
    assert answer.status_code == 404
    assert "There is no page at this address" in answer.content.decode()

"""The first token and tokens through real processes: agent, gateway, report, worker, decision."""

import json
import sqlite3
from contextlib import closing

import pytest
from test_worker_process import Home, ready_agent, wait_for

pytestmark = pytest.mark.slow

TARGETS = """
import django; django.setup()
from appliance.models import Deployment, Revision
Revision.objects.update(settings={{"fake_service_ms": 60}})
Deployment.objects.update(min_agents=1, max_agents=3, scaling={scaling})
"""


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    try:
        home.start("-m", "appliance.gateway", "--name", "gateway-1")
        wait_for((home.path / "run" / "gateway-1.sock").exists)
        yield home
    finally:
        home.close()


def decided(home, kind):
    """The newest decision of that kind: agents after it, and its inputs."""
    with closing(sqlite3.connect(home.path / "db.sqlite3", timeout=10)) as database:
        rows = database.execute(
            "select after, inputs from appliance_decision where kind = ? order by id desc limit 1", (kind,)
        ).fetchall()
    return [(after, json.loads(inputs)) for after, inputs in rows]


@pytest.mark.parametrize(
    ("kind", "scaling", "figure"),
    [
        ("ttft", {"target_ttft_ms": 20}, "ttft_ms"),
        ("tokens", {"target_tokens_per_s": 1}, "tokens_each"),
    ],
)
def test_a_target_that_is_not_met_brings_agents(home, kind, scaling, figure):
    """What an agent takes and counts is what the loop decides on, a few requests later."""
    home.run(TARGETS.format(scaling=scaling))
    home.worker()
    ready_agent(home)

    def asked():
        assert home.ask()[0] == 200
        return decided(home, kind)

    [(after, inputs)] = wait_for(asked, 60.0)
    assert 1 < after <= 3
    assert inputs[f"want_{kind}"] > 1
    assert inputs[figure] > {"ttft": 50, "tokens": 0}[kind]

"""States computed from rows and reports."""

import time
from datetime import UTC, datetime

import pytest
from dashboard_builders import agent_report, deployment_report, gateway_report
from django.utils import timezone

from appliance.fleet import agent_health, agent_state, deployment_state, node_state, read_fleet
from appliance.management.commands.fleet import narrow
from appliance.models import Agent, Deployment, InferenceModel, MetricPoint, Node, Revision

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("wanted", "state", "links", "expected"),
    [
        pytest.param("warm", "starting", ["ready"], "ready", id="gateway-first"),
        pytest.param("warm", "ready", ["connecting"], "starting", id="connection-lost"),
        pytest.param("warm", "ready", ["connecting", "ready"], "ready", id="one-gateway-has-it"),
        pytest.param("warm", "ready", [], "ready", id="no-gateway"),
        pytest.param("warm", "parked", ["parked"], "parked", id="parked"),
        pytest.param("draining", "ready", ["ready"], "draining", id="ordered-to-drain"),
        pytest.param("warm", "failed", ["ready"], "failed", id="failed"),
        pytest.param("stopped", "stopped", [], "stopped", id="stopped"),
        pytest.param("warm", "ready", ["loading"], "starting", id="loading"),
        pytest.param("warm", "ready", ["ejected"], "ready", id="ejected"),
    ],
)
def test_agent_states(wanted, state, links, expected):
    """The loop's word on failure comes first, then orders, then what gateways see."""
    seen = [agent_report(state=link) for link in links]
    assert agent_state(Agent(wanted=wanted, state=state), seen) == expected


@pytest.mark.parametrize(
    ("links", "words"),
    [
        ([], ""),
        ([("ready", "")], ""),
        ([("ejected", "errors")], "ejected, gets no requests: errors"),
        ([("ready", ""), ("ejected", "errors")], "ejected, gets no requests from 1 of 2 gateways: errors"),
        ([("ready", ""), ("ready", "errors")], "tried with one request at a time: errors"),
        ([("connecting", "errors")], ""),
    ],
)
def test_agent_health(links, words):
    """What gateways have against an agent, in words."""
    assert agent_health([agent_report(state=state, health=why) for state, why in links]) == words


@pytest.mark.parametrize(
    ("ago", "fields", "expected"),
    [
        pytest.param(9.9, {}, "ready", id="fresh"),
        pytest.param(10.0, {}, "unreachable", id="old"),
        pytest.param(None, {}, "unreachable", id="never"),
        pytest.param(1, {"wanted": "cordoned"}, "cordoned", id="cordoned"),
        pytest.param(60, {"wanted": "cordoned"}, "unreachable", id="cordoned-and-old"),
        pytest.param(1, {"wanted": "drained"}, "draining", id="drained"),
        pytest.param(1, {"operation_stage": "resting", "wanted": "cordoned"}, "draining", id="operation"),
        pytest.param(60, {"wanted": "retired"}, "retired", id="retired"),
        pytest.param(1, {"enrolled_at": None}, "enrolling", id="enrolling"),
        pytest.param(1, {"enrolled_at": None, "name": "local"}, "ready", id="local"),
    ],
)
def test_node_states(ago, fields, expected):
    """Retired, enrolling and unreachable come before all else that people ordered."""
    seen_at = None if ago is None else datetime.fromtimestamp(NOW - ago, tz=UTC)
    enrolled_at = datetime.fromtimestamp(NOW - 1000, tz=UTC)
    values = {"name": "far", "enrolled_at": enrolled_at, "seen_at": seen_at, **fields}
    assert node_state(Node(**values), NOW) == expected


@pytest.mark.parametrize(
    ("fields", "states", "expected"),
    [
        pytest.param({}, ["ready"], "ready", id="ready"),
        pytest.param({"desired": 3}, ["ready", "starting", "starting"], "ready", id="growing"),
        pytest.param({"desired": 2}, ["ready", "failed"], "degraded", id="one-failed"),
        pytest.param({"min_agents": 2, "desired": 2}, ["ready", "starting"], "degraded", id="below-min"),
        pytest.param({}, ["starting"], "starting", id="starting"),
        pytest.param({}, [], "starting", id="not-begun"),
        pytest.param({}, ["failed", "starting"], "failed", id="failed"),
        pytest.param({"min_agents": 0, "desired": 0}, [], "idle", id="at-zero"),
        pytest.param({"min_agents": 0, "desired": 0}, ["parked"], "idle", id="parked"),
        pytest.param({"min_agents": 0, "desired": 0}, ["starting"], "starting", id="waking"),
        pytest.param({"removing": True}, ["ready"], "draining", id="removing"),
    ],
)
def test_deployment_states(fields, states, expected):
    """One word for how a deployment stands."""
    deployment = Deployment(**({"min_agents": 1, "desired": 1} | fields))
    agents = [Agent(id=str(number), state=state) for number, state in enumerate(states)]
    assert deployment_state(deployment, agents, dict(enumerate_texts(states))) == expected


def test_agents_in_a_terminal():
    """How large an agent is is one column; why it gets no requests, which is long, is the last."""
    speed = {"workers": 2, "threads": 1, "batch_size": 8, "capacity_rps": None, "profile": "default"}
    row = narrow({"id": "minilm-aaaaaa", "health": "", **speed})
    assert row == {
        "id": "minilm-aaaaaa", "capacity_rps": None, "profile": "default", "shape": "2 x 1, batch 8",
        "health": "",
    }  # fmt: skip
    assert list(row)[-1] == "health"
    node = {"name": "local", "problems": []}
    assert narrow(node) == node


def enumerate_texts(states):
    return ((str(number), state) for number, state in enumerate(states))


def test_start_that_keeps_failing_is_told_between_two_tries():
    """Three starts in vain are a failure also while the fourth is under way."""
    agent = Agent(id="0", state="starting", attempt=3, error="exit code 3")
    assert deployment_state(Deployment(min_agents=1, desired=1), [agent], {"0": "starting"}) == "failed"


@pytest.mark.django_db(databases=["default", "history"])
def test_the_fleet_document_has_the_keys_that_scripts_read():
    """Nodes, deployments and agents, joined from rows, history and reports."""
    now = time.time()
    node = Node.objects.create(
        name="local", address="127.0.0.1", seen_at=timezone.now(),
        hardware={"cores_physical": 2, "ram_bytes": 8_000_000_000},
    )  # fmt: skip
    model = InferenceModel.objects.create(name="minilm-v2", source="x", state="ready", digest="ab")
    deployment = Deployment.objects.create(name="minilm", model=model, min_agents=0, max_agents=3, desired=1)
    revision = Revision.objects.create(deployment=deployment, number=1, model=model, digest="ab")
    Agent.objects.create(
        id="minilm-aaaaaa", deployment=deployment, revision=revision, node=node, host="127.0.0.1", port=1,
        state="starting",
        profile={
            "workers": 2, "threads": 1, "batch_size": 8, "capacity_rps": 50.0, "tokens_per_s": 1600.0,
            "source": "learned",
        },
    )  # fmt: skip
    for ago, cpu in ((2, 11.0), (1, 12.5)):
        MetricPoint.objects.create(
            series="node:local", resolution_s=1, at=int(now) - ago, values={"cpu_percent": cpu}
        )
    report = gateway_report(
        now, deployments=[deployment_report(in_flight=2, queued=5)], agents=[agent_report(in_flight=2)]
    )
    assert read_fleet([report], now) == {
        "nodes": [
            {
                "name": "local", "address": "127.0.0.1", "state": "ready", "cores": 2,
                "ram_bytes": 8_000_000_000, "cpu_percent": 12.5, "problems": [],
            }
        ],
        "deployments": [
            {
                "name": "minilm", "model": "minilm-v2", "task": "embed", "state": "ready", "desired": 1,
                "would": None, "ready": 1, "min": 0, "max": 3, "in_flight": 2, "queued": 5,
                    "capacity_rps": 50.0,
            }
        ],
        "agents": [
            {
                "id": "minilm-aaaaaa", "deployment": "minilm", "node": "local", "state": "ready",
                "in_flight": 2, "health": "", "workers": 2, "threads": 1, "batch_size": 8,
                "stretched": False, "grown_from": None, "reported": None,
                "capacity_rps": 50.0, "tokens_per_s": 1600, "profile": "learned",
            }
        ],
    }  # fmt: skip

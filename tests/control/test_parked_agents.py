"""Agents that park and come back, in a loop whose worker may die between any two steps."""

import threading

import msgspec
import pytest
from control_builders import Stage, add_model
from django.conf import settings

from appliance.control import lease
from appliance.control.levels import LevelOrders
from appliance.deployments import deploy, undeploy
from appliance.models import Decision, Deployment
from appliance.policies.snapshot import RouteSnapshot

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])

QUICK = {
    "idle_s": 1.0, "stabilization_s": 0.0, "stable_window_s": 6.0, "panic_window_s": 1.0, "peak_s": 0.0,
    "park_s": 60.0,
}  # fmt: skip


def routes():
    document = msgspec.json.decode(settings.ENVIRONMENT.routes_file.read_bytes(), type=RouteSnapshot)
    return {agent.id: agent.wanted for agent in document.agents}


def deployed(stage, *, least=0, most=2, **scaling):
    """A deployment whose only agent is ready."""
    add_model()
    deploy("mini", model="tiny", actor="test", min_agents=least, max_agents=most)
    Deployment.objects.update(scaling=QUICK | scaling)
    for _ in range(3):
        stage.tick()
    return stage.agent().id


def until_parked(stage):
    """Nobody asks for anything: the agent leaves service and is told to park, and does."""
    agent = deployed(stage)
    for _ in range(30):
        if ("park", agent) in stage.levels.told:
            break
        stage.tick()
    stage.tick(seen={agent: "parked"})
    return agent


def successor_of(stage):
    """The worker was killed; another goes on with the same nodes."""
    lease.release(stage.loop.owner)
    other = Stage(owner="test:2:2", node=stage.node)
    other.now = stage.now
    return other


def test_scaled_to_zero_it_parks_and_comes_back(stage):
    """Handshake, order, parked; then a held request brings the same process back, and no new one."""
    agent = until_parked(stage)
    row = stage.agent()
    assert (row.wanted, row.state, row.parked_at is not None) == ("parked", "parked", True)
    assert routes() == {agent: "parked"}
    calls = list(stage.node.calls)
    stage.tick("want", seen={agent: {"state": "loading", "resumed": True}}, queued=1)
    row = stage.agent()
    assert (row.wanted, row.parked_at, routes()) == ("warm", None, {agent: "warm"})
    stage.tick(in_flight=1)
    assert (stage.agent().state, Deployment.objects.get().desired) == ("ready", 1)
    assert stage.node.calls == calls
    reasons = " ".join(Decision.objects.values_list("reason", flat=True))
    assert f"park {agent}" in reasons
    assert f"adopt {agent}" in reasons


@pytest.mark.slow
def test_parked_ends_after_its_time(stage):
    """Then it stops by the handshake, and is forgotten."""
    agent = until_parked(stage)
    stage.now += 60
    stage.tick(seen={agent: "parked"})
    assert routes() == {agent: "draining"}
    for _ in range(3):
        stage.tick(seen={agent: "parked"} if agent in stage.node.alive else {})
    assert stage.node.did("stop", "forget") == [("stop", agent), ("forget", agent)]
    assert stage.agents() == []


@pytest.mark.slow
def test_worker_killed_before_the_order_to_park(stage):
    """The row says that it is to park; the next worker gives the order."""
    agent = deployed(stage)
    stage.levels.park = lambda agents: None
    for _ in range(30):
        if stage.agents()[0].parked_at is not None:
            break
        stage.tick()
    other = successor_of(stage)
    for _ in range(4):
        other.tick()
    assert ("park", agent) in other.levels.told
    other.lane.close()


@pytest.mark.slow
def test_worker_killed_before_the_order_to_resume(stage):
    """The row says that it is wanted; the next worker sees it parked, and gives the order again."""
    agent = until_parked(stage)
    stage.levels.resume = lambda agents: None
    deploy("mini", model="tiny", actor="test", min_agents=1)
    stage.tick(seen={agent: "parked"})
    assert stage.agent().wanted == "warm"
    other = successor_of(stage)
    other.tick(seen={agent: "parked"})
    assert other.levels.told == [("resume", agent)]
    other.lane.close()


def test_gateway_resumes_while_the_worker_is_down(stage):
    """It serves meanwhile; the next worker adopts it where it finds it."""
    agent = until_parked(stage)
    other = successor_of(stage)
    other.now += 20
    other.tick(seen={agent: {"state": "ready", "resumed": True, "in_flight": 3}}, in_flight=3)
    assert (other.agent().wanted, other.agent().state) == ("warm", "ready")
    assert Deployment.objects.get().desired == 1
    other.lane.close()


@pytest.mark.slow
def test_removed_while_parked(stage):
    """It stops by the handshake, and the deployment goes with it."""
    agent = until_parked(stage)
    undeploy("mini", actor="test")
    for _ in range(4):
        stage.tick(seen={agent: "parked"} if agent in stage.node.alive else {})
    assert stage.node.did("stop") == [("stop", agent)]
    assert not Deployment.objects.exists()


@pytest.mark.slow
def test_killed_while_parked(stage):
    """Its row goes, nothing is started, and the next request brings a new one."""
    agent = until_parked(stage)
    stage.node.end(agent)
    stage.tick("want", seen={agent: "connecting"})
    assert stage.agents() == []
    stage.tick(seen={}, queued=1)
    assert stage.agent().id != agent


@pytest.mark.slow
def test_without_a_gateway_nobody_is_told_to_park(stage):
    """Nobody can tell that it is out of service."""
    deployed(stage, least=1)
    Deployment.objects.update(min_agents=0)
    for _ in range(10):
        stage.tick(report=False)
    assert stage.levels.told == []


@pytest.mark.slow
def test_a_paused_deployment_lets_gateways_resume_nobody_more(stage):
    """Routes bound them by the number that is kept."""
    until_parked(stage)
    Deployment.objects.update(paused=True)
    settings.ENVIRONMENT.routes_file.unlink()
    stage.tick(seen={})
    raw = msgspec.json.decode(settings.ENVIRONMENT.routes_file.read_bytes(), type=RouteSnapshot)
    assert [one.max_agents for one in raw.deployments] == [0]


def test_orders_are_given_once_while_one_is_under_way():
    """An agent that hangs is told once, and others at once."""
    told, go = [], threading.Event()

    def tell(path, host, port):
        told.append((path, port))
        if port == 1:
            go.wait(10)
            raise OSError("it hangs")

    orders = LevelOrders(tell)
    for _ in range(3):
        orders.park([("a", "h", 1)])
    orders.resume([("b", "h", 2)])
    go.set()
    orders.close()
    orders._pool.shutdown(wait=True)
    assert told.count(("/park", 1)) == 1

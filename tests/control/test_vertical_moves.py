"""Agents that grow where none can be added: rows, routes, orders, and a worker that dies meanwhile."""

import socket
import threading
import time
from dataclasses import replace

import msgspec
import pytest
from control_builders import Stage, add_model
from django.conf import settings

from agents.protocol import ProtocolError
from appliance.authority import client_files
from appliance.control import ask, lease, shape_orders
from appliance.control.rows import AgentRows, write_agents
from appliance.control.shape_orders import ShapeOrders
from appliance.deployments import deploy
from appliance.models import Agent, Decision, Deployment
from appliance.policies.report import SpeedReport
from appliance.policies.shapes import Shape
from appliance.policies.snapshot import RouteSnapshot

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])

#: Node `local` has two cores here.
LARGE = "2 x 1 threads, batch 8"
QUICK = {"idle_s": 60.0, "stabilization_s": 0.0, "stable_window_s": 6.0, "panic_window_s": 1.0, "peak_s": 0.0}


def speed(workers, batch_size=8):
    return SpeedReport("ctranslate2", "4", workers, 1, batch_size, 0, 0.0, 0.0, 0.0, 0.0)


def deployed(stage, **scaling):
    """A deployment of one agent at most, which starts with one engine thread and is ready."""
    add_model()
    deploy("mini", model="tiny", actor="test", min_agents=1, max_agents=1)
    Deployment.objects.update(scaling={**QUICK, "threads": 1, **scaling})
    for _ in range(3):
        stage.tick()
    return stage.agent()


def loaded(stage, agent, ticks=8, *, workers=1, queued=60):
    """Far more requests than one agent of one thread takes, and the agent says what it is."""
    for _ in range(ticks):
        stage.tick(seen={agent.id: {"state": "ready", "speed": speed(workers)}}, in_flight=8, queued=queued)


def test_rows_routes_and_orders(stage):
    """It starts small; under load its row and its route get larger, it is told, and the decision says so."""
    agent = deployed(stage)
    assert agent.profile == {"workers": 1, "threads": 1, "batch_size": 8, "limit": 1}
    assert stage.node.configs[agent.id]["workers"] == 1
    loaded(stage, agent)
    agent = stage.agent()
    assert agent.profile == {"workers": 2, "threads": 1, "batch_size": 8, "limit": 1, "stretched": True}
    assert stage.shapes.told[0] == (agent.id, LARGE)
    document = msgspec.json.decode(settings.ENVIRONMENT.routes_file.read_bytes(), type=RouteSnapshot)
    assert [one.slots for one in document.agents] == [16]
    assert "no agent can be added" in Decision.objects.latest("pk").reason
    assert Deployment.objects.get().lacking_since is not None


def test_another_worker_goes_on(stage):
    """Killed while it waits for the three seconds: the next one has not forgotten since when."""
    agent = deployed(stage)
    loaded(stage, agent, 3)
    since = Deployment.objects.get().lacking_since
    assert since is not None
    lease.release(stage.loop.owner)
    other = Stage(owner="test:2:2", node=stage.node)
    other.now = stage.now
    loaded(other, agent, 3)
    assert Deployment.objects.get().lacking_since == since
    assert (agent.id, LARGE) in other.shapes.told


def test_told_until_it_says_so(stage):
    """An order that was lost is given again; one that was followed is not."""
    agent = deployed(stage)
    loaded(stage, agent)
    assert len(stage.shapes.told) > 1
    count = len(stage.shapes.told)
    loaded(stage, agent, 2, workers=2)
    assert len(stage.shapes.told) == count


def test_refused_it_stays_as_it_was(stage):
    """The row goes back to what the agent says, and the deployment says why; nothing is told meanwhile."""
    agent = deployed(stage)
    loaded(stage, agent)
    stage.shapes.failed = {agent.id: "not enough memory"}
    count = len(stage.shapes.told)
    loaded(stage, agent, 3)
    assert stage.agent().profile["workers"] == 1
    assert "not enough memory" in Deployment.objects.get().problem
    assert len(stage.shapes.told) == count


def test_a_restarted_one_starts_small(stage):
    """Its process died while it was large: it is installed and started as a new one would be."""
    agent = deployed(stage)
    loaded(stage, agent)
    stage.node.end(agent.id)
    stage.tick(seen={})
    stage.tick(seen={})
    again = stage.agent()
    assert again.profile["workers"] == stage.node.configs[agent.id]["workers"] == 1
    assert "stretched" not in again.profile


def test_idle_it_goes_back(stage):
    """Without load it is cut to its start, and told."""
    agent = deployed(stage)
    loaded(stage, agent)
    for _ in range(20):
        stage.tick(seen={agent.id: {"state": "ready", "speed": speed(2)}})
    assert Agent.objects.get().profile == {"workers": 1, "threads": 1, "batch_size": 8, "limit": 1}
    assert stage.shapes.told[-1] == (agent.id, "1 x 1 threads, batch 8")
    assert Deployment.objects.get().lacking_since is None


# The orders.


def test_one_order_at_a_time():
    """While an agent is being told it is in hand, and not told again; then it is neither."""
    go, told = threading.Event(), []

    def tell(host, port, shape):
        told.append((host, port, str(shape)))
        assert go.wait(10)

    orders = ShapeOrders(tell)
    one = (("a-1", "127.0.0.1", 9200), Shape(2, 1, 8))
    orders.order([one])
    orders.order([one])
    assert orders.in_hand() == {"a-1"}
    go.set()
    orders.close()
    wait_until(lambda: not orders.in_hand())
    assert told == [("127.0.0.1", 9200, LARGE)]
    assert orders.failures() == {}


def wait_until(is_so):
    """For ten seconds at most."""
    done = threading.Event()
    for _ in range(1000):
        if is_so():
            return
        done.wait(0.01)
    raise AssertionError


@pytest.mark.parametrize(
    "error", [OSError("no route"), ProtocolError("not enough memory"), ValueError("odd")]
)
def test_failures_are_kept_for_a_while(error):
    """Why it did not follow is told for ten minutes, and then it may be tried again."""
    now = [0.0]

    def tell(host, port, shape):
        raise error

    orders = ShapeOrders(tell, clock=lambda: now[0])
    orders.order([(("a-1", "127.0.0.1", 9200), Shape(2, 1, 8))])
    wait_until(lambda: not orders.in_hand())
    assert str(error.args[0]) in orders.failures()["a-1"]
    now[0] = shape_orders.AGAIN_S
    assert orders.failures() == {}
    orders.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, b"{}"), ""),
        ((409, b"{}"), ""),
        ((500, b'{"error": {"message": "it did\\nnot load"}}'), "it did not load"),
        ((404, b"<html>"), "the agent answered 404"),
    ],
)
def test_what_agents_answer(monkeypatch, answer, why):
    """In conflict with its state now the loop asks it again; else its own words, made safe, say why."""
    asked = []

    def request(*given, body, timeout_s):
        asked.append((given[:4], body))
        return answer

    monkeypatch.setattr(shape_orders, "request_agent", request)
    if why:
        with pytest.raises(ProtocolError, match=why):
            shape_orders.tell_shape("10.0.0.1", 9200, Shape(2, 1, 8), None)
    else:
        shape_orders.tell_shape("10.0.0.1", 9200, Shape(2, 1, 8), None)
    body = b'{"workers": 2, "threads": 1, "batch_size": 8}'
    assert asked == [(("POST", "/shape", "10.0.0.1", 9200), body)]


def test_many_rows_change_in_one_look(stage, django_assert_max_num_queries):
    """However many agents are to be of another shape, profiles and rows are read once."""
    first = deployed(stage)
    for number in range(20):
        Agent.objects.create(
            id=f"more-{number}", deployment=first.deployment, revision=first.revision, node=first.node,
            host="127.0.0.1", port=9700 + number, profile=first.profile,
        )  # fmt: skip
    before = AgentRows().read({})
    after = [replace(one, shape=Shape(2, 1, 8), threads=2, stretched=True) for one in before]
    with django_assert_max_num_queries(len(before) + 2):
        write_agents(before, after, None)
    assert all(one.profile["workers"] == 2 for one in Agent.objects.all())


def test_an_agent_that_is_gone_ends_no_tick(stage):
    """Its node was retired by force since the loop looked: the others are written all the same."""
    deployed(stage)
    before = AgentRows().read({})
    Agent.objects.all().delete()
    write_agents(before, [replace(one, shape=Shape(2, 1, 8), threads=2) for one in before], None)


@pytest.mark.usefixtures("stage")
def test_a_host_that_does_not_answer_keeps_no_order_waiting(monkeypatch):
    """Loading may take minutes, a connection may not: others wait for their turn, and count as in hand."""
    monkeypatch.setattr(ask, "CONNECT_S", 0.05)
    files = client_files(settings.ENVIRONMENT, "control")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        with pytest.raises(OSError, match="timed out"):
            shape_orders.tell_shape("127.0.0.1", mute.getsockname()[1], Shape(2, 1, 8), files)
    assert time.monotonic() - began < shape_orders.TELL_S / 2

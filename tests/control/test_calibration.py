"""The loop keeps profiles: learned, measured where others carry the load, used by what starts."""

import datetime as dt
import json
import threading
import time
from dataclasses import replace

import msgspec
import pytest
from control_builders import DIGEST, HARDWARE, START, Stage, add_model
from django.conf import settings
from fleet_builders import agent_report, deployment_report, gateway_report

from agents.protocol import ProtocolError
from appliance.control.calibration import ORDER_LASTS_S
from appliance.control.measure import Measurer, parse_measured
from appliance.deployments import deploy, undeploy
from appliance.errors import VerbError
from appliance.models import Agent, AuditEvent, Node, Profile, RemoteStep, RouteState
from appliance.nodes import calibrate_node
from appliance.policies.profiles import EVIDENCE
from appliance.policies.report import SpeedReport
from appliance.policies.snapshot import Generation, RouteSnapshot
from appliance.profiles import engine_version

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])

SPEED = SpeedReport(
    "ctranslate2", engine_version("ctranslate2"), 2, 1, 8, EVIDENCE, 0.002, 0.0001, 150.0, 5000.0
)


def start_agents(stage: Stage, count: int, *, ready_for_s: float = 20.0) -> list[Agent]:
    """A deployment with so many agents that have been ready for a while."""
    add_model()
    deploy("mini", model="tiny", min_agents=count, max_agents=count, actor="test")
    for _ in range(3):
        stage.tick()
    stage.now += ready_for_s
    return stage.agents()


def tick_with(
    stage: Stage, *, speed: SpeedReport | None = None, busy: float = 5.0, loading=(), **load
) -> None:
    """One tick after a report in which agents tell their speed and how busy their node is."""
    stage.now += 1.0
    route = RouteState.objects.get()
    report = gateway_report(
        *(
            agent_report(
                agent, "loading" if agent in loading else "ready", node_cpu_percent=busy, speed=speed
            )
            for agent in stage.node.alive
        ),
        deployments=[deployment_report("mini", **load)], at=stage.now, started_at=START,
    )  # fmt: skip
    generation = Generation(route.epoch, route.number)
    stage.board.hear("gateway-1", replace(report, generation=generation), stage.now)
    stage.loop.tick("tick", stage.now)


def routes() -> RouteSnapshot:
    return msgspec.json.decode(settings.ENVIRONMENT.routes_file.read_bytes(), type=RouteSnapshot)


def test_learned_speed_is_stored_shown_and_published(stage):
    """What an agent says of its batches becomes the profile of its kind of box, and reaches gateways."""
    (agent,) = start_agents(stage, 1)
    tick_with(stage, speed=replace(SPEED, batches=EVIDENCE - 1))
    assert not Profile.objects.exists()
    stage.now += 5
    tick_with(stage, speed=SPEED)
    row = Profile.objects.get()
    assert (row.digest, row.cores, row.source, row.capacity_rps) == (DIGEST, 2, "learned", 150.0)
    assert row.measured_at.timestamp() == stage.now
    agent.refresh_from_db()
    assert (agent.profile["source"], agent.capacity_rps) == ("learned", 150.0)
    (route,) = routes().agents
    assert (route.fixed_s, route.per_token_s, route.capacity_rps) == (0.002, 0.0001, 150.0)
    assert stage.measurer.begun == []


def test_what_an_agent_was_not_started_with_is_not_learned(stage):
    """A node cannot make others start with what it says."""
    start_agents(stage, 1)
    tick_with(stage, speed=replace(SPEED, workers=100_000))
    assert not Profile.objects.exists()


def test_what_another_engine_does_is_not_learned(stage):
    """A node that is not upgraded yet says nothing of the engine that comes with the release."""
    start_agents(stage, 1)
    tick_with(stage, speed=replace(SPEED, engine_version="0.1"))
    assert not Profile.objects.exists()


def test_two_agents_share_a_box(stage):
    """The sum of what agents of a box are said to do is never more than the box does."""
    start_agents(stage, 2)
    tick_with(stage, speed=SPEED, busy=90.0)
    assert Profile.objects.get().capacity_rps == 300.0
    assert [route.capacity_rps for route in routes().agents] == [150.0, 150.0]


@pytest.mark.slow
def test_one_agent_measures_its_box_and_the_next_starts_with_it(stage):
    """With another one ready and a quiet box an agent is measured; that it is away is no fault of it."""
    agents = start_agents(stage, 2)
    tick_with(stage, busy=90.0)
    assert stage.measurer.begun == []
    stage.now += 5
    tick_with(stage)
    assert stage.measurer.begun == [agents[0].id]
    stage.now += 30
    for _ in range(3):
        tick_with(stage, loading=[agents[0].id])
    assert not stage.node.did("kill", "stop")
    stage.measurer.end()
    tick_with(stage)
    row = Profile.objects.get()
    assert (row.workers, row.threads, row.batch_size, row.source) == (1, 2, 16, "measured")
    assert RemoteStep.objects.get().step == "measure mini"
    stage.now += 10
    tick_with(stage)
    assert len(stage.measurer.begun) == 1
    Agent.objects.filter(pk=agents[1].id).update(wanted="stopped")
    stage.node.end(agents[1].id)
    for _ in range(4):
        tick_with(stage)
    new = Agent.objects.exclude(pk__in=[one.id for one in agents]).get()
    assert (new.profile["workers"], new.profile["threads"], new.profile["batch_size"]) == (1, 2, 16)
    assert stage.node.configs[new.id]["batch_size"] == 16


@pytest.mark.slow
def test_after_a_long_measurement_there_is_time_to_load(stage):
    """Its time to be ready begins when the measurement is over, however long that took."""
    agents = start_agents(stage, 2)
    tick_with(stage)
    assert stage.measurer.begun == [agents[0].id]
    for _ in range(15):
        tick_with(stage, loading=[agents[0].id])
    stage.measurer.end()
    for _ in range(3):
        tick_with(stage, loading=[agents[0].id])
    assert not stage.node.did("kill", "stop")
    agents[0].refresh_from_db()
    assert (agents[0].attempt, agents[0].error) == (0, "")


@pytest.mark.slow
def test_agent_that_starts_again_takes_the_profile(stage):
    """A restart brings new files where the profile is another by now."""
    (agent,) = start_agents(stage, 1)
    key = {"digest": DIGEST, "cores": 2, "engine": "ctranslate2"}
    tick_with(stage, speed=SPEED)
    Profile.objects.filter(**key).update(batch_size=4)
    stage.node.end(agent.id)
    tick_with(stage)
    tick_with(stage)
    agent.refresh_from_db()
    assert (agent.profile["batch_size"], stage.node.configs[agent.id]["batch_size"]) == (4, 4)
    assert routes().agents[0].slots == 8


def test_ordered_measurement(stage):
    """An order is carried out on a busy box too, and is over once every model there is measured."""
    agents = start_agents(stage, 2)
    calibrate_node("local", actor="test")
    calibrate_node("local", actor="test")
    tick_with(stage, busy=100.0, in_flight=3)
    assert stage.measurer.begun == [agents[0].id]
    stage.measurer.end()
    tick_with(stage, busy=100.0)
    tick_with(stage, busy=100.0)
    node = Node.objects.get()
    assert (node.calibration_at, node.calibration_error) == (None, "")
    assert [event.verb for event in AuditEvent.objects.filter(verb="calibrate_node")] == ["calibrate_node"]
    assert len(stage.measurer.begun) == 1


def test_order_ends_with_the_agents(stage):
    """Where none is left an order does not wait for the next one: starts never measure."""
    start_agents(stage, 1)
    calibrate_node("local", actor="test")
    undeploy("mini", actor="test")
    for _ in range(2):
        tick_with(stage, in_flight=1)
    node = Node.objects.get()
    assert (node.calibration_at, node.calibration_error) == (None, "no agent is left there to measure")
    assert stage.measurer.begun == []


def test_a_box_cannot_have_others_start_with_nonsense(stage):
    """More engine threads than its cores can carry are no measurement."""
    start_agents(stage, 2)
    tick_with(stage)
    stage.measurer.end(workers=9)
    tick_with(stage)
    assert not Profile.objects.exists()
    assert RemoteStep.objects.get().detail == "9 x 2 threads are no profile of 2 cores"


def test_ordered_measurement_that_fails_is_told(stage):
    """It is over, and the node's row says why."""
    start_agents(stage, 2)
    calibrate_node("local", actor="test")
    tick_with(stage)
    stage.measurer.end(error="the model was not loaded")
    tick_with(stage)
    node = Node.objects.get()
    assert (node.calibration_at, node.calibration_error) == (None, "the model was not loaded")
    assert RemoteStep.objects.get().outcome == "failed"


def order(stage: Stage) -> tuple[Node, dt.datetime]:
    """Have node `local` measured, ordered now by the stage's clock."""
    calibrate_node("local", actor="test")
    at = dt.datetime.fromtimestamp(stage.now, dt.UTC)
    Node.objects.update(calibration_at=at)
    return Node.objects.get(), at


def test_alone_under_load_it_waits(stage):
    """Without another agent an ordered measurement waits for a moment without requests."""
    start_agents(stage, 1)
    order(stage)
    tick_with(stage, in_flight=1)
    assert stage.measurer.begun == []
    tick_with(stage)
    assert len(stage.measurer.begun) == 1


def test_an_order_without_a_turn_is_called_off(stage):
    """Where requests never stop and nobody else can carry them, the order ends after a while and says why."""
    start_agents(stage, 1)
    node, ordered_at = order(stage)
    stage.now += ORDER_LASTS_S - 5
    tick_with(stage, in_flight=1)
    node.refresh_from_db()
    assert node.calibration_at == ordered_at
    stage.now += 5
    tick_with(stage, in_flight=1)
    node.refresh_from_db()
    assert node.calibration_at is None
    assert node.calibration_error.startswith("called off after 15 minutes: no other agent can carry")
    assert stage.measurer.begun == []


def test_order_needs_an_agent(stage):
    """A node without a ready agent is refused in one line."""
    Node.objects.create(name="box-1", address="box-1", hardware=HARDWARE)
    with pytest.raises(VerbError, match="'box-1' has no ready agent"):
        calibrate_node("box-1", actor="test")
    with pytest.raises(VerbError, match="no node is named 'x'"):
        calibrate_node("x", actor="test")


GOOD = {
    "workers": 2, "threads": 1, "batch_size": 8, "capacity_rps": 100, "default_rps": 90.0,
    "tokens_per_s": 3200.0, "fixed_s": 0.001, "per_token_s": 0.0001,
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": 0}, {"workers": 10**6}, {"threads": "1"}, {"batch_size": True}, {"capacity_rps": 0},
        {"capacity_rps": -1}, {"fixed_s": float("nan")}, {"per_token_s": float("inf")},
        {"tokens_per_s": None}, {"fixed_s": 0, "per_token_s": 0},
        {"workers": 256, "batch_size": 1024}, {"capacity_rps": 1e-300}, {"fixed_s": 3601},
        pytest.param({"tokens_per_s": 10**400}, id="beyond floats"),
        {"full_batch_size": -1}, {"full_batch_size": 1025}, {"full_rps": "fast"},
    ],
    ids=str,
)  # fmt: skip
def test_what_an_agent_says_is_checked(changes):
    """Figures that are none are refused, whatever they are; some an older agent does not have."""
    older = parse_measured(json.dumps(GOOD).encode())
    assert (older.workers, older.full_batch_size, older.full_rps) == (2, 0, 0.0)
    newer = parse_measured(json.dumps(GOOD | {"full_batch_size": 64, "full_rps": 140}).encode())
    assert (newer.full_batch_size, newer.full_rps) == (64, 140.0)
    with pytest.raises(ProtocolError):
        parse_measured(json.dumps(GOOD | changes).encode())


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b"7", pytest.param(b"[" * 60_000, id="deep")])
def test_an_answer_that_is_none(body):
    """An answer of another shape is refused."""
    with pytest.raises(ProtocolError):
        parse_measured(body)


def test_an_answer_without_end_is_given_up():
    """An agent that dribbles holds up nobody for ever, and what it says in the end does not count."""
    go_on = threading.Event()
    measurer = Measurer(lambda _host, _port: go_on.wait(30), longest_s=0.0)
    measurer.begin("a", "h", 1)
    deadline = time.monotonic() + 30
    while (outcome := measurer.take_outcome()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert outcome is not None
    assert (outcome.measured, outcome.error, measurer.under_way) == (None, "no whole answer within 0 s", None)
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "measure":
            thread.join(30)
    assert measurer.take_outcome() is None


def test_measurer_has_one_at_a_time():
    """A second agent is not begun until the outcome of the first was taken; errors are outcomes."""
    asked = []

    def fetch(host, port):
        asked.append(port)
        raise ConnectionRefusedError("nobody there")

    measurer = Measurer(fetch)
    measurer.begin("a", "h", 1)
    measurer.begin("b", "h", 2)
    deadline = time.monotonic() + 30
    while (outcome := measurer.take_outcome()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert outcome is not None
    assert (outcome.agent, outcome.measured, outcome.error) == ("a", None, "nobody there")
    assert (asked, measurer.under_way) == ([1], None)

"""The loop puts nodes to sleep and wakes them: by people's orders, by load, and when that fails."""

import shutil

import pytest
from control_builders import FakeLanes, Stage, add_model
from django.conf import settings
from remote_builders import PlayedNode

from appliance.control import lease
from appliance.control.node_seen import JobResult
from appliance.deployments import deploy, undeploy
from appliance.fleet import node_state
from appliance.models import Agent, AuditEvent, Deployment, Node, RemoteStep, Transfer
from appliance.nodes import cordon_node, retire_node, upgrade_nodes
from appliance.policies.power_steps import TRIES
from appliance.power import set_power, suspend_node, wake_node

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True, databases=["default", "history"])]
WOL = "wol:52:54:00:12:34:56"
GB = 10**9


class RestingLanes(FakeLanes):
    """Lanes of the nodes that the loop wants to reach, and of no others."""

    def lane(self, name):
        return super().lane(name) if name in {access.name for access in self.kept} else None


class Sleeper(PlayedNode):
    """A box that can be put to sleep: it ends the jobs `sleep` as it is told, and goes `away` with them."""

    def __init__(self, stage, name, **row):
        super().__init__(stage, name, **{"power": WOL, **row})
        self.says, self.goes = "", True

    def submit(self, name, work, *, agent="", on_end=None):
        if name == "sleep":
            on_end(JobResult(name, self.says, "steward_refused" if self.says else ""))
            self.away = self.goes and not self.says
        return super().submit(name, work, agent=agent, on_end=on_end)

    def wake(self):
        """The box answers again, with a lane that is new."""
        self.away, self.boot_id = False, "boot-2"

    @property
    def state(self):
        return node_state(self.fresh(), self.stage.now)


@pytest.fixture
def stage(transactional_db):
    stage = Stage(lanes=RestingLanes())
    yield stage
    stage.lane.close()
    settings.ENVIRONMENT.routes_file.unlink(missing_ok=True)
    shutil.rmtree(settings.ENVIRONMENT.agents_dir)
    settings.ENVIRONMENT.agents_dir.mkdir()


@pytest.fixture
def boxes(stage):
    """Two boxes; node `local` takes no agents. Nothing sleeps by itself soon."""
    stage.tick()
    cordon_node("local", actor="test")
    return [Sleeper(stage, name) for name in ("one", "two")]


def tick(stage, *nodes, times=1):
    for _ in range(times):
        alive = dict(stage.node.alive)
        for node in nodes:
            alive |= {} if node.away else node.alive
        stage.tick(seen=dict.fromkeys(alive, "ready"))


def pass_time(stage, nodes, seconds):
    """In ticks four seconds apart."""
    for _ in range(seconds // 4):
        stage.now += 3
        tick(stage, *nodes)


def tick_until(stage, nodes, condition, most=40):
    """In ticks four seconds apart."""
    for _ in range(most):
        if condition():
            return
        pass_time(stage, nodes, 4)
    pytest.fail("it did not come about")


def deploy_mini(**bounds):
    if not Deployment.objects.exists():
        add_model()
    deploy("mini", model="tiny", actor="test", **bounds)


def steps(node):
    return list(RemoteStep.objects.filter(node=node.row).order_by("id").values_list("step", flat=True))


def test_an_order_puts_it_to_sleep_and_wakes_it(stage, boxes):
    """Its agent leaves for the other box first; asleep it is not reached and no problem; then it is back."""
    one, two = boxes
    deploy_mini(min_agents=1, max_agents=1)
    tick(stage, one, two, times=2)
    name = stage.agent().node.name
    node, other = (one, two) if name == "one" else (two, one)
    suspend_node(name, actor="test")
    tick_until(stage, boxes, lambda: "sleep" in node.jobs)
    assert {agent.node.name for agent in stage.agents()} == {other.name}
    assert stage.agent().state == "ready"
    tick(stage, *boxes)
    assert node.state == "draining"
    tick_until(stage, boxes, lambda: node.state == "asleep")
    pass_time(stage, boxes, 15)
    assert (node.state, node.codes) == ("asleep", [])
    assert name not in {access.name for access in stage.lanes.kept}
    wake_node(name, actor="test")
    tick(stage, *boxes)
    assert (node.state, stage.switch.sent) == ("waking", [f"{name}.test"])
    pass_time(stage, boxes, 15)
    assert (node.state, node.codes) == ("waking", [])
    node.wake()
    tick(stage, *boxes, times=2)
    assert (node.state, node.fresh().power_wanted) == ("ready", "")
    assert steps(node)[-2:] == ["ordered awake", "awake"]


def test_idle_boxes_sleep_and_load_wakes_them(stage, boxes):
    """All but the headroom sleeps; a second agent takes the last empty box, and another is woken."""
    set_power({"sleep_after_s": 20, "stay_awake_s": 0}, "test")
    more = [*boxes, Sleeper(stage, "three")]
    tick_until(stage, more, lambda: sum(box.state == "asleep" for box in more) == 2)
    pass_time(stage, more, 40)
    assert sum(box.state == "ready" for box in more) == 1
    deploy_mini(min_agents=1, max_agents=1)
    tick_until(stage, more, lambda: any(box.state == "waking" for box in more))
    (awake,) = [box for box in more if box.state == "ready"]
    assert stage.agent().node.name == awake.name
    (coming,) = [box for box in more if box.state == "waking"]
    assert steps(coming)[-1] == "woken: headroom is below 1 empty node"
    event = AuditEvent.objects.filter(verb="wake_node").last()
    assert (event.actor, event.target) == ("autoscaler", coming.name)


def test_an_agent_without_room_wakes_a_box(stage, boxes):
    """The refusal names the box that is woken, and the agent goes there once it is back."""
    set_power({"sleep_after_s": 0, "headroom_nodes": 0}, "test")
    for box in boxes:
        suspend_node(box.name, actor="test")
    tick_until(stage, boxes, lambda: {box.state for box in boxes} == {"asleep"})
    deploy_mini(min_agents=1, max_agents=1)
    tick(stage, *boxes)
    assert "one is asleep; two is asleep" in Deployment.objects.get().problem
    tick(stage, *boxes, times=2)
    assert (boxes[0].state, boxes[1].state) == ("waking", "asleep")
    assert "one is being woken" in Deployment.objects.get().problem
    boxes[0].wake()
    tick(stage, *boxes, times=3)
    assert (stage.agent().node.name, stage.agent().state) == ("one", "ready")
    assert boxes[1].state == "asleep"
    assert steps(boxes[0])[-2:] == ["woken: an agent found no room", "awake"]


def test_a_box_that_does_not_come_back(stage, boxes):
    """Three tries, then a problem; the other box is tried meanwhile, and none of it goes on for ever."""
    set_power({"sleep_after_s": 0, "headroom_nodes": 0, "wake_timeout_s": 10}, "test")
    for box in boxes:
        suspend_node(box.name, actor="test")
    tick_until(stage, boxes, lambda: {box.state for box in boxes} == {"asleep"})
    deploy_mini(min_agents=1, max_agents=1)
    tick_until(stage, boxes, lambda: boxes[1].state == "waking")
    boxes[1].wake()
    tick_until(stage, boxes, lambda: boxes[0].codes == ["did_not_wake"])
    assert boxes[0].state == "unreachable"
    assert boxes[0].fresh().problems[0]["message"] == (
        f"does not wake: it did not answer within 10 s, {TRIES} times"
    )
    sent = len(stage.switch.sent)
    pass_time(stage, boxes, 60)
    assert (len(stage.switch.sent), boxes[0].codes) == (sent, ["did_not_wake"])
    assert stage.switch.sent.count("one.test") == TRIES
    assert stage.agent().node.name == "two"
    boxes[0].wake()
    tick(stage, *boxes, times=2)
    assert (boxes[0].state, boxes[0].codes) == ("ready", [])


def test_a_message_that_cannot_be_sent(stage, boxes):
    """What keeps it from being sent for is the problem's text."""
    one, _ = boxes
    suspend_node("one", actor="test")
    tick_until(stage, boxes, lambda: one.state == "asleep")
    stage.switch.refuses = "there is no program 'bmc'"
    wake_node("one", actor="test")
    tick_until(stage, boxes, lambda: one.codes == ["did_not_wake"])
    assert one.fresh().problems[0]["message"] == "does not wake: there is no program 'bmc'"


@pytest.mark.parametrize(
    ("says", "told"),
    [("its kernel offers no suspend", "its kernel offers no suspend"), ("", "goes on answering after 60 s")],
    ids=["refuses", "goes-on"],
)
def test_a_box_that_does_not_sleep(stage, boxes, says, told):
    """It serves on with a problem that says why, and is left alone."""
    one, _ = boxes
    one.says, one.goes = says, False
    suspend_node("one", actor="test")
    tick_until(stage, boxes, lambda: one.codes == ["did_not_sleep"])
    assert told in one.fresh().problems[0]["message"]
    assert one.state == "ready"
    jobs = one.jobs.count("sleep")
    pass_time(stage, boxes, 30)
    assert one.jobs.count("sleep") == jobs


def test_what_keeps_a_box_awake(stage, boxes):
    """A transfer keeps an idle box awake; with its end it sleeps."""
    set_power({"sleep_after_s": 5, "headroom_nodes": 0}, "test")
    one, two = boxes
    transfer = Transfer.objects.create(node=one.row, kind="model", name="tiny", digest="d", total_bytes=1)
    tick_until(stage, boxes, lambda: two.state == "asleep")
    assert one.state == "ready"
    Transfer.objects.filter(pk=transfer.pk).update(state=Transfer.State.DONE)
    tick_until(stage, boxes, lambda: one.state == "asleep")


def test_an_operation_and_retiring_wake_it(stage, boxes):
    """What is to be done on the box needs it awake."""
    one, two = boxes
    for box in boxes:
        suspend_node(box.name, actor="test")
    tick_until(stage, boxes, lambda: {box.state for box in boxes} == {"asleep"})
    upgrade_nodes(["one"], actor="test")
    retire_node("two", actor="test")
    tick(stage, *boxes)
    assert sorted(stage.switch.sent) == ["one.test", "two.test"]
    for box in boxes:
        box.wake()
    tick(stage, *boxes, times=3)
    assert "retire" in two.jobs
    assert one.state in ("ready", "draining")


def test_a_killed_loop_goes_on(stage, boxes):
    """Another loop takes a waking box in hand where the first left it, and sends again in time."""
    set_power({"wake_timeout_s": 10}, "test")
    one, _ = boxes
    suspend_node("one", actor="test")
    tick_until(stage, boxes, lambda: one.state == "asleep")
    wake_node("one", actor="test")
    tick(stage, *boxes)
    lease.release(stage.loop.owner)
    following = Stage(owner="test:2:2", node=stage.node, lanes=stage.lanes)
    following.now = stage.now + 20
    for box in boxes:
        box.stage = following
    tick(following, *boxes)
    assert following.switch.sent == ["one.test"]
    assert one.fresh().power_tries == 2
    one.wake()
    tick(following, *boxes, times=2)
    assert one.state == "ready"
    following.lane.close()


def test_no_agent_is_placed_on_a_box_that_goes_to_sleep(stage, boxes):
    """From the moment it is to sleep nothing new comes there; load that comes keeps another awake."""
    one, _ = boxes
    cordon_node("two", actor="test")
    suspend_node("one", actor="test")
    tick(stage, *boxes)
    deploy_mini(min_agents=1, max_agents=1)
    tick(stage, *boxes)
    assert not Agent.objects.exists()
    assert "one goes to sleep" in Deployment.objects.get().problem
    undeploy("mini", actor="test")
    tick_until(stage, boxes, lambda: one.state == "asleep")
    assert Node.objects.get(name="two").wanted == "cordoned"

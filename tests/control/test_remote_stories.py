"""Stories of fleets, seeded, with all that can happen to them: what holds throughout, and in the end."""

import datetime as dt
import random
from contextlib import suppress
from types import SimpleNamespace

import pytest
from control_builders import Stage, add_model
from remote_builders import NEW
from story_boxes import StoryBox

from appliance import nodes
from appliance.deployments import deploy, undeploy
from appliance.errors import VerbError
from appliance.models import Agent, Deployment, Node
from appliance.nodes import cordon_node, drain_node, reboot_node, retire_node, uncordon_node, upgrade_nodes
from provisioning.bundle import Release

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True, databases=["default", "history"])]

LEAST, BOXES = 2, 4
PLANNED = (drain_node, reboot_node, "upgrade")
ORDERS = (*PLANNED, cordon_node, uncordon_node)


class Story:
    """A deployment of two agents on four played boxes."""

    def __init__(self, stage, seed, path):
        self.stage, self.chance = stage, random.Random(seed)
        path.write_bytes(b"x")
        stage.shelf.release = Release(NEW, path, 1)
        stage.tick()
        cordon_node("local", actor="test")
        self.boxes = [StoryBox(stage, f"box-{number}") for number in range(BOXES)]
        add_model()
        deploy("mini", model="tiny", min_agents=LEAST, max_agents=LEAST, actor="test")
        self.until(lambda: len(self.serving()) == LEAST, 30)

    def second(self):
        """One tick, in which gateways see what there is."""
        for box in self.boxes:
            box.play()
        wanted = dict(Agent.objects.values_list("id", "wanted"))
        alive = {agent: box for box in self.boxes if not box.away for agent in box.alive}
        told = {agent: "ready" if state == "warm" else "draining" for agent, state in wanted.items()}
        seen = {
            agent: told[agent] if agent in box.serving() else "connecting"
            for agent, box in alive.items() if agent in wanted
        }  # fmt: skip
        self.stage.tick(seen=seen)

    def until(self, condition, limit_s):
        """Go on until it holds. Fails where it does not in time."""
        for _ in range(limit_s):
            if condition():
                return
            self.second()
        agents = list(Agent.objects.values_list("id", "node__name", "wanted", "state"))
        assert condition(), (self.nodes(), agents)

    def serving(self):
        """Agents that get requests and answer them."""
        warm = set(Agent.objects.filter(wanted="warm").values_list("id", flat=True))
        return {agent for box in self.boxes for agent in box.serving()} & warm

    def nodes(self):
        """What is ordered of each node."""
        rows = Node.objects.exclude(name="local")
        return {row.name: (row.wanted, row.operation, row.operation_stage) for row in rows}

    def order(self, verb, box):
        """What people may ask for, and may be refused in words."""
        with suppress(VerbError):
            if verb == "upgrade":
                upgrade_nodes([box.name], actor="test")
            else:
                verb(box.name, actor="test")

    def break_something(self):
        """A box goes silent, restarts by itself, loses a process, or the worker is killed."""
        box = self.chance.choice([one for one in self.boxes if not one.is_bare])
        kind = self.chance.choice(("silence", "restart", "crash", "kill"))
        if kind == "silence":
            box.away, box.back_at = True, self.stage.now + self.chance.randint(1, 30)
        elif kind == "restart":
            box.restart()
        elif kind == "crash" and box.alive:
            box.alive.pop(self.chance.choice(sorted(box.alive)))
        else:
            self.kill_worker()

    def kill_worker(self):
        """Another process goes on with what rows and boxes say; what was queued or in memory is lost."""
        old = self.stage
        self.stage = Stage(node=old.node, lanes=old.lanes)
        self.stage.now, self.stage.shelf.release = old.now, old.shelf.release
        old.lane.close()
        for box in self.boxes:
            box.stage, box.queue, box.failures, box.results = self.stage, [], {}, []

    def is_settled(self):
        """Nothing is under way, and everybody who should serves."""
        over = all(not operation for _, operation, _ in self.nodes().values())
        return over and len(self.serving()) == LEAST == Agent.objects.count() == self.alive()

    def alive(self):
        """Processes on all boxes."""
        return sum(len(box.alive) for box in self.boxes)


@pytest.fixture
def tell(stage, tmp_path, monkeypatch):
    """Begin a story; orders are given at its own time."""
    stories = []

    def begin(seed):
        stories.append(Story(stage, seed, tmp_path / "release.tar.gz"))
        return stories[0]

    def now():
        return dt.datetime.fromtimestamp((stories[0].stage if stories else stage).now, dt.UTC)

    monkeypatch.setattr(nodes, "timezone", SimpleNamespace(now=now))
    yield begin
    stories[0].stage.lane.close()


@pytest.mark.parametrize("seed", range(1))
def test_orders_take_nobody_out_of_service(tell, seed):
    """One order at a time with room elsewhere: at every second as many agents serve as are wanted."""
    story = tell(seed)
    for _ in range(4):
        box, verb = story.chance.choice(story.boxes), story.chance.choice(PLANNED)
        story.order(verb, box)
        for _ in range(30):
            story.second()
            assert len(story.serving()) >= LEAST, (verb, box.name, story.nodes())
        assert story.is_settled(), (verb, box.name, story.nodes())
        story.order(uncordon_node, box)
    assert all(box.fresh().problems == [] for box in story.boxes)


@pytest.mark.parametrize("seed", range(2))
def test_everything_settles(tell, seed):
    """Whatever was ordered and broke: once boxes answer every order ends, and agents serve."""
    story = tell(seed)
    for _ in range(60):
        if story.chance.random() < 0.15:
            story.order(story.chance.choice(ORDERS), story.chance.choice(story.boxes))
        if story.chance.random() < 0.1:
            story.break_something()
        story.second()
    for box in story.boxes:
        story.order(uncordon_node, box)
    story.until(story.is_settled, 500)
    gone = story.chance.choice(story.boxes)
    gone.is_cut = True
    retire_node(gone.name, actor="test")
    story.until(lambda: gone.is_bare, 100)
    story.kill_worker()
    undeploy("mini", actor="test")
    story.until(lambda: not Deployment.objects.exists() and gone.fresh().retired_at is not None, 200)
    story.until(lambda: story.alive() == 0, 20)

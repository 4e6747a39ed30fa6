"""The loop with nodes over SSH: what it learns of them, brings to them, and does with people's orders."""

import datetime as dt
from types import SimpleNamespace

import pytest
from control_builders import add_model
from django.conf import settings
from remote_builders import NEW, OLD, PlayedNode

from appliance.control import node_orders
from appliance.deployments import deploy
from appliance.fleet import node_state
from appliance.models import Agent, Node, RemoteStep
from appliance.nodes import cordon_node, drain_node, reboot_node, retire_node, uncordon_node, upgrade_nodes
from provisioning.bundle import Release
from provisioning.errors import BundleError

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True, databases=["default", "history"])]


@pytest.fixture
def far(stage):
    """A node besides `local`, which takes no agents."""
    stage.tick()
    cordon_node("local", actor="test")
    return PlayedNode(stage, "far")


@pytest.fixture
def releases(stage, tmp_path):
    """The newest release, and its file."""
    path = tmp_path / "release.tar.gz"
    path.write_bytes(b"x")
    stage.shelf.release = Release(NEW, path, 1)
    return stage.shelf


def deploy_tiny(**bounds):
    add_model()
    deploy("mini", model="tiny", actor="test", **bounds)


def tick(stage, *nodes, times=1, trouble=()):
    """Ticks in which gateways see all that runs as ready, but for agents in trouble."""
    for _ in range(times):
        alive = {**stage.node.alive}
        for node in nodes:
            alive |= {} if node.away else node.alive
        stage.tick(seen={agent: "connecting" if agent in trouble else "ready" for agent in alive})


def test_agents_come_to_a_remote_node(stage, far):
    """An agent gets an address, a port and a certificate there, and is ready once gateways see it."""
    deploy_tiny()
    tick(stage, far)
    agent = stage.agent()
    assert (agent.node.name, agent.host, agent.port, agent.release_sha256) == ("far", "far.test", 9200, OLD)
    assert far.calls == [("install", agent.id), ("start", agent.id)]
    assert agent.certificates == [far.certificates[agent.id]]
    tick(stage, far)
    assert (stage.agent().state, stage.agent().pid) == ("ready", far.alive[agent.id])


def test_what_is_seen_of_a_node_is_kept(stage, far):
    """Boot, hardware, problems with their beginning; a problem goes with its cause."""
    tick(stage, far)
    assert stage.lanes.kept[0].host == "far.test"
    far.found = ("clock_off",)
    tick(stage, far)
    began = far.fresh().problems[0]["since"]
    tick(stage, far, times=3)
    assert far.fresh().problems == [
        {"code": "clock_off", "message": "it is clock_off", "remedy": "mend it", "since": began}
    ]
    assert node_state(far.fresh(), stage.now) == "ready"
    far.found = ()
    tick(stage, far)
    assert far.fresh().problems == []


def test_a_node_with_a_full_disk_takes_no_agents(stage, far):
    """What cannot work is not tried; the deployment says why, and goes on when the cause is gone."""
    far.found = ("disk_full",)
    tick(stage, far)
    deploy_tiny()
    tick(stage, far, times=2)
    assert stage.agents() == []
    far.found = ()
    tick(stage, far, times=2)
    assert stage.agent().node.name == "far"


def test_an_agent_that_cannot_be_brought(stage, far):
    """A failed job is a failed run: its line stands at the agent, and it is tried again."""
    deploy_tiny()
    tick(stage, far)
    agent = stage.agent()
    far.alive.clear()
    far.coming = {agent.id}
    tick(stage, far, times=3)
    assert (stage.agent().attempt, stage.agent().error) == (0, "")
    far.coming, far.failures = set(), {agent.id: "the disk is full; make room"}
    tick(stage, far)
    assert (stage.agent().error, stage.agent().attempt) == ("the disk is full; make room", 1)
    assert far.calls[-1] == ("start", agent.id)


def test_reboot(stage, far):
    """Agents leave service, end, the box restarts, and the same agents serve there again."""
    deploy_tiny()
    tick(stage, far, times=2)
    reboot_node("far", actor="test")
    for _ in range(6):
        tick(stage, far)
        if "reboot" in far.jobs:
            break
    assert far.alive == {}
    assert (far.fresh().operation_stage, node_state(far.fresh(), stage.now)) == ("rebooting", "draining")
    assert stage.agent().wanted == "resting"
    far.ended("reboot")
    far.away = True
    tick(stage, far, times=20)
    assert node_state(far.fresh(), stage.now) == "unreachable"
    far.away = False
    far.reboot()
    tick(stage, far, times=3)
    assert (far.fresh().operation, far.fresh().boot_id) == ("", "boot-2")
    assert (stage.agent().wanted, stage.agent().state) == ("warm", "ready")
    assert far.jobs.count("reboot") == 1
    words = list(RemoteStep.objects.filter(node=far.row).values_list("step", flat=True))
    assert words == ["agents leave service for a reboot", "reboot", "reboot", "rebooted"]


def test_upgrade_one_by_one(stage, far, releases):
    """The release is brought while agents serve, each node takes it in turn, and agents run it."""
    second = PlayedNode(stage, "second")
    deploy_tiny(min_agents=2, max_agents=2)
    tick(stage, far, second, times=2)
    upgrade_nodes(None, actor="test")
    at_once = 0
    for _ in range(30):
        tick(stage, far, second)
        for node in (far, second):
            for job in [job for job in node.jobs if job.startswith("release:")]:
                node.jobs.remove(job)
                node.ended(job)
        at_once = max(at_once, Node.objects.exclude(operation_stage="").count())
    assert at_once == 1
    assert {node.fresh().release_sha256 for node in (far, second)} == {NEW}
    assert {node.fresh().operation for node in (far, second)} == {""}
    agents = Agent.objects.filter(wanted="warm")
    assert sorted(agents.values_list("release_sha256", "state")) == [(NEW, "ready")] * 2


def test_a_bad_release_stops_at_the_canary(stage, far, releases):
    """Its agents do not come up: it goes back to what it had and says so; the others never begin."""
    second = PlayedNode(stage, "second")
    deploy_tiny(min_agents=2, max_agents=2)
    tick(stage, far, second, times=2)
    upgrade_nodes(None, actor="test")
    for _ in range(40):
        bad = {
            agent.id for agent in stage.agents()
            if agent.release_sha256 == NEW and agent.id in far.alive | second.alive
        }  # fmt: skip
        for node in (far, second):
            node.alive = {agent: pid for agent, pid in node.alive.items() if agent not in bad}
        tick(stage, far, second)
        for node in (far, second):
            for job in [job for job in node.jobs if job.startswith("release:")]:
                node.jobs.remove(job)
                node.ended(job)
    assert {node.fresh().release_sha256 for node in (far, second)} == {OLD}
    assert {node.fresh().operation for node in (far, second)} == {""}
    assert sorted(far.codes + second.codes) == ["upgrade_failed"]
    agents = Agent.objects.filter(wanted="warm")
    assert sorted(agents.values_list("release_sha256", "state")) == [(OLD, "ready")] * 2


def test_a_release_that_cannot_be_built(stage, far):
    """The upgrade ends at once with the builder's line as a problem."""
    upgrade_nodes(["far"], actor="test")
    stage.shelf.release = BundleError("no wheel for it")
    tick(stage, far)
    assert (far.fresh().operation, far.codes) == ("", ["upgrade_failed"])
    assert "no wheel for it" in far.fresh().problems[0]["message"]


def test_a_delivery_that_fails_again_and_again(stage, far, releases):
    """It is tried five times, then the upgrade is called off."""
    upgrade_nodes(["far"], actor="test")
    for _ in range(12):
        tick(stage, far)
        if not far.fresh().operation:
            break
        far.ended(f"release:{NEW}", "the disk is full")
    assert "the disk is full" in far.fresh().problems[0]["message"]
    assert RemoteStep.objects.filter(node=far.row, outcome="failed").count() >= 5


def test_a_node_that_is_away_fails_no_delivery(stage, far, releases):
    """What does not get there since the box restarts is tried again once it is back."""
    upgrade_nodes(["far"], actor="test")
    far.found = ("unreachable",)
    for _ in range(8):
        far.ended(f"release:{NEW}", "it cannot be reached")
        tick(stage, far)
    assert (far.fresh().operation, far.codes) == ("upgrade", ["unreachable"])


def test_a_late_reboot_ends_no_other_boot(stage, far):
    """An order that a lane comes to after the box has restarted by itself is left."""
    works, asked = [], []
    far.submit = lambda name, work, **given: works.append(work)
    reboot_node("far", actor="test")
    tick(stage, far, times=2)
    for boot in ("boot-2", "boot-1"):
        client = SimpleNamespace(ask=lambda verb, boot=boot: asked.append(verb) or {"boot_id": boot})
        works[-1](None, client)
    assert asked == ["hello", "hello", "reboot"]


def test_an_agent_for_a_node_that_is_retired_by_force(stage, far):
    """A node that goes while a tick is under way gets no agent; another does in the next."""
    second = PlayedNode(stage, "second")
    deploy_tiny()
    install = {node.name: node.install for node in (far, second)}

    def and_retire(spec, now):
        name = spec.host.partition(".")[0]
        if not Node.objects.filter(retired_at__isnull=False).exists():
            retire_node(name, force=True, actor="test")
        return install[name](spec, now)

    far.install = second.install = and_retire
    tick(stage, far, second)
    assert stage.agents() == []
    tick(stage, far, second)
    assert stage.agent().node.retired_at is None


def test_drain_and_back(stage, far):
    """A drained node is empty; uncordoned it takes agents again."""
    second = PlayedNode(stage, "second")
    deploy_tiny()
    tick(stage, far, second, times=2)
    home = {"far": far, "second": second}[stage.agent().node.name]
    drain_node(home.name, actor="test")
    tick(stage, far, second, times=8)
    assert home.alive == {}
    assert stage.agent().node.name != home.name
    assert node_state(home.fresh(), stage.now) == "draining"
    uncordon_node(home.name, actor="test")
    assert node_state(home.fresh(), stage.now) == "ready"


def test_retire(stage, far):
    """Agents leave, the box is cleaned, the row is kept and its lane ends."""
    deploy_tiny()
    tick(stage, far, times=2)
    retire_node("far", actor="test")
    tick(stage, far, times=8)
    assert stage.agents() == []
    assert "retire" in far.jobs
    assert node_state(far.fresh(), stage.now) == "retired"
    far.ended("retire")
    tick(stage, far)
    assert far.fresh().retired_at is not None
    tick(stage, far)
    assert [access.name for access in stage.lanes.kept] == []


def test_an_unreachable_node_is_made_up_for(stage, far):
    """After ten seconds its agents are replaced elsewhere; when it is back the newcomer leaves."""
    second = PlayedNode(stage, "second")
    deploy_tiny()
    tick(stage, far, second, times=2)
    first = stage.agent()
    home = {"far": far, "second": second}[first.node.name]
    home.away = True
    tick(stage, far, second, times=5)
    assert len(stage.agents()) == 1
    tick(stage, far, second, times=8)
    assert {agent.node.name for agent in stage.agents()} == {"far", "second"}
    home.away = False
    tick(stage, far, second, times=8)
    assert [agent.id for agent in stage.agents()] == [first.id]


def test_a_worker_that_was_away_takes_no_node_for_lost(stage, far):
    """Nodes that were last seen long ago have ten seconds to answer a new worker."""
    second = PlayedNode(stage, "second")
    deploy_tiny()
    tick(stage, far, second, times=2)
    first = stage.agent()
    for node in (far, second):
        node.away, node.met = True, False
    stage.loop._outside.nodes._hands.clear()  # as in another process
    stage.now += 3600
    tick(stage, far, second, times=9)
    assert [agent.id for agent in stage.agents()] == [first.id]
    tick(stage, far, second, times=3)
    assert stage.agent().away_at is not None


def test_one_node_that_breaks_the_look_ends_no_tick(stage, far, monkeypatch):
    """Whatever a node says, the others are looked after."""
    second = PlayedNode(stage, "second")
    monkeypatch.setattr(far, "problems", lambda: 1 / 0)
    deploy_tiny()
    tick(stage, far, second, times=2)
    assert (stage.agent().node.name, stage.agent().state) == ("second", "ready")


def test_a_certificate_that_ran_out_while_asleep(stage, far):
    """An agent that is started again late gets a new certificate first."""
    deploy_tiny()
    tick(stage, far, times=2)
    agent = stage.agent()
    Agent.objects.update(certificate_expires_at=dt.datetime.fromtimestamp(stage.now, dt.UTC))
    far.alive.clear()
    tick(stage, far)
    assert far.calls[-2:] == [("install", agent.id), ("start", agent.id)]
    assert stage.agent().certificates != agent.certificates


def test_pruning_keeps_what_is_used(stage, far, monkeypatch):
    """Nodes are told what to keep; nothing is pruned while an order is under way."""
    kept = []
    monkeypatch.setattr(node_orders, "_prune", lambda releases, models: kept.append((releases, models)))
    deploy_tiny()
    tick(stage, far)
    stage.loop._prune_at = float("-inf")
    tick(stage, far)
    assert kept[-1] == ([OLD], [stage.agent().revision.digest])
    reboot_node("far", actor="test")
    kept.clear()
    stage.loop._prune_at = float("-inf")
    tick(stage, far)
    assert kept == []
    assert settings.ENVIRONMENT.home.is_dir()

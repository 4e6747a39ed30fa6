"""The loop on a scripted node: what a tick writes, does and publishes."""

import datetime as dt
import threading

import msgspec
import pytest
from control_builders import DIGEST, START, Stage, add_model
from django.conf import settings
from django.db import transaction

from appliance.control import lease
from appliance.deployments import deploy, undeploy
from appliance.models import Agent, Decision, Deployment, Lease, MetricPoint, Node, Revision
from appliance.policies.snapshot import RouteSnapshot
from appliance.publish import touch_routes

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])


def published():
    return msgspec.json.decode(settings.ENVIRONMENT.routes_file.read_bytes(), type=RouteSnapshot)


def deploy_tiny(**bounds):
    add_model()
    deploy("mini", model="tiny", actor="test", **bounds)


def test_first_tick_brings_an_agent(stage):
    """One tick writes the node, creates the agent's row and files, publishes it and starts it."""
    deploy_tiny()
    stage.tick("start")
    agent = stage.agent()
    node = Node.objects.get(name="local")
    assert (node.cores, node.ram_bytes, node.seen_at.timestamp()) == (2, 16 * 10**9, START + 1)
    assert stage.node.calls == [("install", agent.id), ("start", agent.id)]
    assert (agent.wanted, agent.state, agent.pid) == ("warm", "starting", stage.node.alive[agent.id].pid)
    (route,) = published().agents
    assert (route.id, route.port, route.certificates) == (
        agent.id,
        agent.port,
        (agent.certificate_sha256,),
    )
    assert (route.slots, route.ahead, route.wanted) == (16, 8, "warm")
    (decision,) = Decision.objects.all()
    assert (decision.before, decision.after, decision.trigger) == (0, 1, "start")
    assert decision.actions == ["create an agent on local"]


def test_configuration_is_complete(stage):
    """The agent is told all that its program asks for; what the revision sets goes on top."""
    deploy_tiny()
    Revision.objects.update(settings={"fake_service_ms": 5})
    stage.tick()
    agent = stage.agent()
    assert stage.node.configs[agent.id] == {
        "agent": agent.id, "deployment": "mini", "revision": "mini-1", "task": "embed",
        "engine": "ctranslate2",
        "model_dir": str(settings.ENVIRONMENT.models_dir / DIGEST), "host": "127.0.0.1", "port": agent.port,
        "workers": 2, "threads": 1, "batch_size": 8, "admits": 24, "fake_service_ms": 5,
    }  # fmt: skip


def test_ready_agent_proves_its_revision(stage):
    """The row follows what gateways see, and nothing more is done once all is as wanted."""
    deploy_tiny()
    stage.tick()
    stage.tick()
    assert stage.agent().state == "ready"
    assert Revision.objects.get().proven_at is not None
    count, calls = Decision.objects.count(), list(stage.node.calls)
    for _ in range(5):
        stage.tick()
    assert (Decision.objects.count(), stage.node.calls) == (count, calls)


def test_killed_agent_comes_back_in_the_same_tick(stage):
    """A `want` finds the process gone: same agent, same port, started at once; routes stay as they are."""
    deploy_tiny()
    stage.tick()
    stage.tick()
    before, number = stage.agent(), published().generation
    stage.node.end(before.id)
    stage.tick("want", seen={before.id: "connecting"})
    after = stage.agent()
    assert stage.node.calls[-1] == ("start", before.id)
    assert (after.id, after.port) == (before.id, before.port)
    assert after.certificate_sha256 == before.certificate_sha256
    assert after.pid == stage.node.alive[before.id].pid
    assert published().generation == number
    newest = Decision.objects.first()
    assert newest.trigger == "want"
    assert newest.actions == [f"restart {before.id}: the process was ended by signal 9"]
    assert newest.reason.startswith(f"restart {before.id}: the process was ended by signal 9; ")


def test_taken_port_is_exchanged(stage):
    """Exit code 4: files and routes name another port before the next start."""
    deploy_tiny()
    stage.tick()
    before = stage.agent()
    stage.node.end(before.id, 4)
    stage.tick()
    after = stage.agent()
    assert after.port != before.port
    assert stage.node.configs[before.id]["port"] == after.port
    (route,) = published().agents
    assert (route.port, route.certificates) == (after.port, (after.certificate_sha256,))


def test_lost_files_are_installed_again(stage):
    """Where an agent's directory is gone a restart makes it anew, with a certificate that is published."""
    deploy_tiny()
    stage.tick()
    agent = stage.agent()
    stage.node.end(agent.id)
    (settings.ENVIRONMENT.agents_dir / agent.id / "cert.pem").unlink()
    stage.tick()
    assert stage.node.did("install") == [("install", agent.id)] * 2
    (route,) = published().agents
    assert route.certificates == tuple(stage.agent().certificates) != tuple(agent.certificates)


def test_agent_of_another_authority_is_installed_anew(stage):
    """After the appliance's authority was lost and made anew, an agent's old files would open to nobody."""
    deploy_tiny()
    stage.tick()
    agent = stage.agent()
    (settings.ENVIRONMENT.agents_dir / agent.id / "ca.pem").write_bytes(b"an older authority")
    stage.node.end(agent.id)
    stage.tick()
    stage.tick()
    (route,) = published().agents
    assert route.certificates == tuple(stage.agent().certificates) != tuple(agent.certificates)


@pytest.mark.slow
def test_failing_start_ends_in_failed(stage):
    """A node that refuses five times: state failed with the reason, shown by the deployment."""
    deploy_tiny()
    stage.node.refuses = "no more processes"
    for _ in range(30):
        stage.tick()
    agent = stage.agent()
    assert agent.state == "failed"
    assert agent.error == "it could not be started: no more processes"
    assert len(stage.node.did("start")) == 5
    assert agent.id in Deployment.objects.get().problem


def test_undeploy_is_a_handshake(stage):
    """Drained in the routes first, stopped when all have let go, forgotten when gone, then removed."""
    deploy_tiny()
    stage.tick()
    stage.tick()
    agent = stage.agent()
    undeploy("mini", actor="test")
    stage.tick()
    (route,) = published().agents
    assert route.wanted == "draining"
    assert stage.agent().draining_generation == published().generation.number
    assert not stage.node.did("stop")
    stage.tick(seen={agent.id: "draining"})
    assert stage.node.did("stop") == [("stop", agent.id)]
    assert published().agents == ()
    stage.tick()
    assert stage.node.did("forget") == [("forget", agent.id)]
    assert not Agent.objects.exists()
    stage.tick()
    assert not Deployment.objects.exists()


def test_gateway_that_has_not_taken_the_change_holds_the_stop(stage):
    """A gateway that serves older routes may still send work: no SIGTERM yet."""
    deploy_tiny()
    stage.tick()
    stage.tick()
    agent = stage.agent()
    undeploy("mini", actor="test")
    stage.report()  # before the tick: its generation is the older one
    for _ in range(2):
        stage.tick(report=False)
    assert not stage.node.did("stop")
    stage.tick(seen={agent.id: "draining"})
    assert stage.node.did("stop") == [("stop", agent.id)]


def test_leaving_agent_without_a_link_is_asked(stage):
    """Where no gateway tells of it any more, the agent's own answer decides."""
    deploy_tiny()
    stage.tick()
    stage.tick()
    agent = stage.agent()
    undeploy("mini", actor="test")
    stage.tick()
    stage.tick(seen={})
    assert stage.asker.asked == [agent.id]
    assert not stage.node.did("stop")
    stage.asker.said = {agent.id: 0}
    stage.tick(seen={})
    assert stage.node.did("stop") == [("stop", agent.id)]


@pytest.mark.slow
def test_load_brings_more_and_quiet_fewer(stage):
    """The number follows the load within its bounds, with a decision for each change."""
    deploy_tiny(min_agents=1, max_agents=3)
    Deployment.objects.update(scaling={"park_s": 0})
    for _ in range(3):
        stage.tick()
    for _ in range(8):
        stage.tick(in_flight=16, queued=40)
    assert len(stage.node.alive) == 3
    assert Deployment.objects.get().desired == 3
    for _ in range(240):
        stage.tick()
    assert len(stage.node.alive) == 1
    changes = Decision.objects.order_by("at").values_list("before", "after")
    assert [pair for pair in changes if pair[0] != pair[1]][-1][1] == 1
    assert all(row.reason for row in Decision.objects.all())


@pytest.mark.slow
def test_no_gateway_no_change(stage):
    """With no gateway nothing is scaled, drained or declared failed; a dead process still restarts."""
    deploy_tiny(min_agents=1, max_agents=3)
    for _ in range(3):
        stage.tick()
    for _ in range(8):
        stage.tick(in_flight=16, queued=40)
    for _ in range(200):
        stage.tick(report=False)
    assert Deployment.objects.get().desired == 3
    assert len(stage.node.alive) == 3
    assert {agent.state for agent in stage.agents()} == {"ready"}
    gone = stage.agents()[0].id
    stage.node.end(gone)
    stage.tick(report=False)
    assert gone in stage.node.alive


@pytest.mark.slow
def test_new_worker_goes_on(stage):
    """A new worker adopts the agents and scaling remembers: nothing is started or stopped."""
    deploy_tiny(min_agents=1, max_agents=3)
    for _ in range(3):
        stage.tick()
    for _ in range(8):
        stage.tick(in_flight=16, queued=40)
    lease.release(stage.loop.owner)
    successor = Stage(owner="test:2:2", node=stage.node)
    successor.now, calls = stage.now, list(stage.node.calls)
    for _ in range(20):
        successor.tick()
    assert stage.node.calls == calls
    assert Lease.objects.get().fencing == 2
    successor.lane.close()


def test_only_one_loop_ticks(stage):
    """A second worker does nothing while the first one's lease lasts."""
    deploy_tiny()
    stage.tick()
    other = Stage(owner="elsewhere:2:2")
    assert other.tick() is None
    assert other.node.calls == []
    other.lane.close()


def test_replaced_owner_writes_nothing(stage):
    """A tick that lost its lease meanwhile is rolled back whole."""
    deploy_tiny()
    real = stage.node.install

    def taken_over(*arguments):
        real(*arguments)
        Lease.objects.update(owner="elsewhere:2:2", fencing=99)

    stage.node.install = taken_over
    with pytest.raises(lease.LostLease):
        stage.tick()
    assert not Agent.objects.exists()
    assert not Decision.objects.exists()
    assert not stage.node.did("start")


def test_orphans_are_ended_and_swept(stage):
    """A process without a row is ended, and what it left on disk goes."""
    stage.node.install("ghost-1", {}, b"", b"", b"")
    stage.node.start("ghost-1")
    stage.tick()
    stage.now += 60
    stage.tick()
    assert stage.node.did("stop", "forget") == [("stop", "ghost-1"), ("forget", "ghost-1")]


def test_lost_routes_file_is_written_again(stage):
    """A missing or older route snapshot is put right by the next tick."""
    deploy_tiny()
    stage.tick()
    number = published().generation.number
    settings.ENVIRONMENT.routes_file.unlink()
    stage.tick()
    assert published().generation.number == number
    settings.ENVIRONMENT.routes_file.write_bytes(b"{")
    stage.tick()
    assert published().generation.number == number


def test_changed_rows_only(stage, django_assert_max_num_queries):
    """A tick with nothing to do costs a bounded number of queries and touches no agent's row."""
    deploy_tiny()
    for _ in range(15):
        stage.tick()
    with django_assert_max_num_queries(24) as seen:
        stage.tick(report=False)
    assert not [one for one in seen if 'UPDATE "appliance_agent"' in one["sql"]]


def test_refused_placement_is_visible(stage):
    """A model too large for the machine: no agent, and the deployment says what is missing."""
    add_model(size_bytes=100 * 10**9)
    deploy("mini", model="tiny", actor="test")
    stage.tick()
    assert not Agent.objects.exists()
    assert "150,268 MB of RAM" in Deployment.objects.get().problem
    assert "150,268 MB" in Decision.objects.get().inputs["problem"]


def test_history_is_written(stage):
    """Each tick leaves a point of each deployment and node."""
    deploy_tiny()
    stage.tick()
    stage.tick(answered=5, tokens=50)
    stage.tick(answered=25, tokens=250)
    point = MetricPoint.objects.get(series="deployment:mini", resolution_s=1, at=int(stage.now))
    assert (point.values["rps"], point.values["tokens_per_s"], point.values["ready"]) == (20.0, 200.0, 1.0)
    node = MetricPoint.objects.get(series="node:local", resolution_s=1, at=int(stage.now))
    assert node.values == {"cpu_percent": 12.5, "memory_percent": 40.0}


def test_verbs_routes_survive_a_tick(stage):
    """A change that a verb published between is not undone."""
    deploy_tiny()
    stage.tick()
    with transaction.atomic():
        wanted = touch_routes()
    stage.tick()
    assert published().generation.reached(wanted)
    assert dt.datetime.fromtimestamp(published().written_at, dt.UTC).year >= 2026


def test_a_tick_of_the_clock_waits_for_none(stage):
    """Where one runs, another of the clock is not needed; what somebody wants waits for its turn."""
    stage.loop._turn.acquire()
    answers = []
    clock = [threading.Thread(target=lambda: answers.append(stage.loop.tick("tick"))) for _ in range(2)]
    for one in clock:
        one.start()
    for one in clock:
        one.join(5.0)
    assert answers == [None, None]
    wanted = threading.Thread(target=lambda: answers.append(stage.loop.tick("want", stage.now + 1)))
    wanted.start()
    stage.loop._turn.release()
    wanted.join(20.0)
    assert answers[2] is not None

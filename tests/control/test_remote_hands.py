"""What the loop does to a node over SSH, on a played node: nothing waits, all is seen or told later."""

import datetime as dt
import hashlib
import json
import shutil
import time
from dataclasses import replace

import pytest
from django.conf import settings
from django.db import OperationalError
from lane_builders import RELEASE, PlayedNode, make_lane, unit, wait

from appliance.authority import ensure_authority
from appliance.control.hands import AgentSpec
from appliance.control.remote_hands import BASE_MEMORY_BYTES, PORTS, RemoteHands
from appliance.control.transfers import KEPT, end_interrupted
from appliance.models import Node
from appliance.models.enrolments import Transfer
from provisioning.errors import DiskFull, StewardError, Unreachable

NOW = dt.datetime.now(dt.UTC)
DIGEST = "d1" * 32


class Scene:
    """Hands on a played node."""

    def __init__(self, **given):
        self.node = PlayedNode()
        self.lane = make_lane(self.node, **given)
        self.authority = ensure_authority(settings.ENVIRONMENT)
        self.hands = RemoteHands(settings.ENVIRONMENT, self.lane, self.authority)
        self.lane.start()

    def seen(self):
        return wait(self.lane.observation)

    def rest(self):
        wait(lambda: not self.lane.names())

    def brought(self):
        """What agents were written from, one list a question."""
        return [asked["agents"] for asked in self.given("bring")]

    def given(self, verb):
        return [given for asked, given in self.node.given if asked == verb]


@pytest.fixture
def scene():
    scene = Scene()
    yield scene
    scene.lane.close()
    assert scene.lane.join(5.0)


@pytest.fixture
def model():
    """A model of 3000 bytes in the store."""
    folder = settings.ENVIRONMENT.models_dir / DIGEST
    folder.mkdir(parents=True)
    content = b"m" * 3000
    (folder / "model.bin").write_bytes(content)
    entry = {"path": "model.bin", "bytes": 3000, "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"digest": DIGEST, "files": [entry]}))
    yield DIGEST
    shutil.rmtree(folder)


def spec(agent="mini-1", **given):
    whole = {
        "deployment": "mini", "revision": "mini-1", "task": "embed", "digest": DIGEST, "engine": "fake",
        "host": "192.0.2.7", "port": 9200, "profile": {"workers": 2, "threads": 1, "batch_size": 4},
    }  # fmt: skip
    return AgentSpec(id=agent, **{**whole, **given})


def test_an_agent_is_brought_and_started(scene):
    """Files with the kept certificate go there, listening to all, and the agent starts; then it is seen."""
    issued = scene.hands.install(spec(), NOW)
    assert scene.hands.is_installed("mini-1", [issued.sha256])
    assert scene.hands.start("mini-1") is None
    assert "mini-1" in scene.hands.in_hand()
    scene.rest()
    ((written,),) = scene.brought()
    assert (written["config"]["host"], written["release"], written["model"]) == ("0.0.0.0", RELEASE, None)
    assert written["certificate"] == issued.certificate_pem.decode()
    assert written["memory_max_bytes"] == BASE_MEMORY_BYTES
    assert scene.hands.running() == {"mini-1": 100}
    assert (scene.hands.in_hand(), scene.hands.take_failures()) == (frozenset(), {})


def test_starting_again_writes_nothing(scene):
    """Without a new install the files that lie there are started from."""
    scene.hands.start("mini-1")
    scene.rest()
    assert (scene.node.count("bring"), scene.node.count("start")) == (0, 1)


def hold_back(scene, *agents):
    """Have the node wait, and so many agents to be brought behind that; what is done next lets it go on."""
    scene.seen()
    scene.node.gate.clear()
    scene.lane.submit("first", lambda _node, client: client.ask("hello"))
    for agent in agents:
        scene.hands.install(spec(agent), NOW)
        scene.hands.start(agent)


def test_agents_that_wait_are_brought_together(scene):
    """One question for all of the same model that wait; one that is refused is told of, the others run."""
    scene.node.refused["mini-2"] = {"error": {"code": "not_installed", "message": "no release", "hint": ""}}
    hold_back(scene, "mini-1", "mini-2", "mini-3")
    scene.node.gate.set()
    scene.rest()
    assert [[one["agent"] for one in many] for many in scene.brought()] == [["mini-1", "mini-2", "mini-3"]]
    assert scene.hands.running().keys() == {"mini-1", "mini-3"}
    assert scene.hands.take_failures() == {"mini-2": "no release"}


def test_an_agent_is_not_brought_before_its_own_earlier_work(scene):
    """One that waits behind its own stop comes after that, and one that was stopped since not at all."""
    hold_back(scene, "mini-1")
    scene.hands.stop("mini-2")
    for agent in ("mini-2", "mini-3"):
        scene.hands.install(spec(agent), NOW)
        scene.hands.start(agent)
    scene.hands.stop("mini-3")
    scene.node.gate.set()
    scene.rest()
    assert [verb for verb in scene.node.asked if verb in ("bring", "stop")] == [
        "bring",
        "stop",
        "bring",
        "stop",
    ]
    assert [[one["agent"] for one in many] for many in scene.brought()] == [["mini-1"], ["mini-2"]]


def test_an_older_steward_is_asked_one_thing_after_the_other(scene):
    """One that does not know the verb gets files and start as before, each agent for itself."""
    scene.node.refuses["bring"] = StewardError("unknown verb", reason="bad_request")
    hold_back(scene, "mini-1", "mini-2")
    scene.node.gate.set()
    scene.rest()
    order = [given["agent"] for verb, given in scene.node.given if verb in ("write_agent", "start")]
    assert order == ["mini-1", "mini-1", "mini-2", "mini-2"]
    assert scene.hands.running().keys() == {"mini-1", "mini-2"}
    assert scene.hands.take_failures() == {}


def test_an_agent_on_an_ipv6_address_listens_there(scene):
    """The config of such an agent names the IPv6 wildcard."""
    scene.hands.install(spec(host="2001:db8::1"), NOW)
    scene.hands.start("mini-1")
    scene.rest()
    assert scene.brought()[0][0]["config"]["host"] == "::"


def test_what_fails_is_told_once_and_by_agent(scene):
    """A refused start comes back as that agent's failure, cause and remedy in one line."""
    scene.node.refuses["start"] = StewardError("no such agent", reason="no_agent", remedy="write it first")
    scene.hands.start("mini-1")
    scene.rest()
    assert scene.hands.take_failures() == {"mini-1": "no such agent; write it first"}
    assert scene.hands.take_failures() == {}
    assert scene.lane.take_results() == []


def test_stopping_is_no_change_of_the_agent(scene):
    """A stop is queued, is not in hand, and breaks off what was to bring the agent."""
    scene.seen()
    scene.node.gate.clear()
    scene.lane.submit("long", lambda _node, client: client.ask("status"))
    scene.hands.start("mini-1")
    scene.hands.stop("mini-1")
    assert scene.hands.in_hand() == frozenset()
    scene.hands.stop("mini-1", kill=True)
    scene.node.gate.set()
    scene.rest()
    assert [given["kill"] for given in scene.given("stop")] == [False, True]
    assert (scene.node.count("start"), scene.node.count("bring")) == (0, 0)


def test_renewing_writes_the_files_alone(scene):
    """A new certificate goes there and nothing is started."""
    issued = scene.authority.issue_server("mini-1", ("192.0.2.7", "localhost"), NOW)
    scene.hands.renew(spec(), issued)
    assert scene.hands.in_hand() == {"mini-1"}
    scene.rest()
    assert scene.given("write_agent")[0]["certificate"] == issued.certificate_pem.decode()
    assert scene.node.count("start") == 0


def test_what_is_installed_is_seen_on_the_node(scene):
    """Certificate, authority and release must all be ours; a new release or authority means anew."""
    ours = hashlib.sha256(scene.authority.certificate_pem).hexdigest()
    scene.node.agents["mini-1"] = unit(sha256={"ca.pem": ours})
    wait(lambda: "mini-1" in scene.seen().agents)
    assert scene.hands.is_installed("mini-1", ["00" * 32, "ce" * 32])
    assert scene.hands.installed_certificate("mini-1") == "ce" * 32
    assert not scene.hands.is_installed("mini-1", ["00" * 32])
    assert not scene.hands.is_installed("other", ["ce" * 32])
    scene.lane.update(replace(scene.lane.access, release_sha256="0a" * 32))
    assert not scene.hands.is_installed("mini-1", ["ce" * 32])


def test_a_node_that_was_not_seen_lately_tells_nothing(scene):
    """Old sightings are no answer: every question about the node raises OSError, every order is queued."""
    scene.seen()
    later = RemoteHands(settings.ENVIRONMENT, scene.lane, scene.authority, clock=lambda: time.time() + 11.0)
    for question in (
        later.running, lambda: later.exit_of("a"), lambda: later.is_installed("a", []),
        lambda: later.sweep(frozenset()), lambda: later.installed_certificate("a"),
    ):  # fmt: skip
        with pytest.raises(OSError, match="not seen within 10 s"):
            question()
    later.stop("a")
    scene.rest()
    assert scene.node.count("stop") == 1


def test_orders_to_a_node_that_is_off_fail_by_agent(monkeypatch):
    """They are queued, and told as failures when the node turns out to be off."""
    monkeypatch.setattr("appliance.control.node_problems.BREAK_S", 0.02)
    scene = Scene()
    scene.node.down = Unreachable("off")
    scene.hands.start("mini-1")
    failures = {}
    wait(lambda: failures.update(scene.hands.take_failures()) or failures)
    assert failures["mini-1"].startswith("off; check the address")
    scene.lane.close()


def test_how_an_agent_ended(scene):
    """Exit code and last log lines are answered at once; of an agent that is not there, nothing."""
    scene.node.agents["mini-1"] = unit()
    wait(lambda: "mini-1" in scene.seen().agents)
    scene.node.agents["mini-1"] = unit("failed", pid=0, code=2, status=9)
    wait(lambda: not scene.seen().agents["mini-1"].is_living)
    assert scene.hands.exit_of("mini-1") == (-9, ("last words",))
    assert scene.hands.exit_of("other") == (None, ())


def test_ports_are_of_the_range_and_not_taken(scene):
    """Any free port of the range; an error that names the range where none is left."""
    taken = frozenset(PORTS) - {9777}
    assert scene.hands.new_port("192.0.2.7", taken) == 9777
    with pytest.raises(OSError, match="no port from 9200 to 9999"):
        scene.hands.new_port("192.0.2.7", frozenset(PORTS))


def test_what_is_left_of_unknown_agents_goes(scene):
    """Sweeping forgets agents without row and process; living ones, known ones and those in hand stay."""
    scene.node.agents.update(alive=unit(), known=unit("inactive", pid=0), left=unit("failed", pid=0))
    wait(lambda: len(scene.seen().agents) == 3)
    scene.hands.sweep(frozenset({"known"}))
    assert scene.hands.in_hand() == {"left"}
    scene.rest()
    assert [given["agent"] for given in scene.given("forget")] == ["left"]


@pytest.fixture
def row(transactional_db):
    return Node.objects.create(name="edge-1", address="192.0.2.7")


def test_a_model_is_delivered_before_its_agent_starts(row, model, scene):
    """A missing model is sent with a row that ends as done; memory is twice the model and a base."""
    scene.node.progress = 3
    scene.hands.install(spec(engine="ctranslate2"), NOW)
    scene.hands.start("mini-1")
    scene.rest()
    assert scene.hands.take_failures() == {}
    transfer = Transfer.objects.get()
    assert (transfer.state, transfer.kind, transfer.name, transfer.digest) == (
        "done",
        "model",
        "mini",
        DIGEST,
    )
    assert (transfer.have_bytes, transfer.total_bytes) == (3000, 3000)
    assert transfer.finished_at is not None
    ((written,),) = scene.brought()
    assert (written["model"], written["memory_max_bytes"]) == (DIGEST, 6000 + BASE_MEMORY_BYTES)
    order = [verb for verb in scene.node.asked if verb in ("receive", "install_model", "bring", "start")]
    assert order == ["receive", "install_model", "bring"]


def test_a_delivery_that_fails_is_told_and_its_row_says_why(row, model, scene):
    """A full disk fails the agent and the transfer with the same line."""
    scene.node.refuses["receive"] = DiskFull("the disk is full")
    scene.hands.install(spec(engine="ctranslate2"), NOW)
    scene.hands.start("mini-1")
    scene.rest()
    transfer = Transfer.objects.get()
    assert transfer.state == "failed"
    assert transfer.error == scene.hands.take_failures()["mini-1"]
    assert "disk is full" in transfer.error
    assert scene.node.count("bring") == 0


def test_a_model_the_appliance_lacks_is_said(row, scene):
    """Without its own copy the appliance cannot deliver, and says what to do."""
    scene.hands.install(spec(engine="ctranslate2", digest="ee" * 32), NOW)
    scene.hands.start("mini-1")
    scene.rest()
    assert "import the model again" in scene.hands.take_failures()["mini-1"]


def test_rows_that_cannot_be_written_stop_no_delivery(row, model, scene, monkeypatch):
    """A locked database costs those who watch their row, and nothing else."""

    def locked(*given, **named):
        raise OperationalError("database is locked")

    monkeypatch.setattr("appliance.control.transfers.Transfer.save", locked)
    scene.node.progress = 3
    scene.hands.install(spec(engine="ctranslate2"), NOW)
    scene.hands.start("mini-1")
    scene.rest()
    assert (scene.hands.take_failures(), scene.node.count("bring")) == ({}, 1)


def test_only_the_newest_transfers_of_a_node_are_kept(row, model, scene):
    """Twenty, whatever came before."""
    for number in range(KEPT + 5):
        Transfer.objects.create(node=row, kind="model", name=str(number), digest=DIGEST, state="done")
    scene.node.progress = 1
    scene.hands.install(spec(engine="ctranslate2"), NOW)
    scene.hands.start("mini-1")
    scene.rest()
    names = list(Transfer.objects.order_by("id").values_list("name", flat=True))
    assert names == [str(number) for number in range(6, KEPT + 5)] + ["mini"]


def test_transfers_that_nobody_carries_on_are_over(row):
    """What a worker that is gone left running is said to be interrupted."""
    Transfer.objects.create(node=row, kind="model", name="m", digest=DIGEST)
    end_interrupted("edge-1")
    transfer = Transfer.objects.get()
    assert (transfer.state, transfer.error) == ("failed", "interrupted")

"""Verbs on nodes: what they write, what they refuse, and the commands that wait for the loop."""

import json

import pytest
from appliance_builders import make_agent, make_model, make_node
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from appliance import node_waiting
from appliance.deployments import deploy
from appliance.errors import VerbError
from appliance.management.base import ApplianceCommand
from appliance.management.commands import collect_runtime
from appliance.management.node_commands import NodeCommand
from appliance.models import Agent, AuditEvent, Enrolment, Node, RemoteStep, RouteState
from appliance.node_attributes import check_attributes, default_name
from appliance.nodes import (
    cordon_node,
    drain_node,
    reboot_node,
    retire_node,
    set_node,
    uncordon_node,
    upgrade_nodes,
)
from provisioning.bundle import Release
from provisioning.errors import BundleError

pytestmark = pytest.mark.django_db


@pytest.fixture
def box():
    """An enrolled node beside the local one."""
    make_node()
    return add_box("box-1")


@pytest.fixture
def worker(monkeypatch):
    """A worker that is there; what is to happen at the next poke is put into the list."""
    happens = []
    monkeypatch.setattr(ApplianceCommand, "require_worker", lambda self: None)
    monkeypatch.setattr(NodeCommand, "poke", lambda self: [one() for one in happens])
    monkeypatch.setattr(node_waiting, "_POLL_S", 0.01)
    return happens


def add_box(name, **given):
    return Node.objects.create(
        name=name, address=f"{name}.example", account="millwright", boot_id="boot-1",
        enrolled_at=timezone.now(), seen_at=timezone.now(), **given,
    )  # fmt: skip


def wanted(name="box-1"):
    return Node.objects.get(name=name).wanted


def events():
    return [event.verb for event in AuditEvent.objects.order_by("id")]


def test_cordon_drain_and_back(box):
    """Each writes what is wanted and one audit event; repeated, it does nothing."""
    cordon_node("box-1", actor="test")
    cordon_node("box-1", actor="test")
    assert wanted() == "cordoned"
    drain_node("box-1", actor="test")
    assert wanted() == "drained"
    cordon_node("box-1", actor="test")
    assert wanted() == "drained"  # a drain holds more than a cordon
    uncordon_node("box-1", actor="test")
    assert wanted() == "ready"
    assert events() == ["cordon_node", "drain_node", "uncordon_node"]


def test_local_can_be_drained_but_not_worked_on(box):
    """The appliance's own machine is neither rebooted nor upgraded nor retired from here."""
    drain_node("local", actor="test")
    assert wanted("local") == "drained"
    for verb in (reboot_node, retire_node):
        with pytest.raises(VerbError, match="the appliance's own machine"):
            verb("local", actor="test")
    with pytest.raises(VerbError, match="the appliance's own machine"):
        upgrade_nodes(["local"], actor="test")


def test_reboot_is_ordered_once(box):
    """The boot that it ends is written down; nothing else may be ordered meanwhile."""
    first = reboot_node("box-1", actor="test")
    assert (first.operation, first.operation_boot_id, first.operation_stage) == ("reboot", "boot-1", "")
    assert reboot_node("box-1", actor="test").operation_at == first.operation_at
    with pytest.raises(VerbError, match="is not done with its reboot"):
        upgrade_nodes(["box-1"], actor="test")
    assert events() == ["reboot_node"]


def test_upgrade_of_all_leaves_out_what_cannot_be(box):
    """Neither the own machine, nor retired, nor unfinished nodes; a former failure is forgotten."""
    failed = [{"code": "upgrade_failed", "message": "m"}, {"code": "clock_off"}]
    add_box("box-2", problems=failed)
    add_box("box-3", operation="reboot")
    add_box("box-4", retired_at=timezone.now())
    Node.objects.create(name="box-5", address="10.0.0.5")
    names = [node.name for node in upgrade_nodes(None, actor="test")]
    assert names == ["box-1", "box-2"]
    assert Node.objects.get(name="box-2").problems == [{"code": "clock_off"}]
    assert events() == ["upgrade_node", "upgrade_node"]


def test_upgrade_is_refused_as_a_whole(box):
    """Where one of the names cannot be, nothing is ordered."""
    with pytest.raises(VerbError, match="no node is named 'box-9'; there are: box-1, local"):
        upgrade_nodes(["box-1", "box-9"], actor="test")
    assert Node.objects.get(name="box-1").operation == ""


def test_retire_says_what_is_wanted_and_ends_enrolments(box):
    """The loop does the rest; nothing else can be ordered then."""
    row = Enrolment.objects.create(
        name="box-1", address=box.address, way="key", host_key="x", node=box, sealed=b"sealed"
    )
    Node.objects.filter(name="box-1").update(calibration_at=timezone.now())
    retire_node("box-1", actor="test")
    retire_node("box-1", actor="test")
    row.refresh_from_db()
    assert Node.objects.get(name="box-1").calibration_at is None
    assert (wanted(), row.state, row.code, row.sealed) == ("retired", "failed", "retired", None)
    assert events() == ["retire_node"]
    for verb in (cordon_node, uncordon_node, drain_node, reboot_node):
        with pytest.raises(VerbError, match="is being retired"):
            verb("box-1", actor="test")
    with pytest.raises(VerbError, match="there are: box-1, local"):
        retire_node("box-2", actor="test")


@pytest.mark.django_db(transaction=True)
def test_forced_retire_takes_its_agents_out_of_the_routes(box):
    """A lost box is not waited for: its agents go with it, and the routes change."""
    make_model()
    deployment = deploy("mini", model="minilm", actor="test").deployment
    make_agent(deployment, box)
    before = RouteState.objects.get().number
    retire_node("box-1", actor="test")
    retire_node("box-1", force=True, actor="test")
    assert Node.objects.get(name="box-1").retired_at is not None
    assert not Agent.objects.exists()
    assert RouteState.objects.get().number == before + 1
    with pytest.raises(VerbError, match="is retired; enroll it again"):
        drain_node("box-1", actor="test")


def test_attributes_are_checked_and_told(box):
    """What changed comes back as old and new; what was not said stays."""
    changes = set_node(
        "box-1", labels={"rack": "a1"}, cost_per_hour="0.5", power="wol:52-54-00-AA-BB-CC", actor="test"
    )
    assert set(changes) == {"labels", "cost_per_hour", "power"}
    node = Node.objects.get(name="box-1")
    assert (node.labels, node.power, float(node.cost_per_hour)) == (
        {"rack": "a1"},
        "wol:52:54:00:aa:bb:cc",
        0.5,
    )
    assert set_node("box-1", labels={"rack": "a1"}, cost_per_hour=0.5, actor="test") == {}
    set_node("box-1", cost_per_hour="", actor="test")
    assert Node.objects.get(name="box-1").cost_per_hour is None
    assert AuditEvent.objects.filter(verb="set_node").last().detail["cost_per_hour"] == "0.5"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"labels": {"": "x"}}, "label key ''"),
        ({"labels": {"a": "b c"}}, "label a='b c'"),
        ({"labels": {str(number): "x" for number in range(33)}}, "at most 32 pairs"),
        ({"region": "a b"}, "region 'a b'"),
        ({"cost_per_hour": "nan"}, "cost per hour 'nan'"),
        ({"cost_per_hour": "0.00001"}, "at most four decimals"),
        ({"cost_per_hour": "9" * 30}, "a number from 0"),
        ({"preemptible": "maybe"}, "yes or no"),
        ({"power": "ipmi:1"}, "wol:MAC"),
    ],
)
def test_attributes_that_cannot_be_are_named(given, words):
    """The value and what is accepted are said."""
    with pytest.raises(VerbError, match=words):
        check_attributes(given)


@pytest.mark.parametrize(
    ("address", "name"),
    [("10.77.0.2", "node-10-77-0-2"), ("Box-1.lan".lower(), "box-1"), ("fd00::2", "node-fd00-2")],
)
def test_name_comes_from_the_address(address, name):
    """A host's first part, or the address in dashes."""
    assert default_name(address) == name


def test_commands_tell_what_is_wanted(box, worker, capsys):
    """Cordon and uncordon say it in one line, or in one document."""
    call_command("cordon_node", "box-1")
    call_command("uncordon_node", "box-1", "--json")
    line, _, document = capsys.readouterr().out.partition("\n")
    assert line == "node box-1 takes no new agents"
    assert json.loads(document) == {"name": "box-1", "wanted": "ready"}
    with pytest.raises(CommandError, match="no node is named 'x'; there are: box-1, local"):
        call_command("cordon_node", "x")


def test_drain_waits_until_no_agent_is_there(box, worker, capsys):
    """It says how many are left, and gives up in time saying that it goes on."""
    make_model()
    make_agent(deploy("mini", model="minilm", actor="test").deployment, box)
    with pytest.raises(CommandError, match=r"not done after 0.05 s: 1 agent to leave; it goes on"):
        call_command("drain_node", "box-1", "--timeout", "0.05")
    worker.append(lambda: Agent.objects.all().delete())
    call_command("drain_node", "box-1")
    told = capsys.readouterr()
    assert told.out == "node box-1 is drained\n"
    assert "box-1: 1 agent to leave" in told.err


def test_reboot_waits_until_the_order_is_over(box, worker, capsys):
    """The stage is told; without waiting, that it is ordered."""
    call_command("reboot_node", "box-1", "--no-wait")
    assert capsys.readouterr().out == "node box-1 is going to be rebooted\n"
    Node.objects.update(operation_stage="resting")
    with pytest.raises(CommandError, match="reboot: resting; it goes on"):
        call_command("reboot_node", "box-1", "--timeout", "0.05")
    worker.append(lambda: Node.objects.update(operation="", operation_stage=""))
    call_command("reboot_node", "box-1")
    assert capsys.readouterr().out == "node box-1 was rebooted\n"


def test_calibrate_waits_and_tells_the_figures(box, worker, capsys):
    """What was measured is told; why it was not is a failed command."""
    deployment = deploy("mini", model=make_model().name, actor="test").deployment
    make_agent(deployment, box, state="ready")
    call_command("calibrate_node", "box-1", "--no-wait")
    assert capsys.readouterr().out == "node box-1 is going to be measured\n"
    assert Node.objects.get(name="box-1").calibration_at is not None
    with pytest.raises(CommandError, match="waiting for a moment without requests of mini, or a second"):
        call_command("calibrate_node", "box-1", "--timeout", "0.05")
    make_agent(deployment, Node.objects.get(name="local"), "mini-2", state="ready")
    with pytest.raises(CommandError, match=r"not done after 0\.05 s: measuring, while other agents"):
        call_command("calibrate_node", "box-1", "--timeout", "0.05")
    Agent.objects.filter(pk="mini-2").delete()
    worker.append(lambda: Node.objects.update(calibration_at=None))
    call_command("calibrate_node", "box-1", "--json")
    document = json.loads(capsys.readouterr().out)
    assert (document["name"], document["profiles"][0]["deployment"]) == ("box-1", "mini")
    worker[:] = [lambda: Node.objects.update(calibration_at=None, calibration_error="no weights")]
    with pytest.raises(CommandError, match="box-1: not measured: no weights"):
        call_command("calibrate_node", "box-1")
    with pytest.raises(CommandError, match="'local' has no ready agent"):
        call_command("calibrate_node", "local")


def test_upgrade_names_what_failed(box, worker, capsys):
    """A failed upgrade is a failed command; the document says what each node has."""
    problem = {"code": "upgrade_failed", "message": "not ready", "remedy": "see its log"}
    worker.append(lambda: Node.objects.filter(name="box-1").update(operation="", problems=[problem]))
    with pytest.raises(CommandError, match="box-1: not ready; see its log"):
        call_command("upgrade_node", "--all", "--json")
    assert json.loads(capsys.readouterr().out)["nodes"][0]["name"] == "box-1"
    worker[:] = [lambda: Node.objects.update(operation="", release_sha256="ab")]
    call_command("upgrade_node", "box-1")
    assert capsys.readouterr().out == "upgraded: box-1\n"
    with pytest.raises(CommandError, match="one of the two") as refused:
        call_command("upgrade_node")
    assert refused.value.returncode == 2


def test_what_was_called_off_or_retired_is_not_done(box, worker):
    """An order that ended without its work is a failed command."""
    words = "not upgraded: another node's upgrade failed"
    worker.append(lambda: RemoteStep.objects.create(node=box, step=words, outcome="done"))
    worker.append(lambda: Node.objects.update(operation=""))
    with pytest.raises(CommandError, match="box-1: not upgraded: another node's upgrade failed; order"):
        call_command("upgrade_node", "box-1")
    worker[:] = [lambda: Node.objects.filter(name="box-1").update(operation="", problems=[deaf])]
    deaf = {"code": "reboot_failed", "message": "it goes on as before", "remedy": "see its log"}
    with pytest.raises(CommandError, match="box-1: it goes on as before; see its log"):
        call_command("reboot_node", "box-1")
    worker[:] = [lambda: retire_node("box-1", actor="test")]
    with pytest.raises(CommandError, match="node 'box-1' was retired meanwhile"):
        call_command("reboot_node", "box-1")
    assert Node.objects.get(name="box-1").problems == []


def test_retire_waits_until_the_box_is_clean(box, worker, capsys):
    """Until then it says what holds it; with force nothing is waited for."""
    Node.objects.update(problems=[{"code": "unreachable", "message": "box-1 cannot be reached"}])
    with pytest.raises(CommandError, match="box-1 cannot be reached; it goes on"):
        call_command("retire_node", "box-1", "--timeout", "0.05")
    call_command("retire_node", "box-1", "--force")
    assert capsys.readouterr().out == "node box-1 is retired\n"


def test_runtime_is_collected_ahead(monkeypatch, tmp_path, capsys):
    """The release is built as an enrolment would; a version that cannot be is a bad argument."""
    monkeypatch.setattr(
        collect_runtime,
        "build_release",
        lambda folder, python, arch: Release("ab" * 32, tmp_path, 65_000_000),
    )
    call_command("collect_runtime", "--python", "3.11.2", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told == {"python": "3.11", "arch": "x86_64", "sha256": "ab" * 32, "size_bytes": 65_000_000}
    for version in ("3", "3.9", "2.7", "three.1"):
        with pytest.raises(CommandError, match="is not accepted") as refused:
            call_command("collect_runtime", "--python", version)
        assert refused.value.returncode == 2

    def fail(folder, python, arch):
        raise BundleError("no network")

    monkeypatch.setattr(collect_runtime, "build_release", fail)
    with pytest.raises(CommandError, match="no network; check that the appliance reaches"):
        call_command("collect_runtime", "--python", "3.11")

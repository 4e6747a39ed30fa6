"""Verbs and commands on nodes' power: what they write, what they refuse, and what they wait for."""

import json

import pytest
from appliance_builders import make_node
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from appliance import node_waiting
from appliance.errors import VerbError
from appliance.fleet import node_state
from appliance.management.base import ApplianceCommand
from appliance.management.node_commands import NodeCommand
from appliance.models import AuditEvent, Node
from appliance.models.power import power_rules
from appliance.node_attributes import check_attributes
from appliance.nodes import reboot_node
from appliance.power import set_power, suspend_node, wake_node
from appliance.power_settings import POWER
from appliance.row_settings import show_values, to_text

pytestmark = pytest.mark.django_db
WOL = "wol:52:54:00:12:34:56"
DEAF = {"code": "did_not_wake", "message": "it did not answer", "remedy": "look at it", "since": 1.0}
OTHERS = {
    "sleep_after_s": 0, "sleep_how": "power_off", "headroom_nodes": 3, "headroom_agents": 7,
    "stay_awake_s": 60, "wake_timeout_s": 30, "changes_per_10min": 2, "changes_per_tick": 5,
}  # fmt: skip


@pytest.fixture
def box():
    """An enrolled node that can be woken, beside the local one."""
    make_node()
    now = timezone.now()
    return Node.objects.create(name="box-1", address="box-1.example", enrolled_at=now, seen_at=now, power=WOL)


@pytest.fixture
def worker(monkeypatch):
    """A worker that is there; what is to happen at the next poke is put into the list."""
    happens = []
    monkeypatch.setattr(ApplianceCommand, "require_worker", lambda self: None)
    monkeypatch.setattr(NodeCommand, "poke", lambda self: [one() for one in happens])
    monkeypatch.setattr(node_waiting, "_POLL_S", 0.01)
    return happens


def change(**columns):
    Node.objects.filter(name="box-1").update(**columns)


def row():
    return Node.objects.get(name="box-1")


def events():
    return list(AuditEvent.objects.order_by("id").values_list("verb", flat=True))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("WOL:52-54-00-12-34-AB", "wol:52:54:00:12:34:ab"),
        ("exec:ipmi-rack_1.sh", "exec:ipmi-rack_1.sh"),
        ("", ""),
    ],
)
def test_power_is_kept_in_one_form(given, kept):
    """A MAC address in lower case with colons, the name of a program, or nothing."""
    assert check_attributes({"power": given}) == {"power": kept}


@pytest.mark.parametrize("given", ["wol:52:54:00:12:34", "exec:../sh", "exec:a/b", "exec:", "ipmi:1", "on"])
def test_power_that_nothing_could_use_is_refused(given):
    """No MAC address, a path instead of a name, and an unknown kind are refused with what is accepted."""
    with pytest.raises(VerbError, match="wol:MAC is, as wol:52:54:00:12:34:56, or exec:NAME"):
        check_attributes({"power": given})


def test_suspend_is_ordered_once(box):
    """Wanted state and one audit event; again it changes nothing."""
    assert suspend_node("box-1", how="power_off", actor="test").power_wanted == "asleep"
    suspend_node("box-1", actor="test")
    assert (row().power_how, row().power_stage) == ("power_off", "")
    assert events() == ["suspend_node"]


def test_suspend_is_refused(box):
    """Of the appliance's own machine, of one that nothing could wake, and during an operation."""
    with pytest.raises(VerbError, match="own machine and is not put to sleep"):
        suspend_node("local", actor="test")
    with pytest.raises(VerbError, match="'hibernate' is not accepted: suspend or power_off is"):
        suspend_node("box-1", how="hibernate", actor="test")
    change(power="")
    with pytest.raises(VerbError, match=r"nothing could wake it.*--no-wake"):
        suspend_node("box-1", actor="test")
    change(power="exec:bmc")
    with pytest.raises(VerbError, match="could not be woken again: there is no program 'bmc'"):
        suspend_node("box-1", actor="test")
    reboot_node("box-1", actor="test")
    with pytest.raises(VerbError, match="is not done with its reboot"):
        suspend_node("box-1", no_wake=True, actor="test")
    change(operation="")
    assert suspend_node("box-1", no_wake=True, actor="test").power_wanted == "asleep"


def test_wake(box):
    """Nothing for one that is awake; an order for one that sleeps, with what failed before forgotten."""
    assert wake_node("box-1", actor="test").power_wanted == ""
    assert events() == []
    change(power_stage="asleep", power_wanted="asleep", problems=[DEAF])
    assert wake_node("box-1", actor="test").power_wanted == "awake"
    wake_node("box-1", actor="test")
    assert row().problems == []
    assert events() == ["wake_node"]


def test_an_unreachable_box_is_woken_too(box):
    """A box that was switched off by hand is sent for, where it has a power."""
    change(seen_at=None)
    assert wake_node("box-1", actor="test").power_wanted == "awake"
    change(power_wanted="", power="")
    with pytest.raises(VerbError, match="has no power set: switch it on by hand"):
        wake_node("box-1", actor="test")


@pytest.mark.parametrize(
    ("columns", "state"),
    [
        ({"power_stage": "leaving"}, "draining"),
        ({"power_stage": "sleeping"}, "draining"),
        ({"power_stage": "asleep", "seen_at": None}, "asleep"),
        ({"power_stage": "waking", "seen_at": None, "wanted": "cordoned"}, "waking"),
        ({"power_stage": "asleep", "wanted": "retired"}, "retired"),
        ({"power_stage": "", "seen_at": None}, "unreachable"),
    ],
)
def test_states(box, columns, state):
    """A node that sleeps is not unreachable; one on its way there drains."""
    change(**columns)
    assert node_state(row(), timezone.now().timestamp()) == state


def test_suspend_node_waits_until_it_sleeps(box, worker, capsys):
    """The command ends when the box sleeps, or says what it waits for."""
    with pytest.raises(CommandError, match=r"box-1: not done after 0.05 s: going to sleep; it goes on"):
        call_command("suspend_node", "box-1", "--timeout", "0.05")
    worker.append(lambda: change(power_stage="asleep"))
    call_command("suspend_node", "box-1", "--json")
    assert json.loads(capsys.readouterr().out) == {"name": "box-1", "state": "asleep"}


def test_suspend_node_tells_why_it_does_not_sleep(box, worker):
    """The box's own answer is the command's, with what to do."""
    problem = {"code": "did_not_sleep", "message": "its kernel cannot", "remedy": "power it off"}
    worker.append(lambda: change(power_wanted="", problems=[problem]))
    with pytest.raises(CommandError, match="box-1: its kernel cannot; power it off"):
        call_command("suspend_node", "box-1")


def test_wake_node_waits_until_it_is_back(box, worker, capsys):
    """The command ends when the box answers, or with the problem."""
    change(power_stage="asleep")
    call_command("wake_node", "box-1", "--no-wait")
    assert capsys.readouterr().out == "node box-1 is being woken\n"
    worker.append(lambda: change(power_stage="", power_wanted=""))
    call_command("wake_node", "box-1")
    assert capsys.readouterr().out == "node box-1 is awake\n"
    change(power_stage="asleep")
    worker[:] = [lambda: change(power_stage="", power_wanted="", problems=[DEAF])]
    with pytest.raises(CommandError, match="box-1: it did not answer; look at it"):
        call_command("wake_node", "box-1")


@pytest.mark.parametrize("as_text", [False, True], ids=["values", "texts"])
def test_every_setting_is_kept(as_text):
    """As a value or as the text of a command line; each change is told, and audited once."""
    before = show_values(POWER, power_rules())
    given = {key: to_text(value) if as_text else value for key, value in OTHERS.items()}
    done = set_power(given, "test")
    assert done.changes == {key: (before[key], value) for key, value in OTHERS.items()}
    assert show_values(POWER, power_rules()) == OTHERS
    assert set_power(given, "test").changes == {}
    assert events() == ["set_power"]


def test_other_settings_are_a_new_try(box):
    """What did not sleep or wake before is forgotten with a change; other problems stay."""
    other = {"code": "clock_off", "message": "it is off"}
    change(problems=[DEAF, other])
    set_power({"headroom_nodes": 1}, "test")
    assert row().problems == [DEAF, other]
    set_power({"sleep_how": "power_off"}, "test")
    assert row().problems == [other]


def test_set_power_command(capsys):
    """Changes are told line by line; without any all settings are explained; a wrong one is refused."""
    call_command("set_power", "sleep_after_s=60")
    assert capsys.readouterr().out == "power changed\n  sleep_after_s: 600 -> 60\n"
    call_command("set_power", "--json")
    assert json.loads(capsys.readouterr().out)["settings"]["sleep_after_s"] == 60
    call_command("set_power")
    assert "nodes without agents that are always kept awake" in capsys.readouterr().out
    with pytest.raises(CommandError, match="sleep_how 'nap' is not accepted: one of suspend, power_off is"):
        call_command("set_power", "sleep_how=nap")

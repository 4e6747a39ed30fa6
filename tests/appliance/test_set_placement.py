"""Where a deployment's agents go: the verb, the command, and what either refuses."""

import json

import pytest
from appliance_builders import make_model
from django.core.management import call_command
from django.core.management.base import CommandError

from appliance.deployments import deploy, undeploy
from appliance.errors import Conflict, VerbError
from appliance.models import AuditEvent, Deployment, Node
from appliance.placement import forbidden_nodes, rules_of, set_placement, show_placement
from appliance.placement_settings import PLACEMENT
from appliance.policies.placement_rules import DEFAULT_RULES, PlacementRules, rules_from_json
from appliance.row_settings import read_fields

pytestmark = pytest.mark.django_db(transaction=True)

DEFAULTS = {
    "require": "none", "avoid": "none", "regions": "none", "spread": "none", "base": "owned",
    "prefer": "speed",
}  # fmt: skip
OTHERS = {
    "require": "disk=ssd,rack=a1", "avoid": "disk=hdd,spot", "regions": "berlin,paris", "spread": "region",
    "base": "any", "prefer": "cost",
}  # fmt: skip


@pytest.fixture
def minilm(db):
    """A deployment, with nothing in the audit log."""
    make_model()
    deployment = deploy("minilm", model="minilm", actor="test").deployment
    AuditEvent.objects.all().delete()
    return deployment


def run(capsys, *arguments):
    call_command("set_placement", *arguments)
    return capsys.readouterr().out


def test_every_setting_reaches_the_rules(minilm):
    """Rows and audit log have it, and it reads as it was given."""
    assert show_placement(minilm) == DEFAULTS
    done = set_placement("minilm", OTHERS, "test")
    assert done.changes == {key: (DEFAULTS[key], value) for key, value in OTHERS.items()}
    row = Deployment.objects.get()
    assert show_placement(row) == OTHERS
    assert rules_of(row) == PlacementRules(
        (("disk", "ssd"), ("rack", "a1")), (("disk", "hdd"), ("spot", "")), ("berlin", "paris"),
        "region", "any", "cost",
    )  # fmt: skip
    event = AuditEvent.objects.get()
    assert (event.actor, event.verb, event.target, event.detail) == (
        "test", "set_placement", "minilm", OTHERS,
    )  # fmt: skip
    assert set_placement("minilm", dict.fromkeys(("require", "avoid", "regions"), ""), "test").changes
    assert Deployment.objects.get().placement == {"spread": "region", "base": "any", "prefer": "cost"}


def test_what_is_so_already_is_no_change(minilm):
    """No event."""
    assert set_placement("minilm", {"spread": "none", "require": "none"}, "test").changes == {}
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (
            "require=disk",
            "require 'disk' is not accepted: at most 16 labels NAME=VALUE, or none is, as require=",
        ),
        ("require=a=", "require 'a=' is not accepted"),
        ("require=a=1,a=1", "is not accepted"),
        ("avoid=", "none"),
        ("avoid=A B", "avoid 'A B' is not accepted"),
        ("regions=a,,b", "regions 'a,,b' is not accepted"),
        ("spread=rack", "spread 'rack' is not accepted: one of none, node, region is, as spread=region"),
        ("base=mine", "base 'mine' is not accepted: one of owned, any is"),
        ("prefer=best", "prefer 'best' is not accepted: one of speed, cost, fewest is"),
        ("max=3", "unknown setting 'max'; there are: require, avoid, "),
    ],
)
def test_one_value_that_is_refused_changes_nothing(minilm, pair, said):
    """One line names key, value and what is accepted; what stood beside it is not done either."""
    if pair == "avoid=":
        call_command("set_placement", "minilm", pair)
        assert show_placement(Deployment.objects.get())["avoid"] == said
        return
    with pytest.raises(CommandError) as refused:
        call_command(
            "set_placement", "minilm", "spread=node", pair
        ) if "spread" not in pair else call_command("set_placement", "minilm", pair)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert Deployment.objects.get().placement == {}


def test_a_label_is_not_required_and_avoided(minilm):
    """That would leave no node at all."""
    with pytest.raises(VerbError, match="disk is both required and avoided"):
        set_placement("minilm", {"require": "disk=ssd", "avoid": "disk"}, "test")


@pytest.mark.parametrize(
    "value", [True, None, 3, [], "x=" + "y" * 4000, ",".join(f"a{n}=1" for n in range(17))]
)
@pytest.mark.parametrize("setting", PLACEMENT, ids=lambda one: one.key)
def test_strange_values_are_refused(setting, value):
    """Whatever a program gives: a refusal of bounded length."""
    with pytest.raises(VerbError) as refused:
        read_fields(PLACEMENT, {setting.key: value})
    assert len(str(refused.value)) < 300


def test_what_a_newer_version_wrote_is_left_out():
    """What is not understood is at its default; what is, is kept."""
    kept = {"require": "nonsense", "avoid": [["a", "1"]], "spread": "rack", "prefer": "cost", "new": 1}
    assert rules_from_json(kept) == PlacementRules(avoid=(("a", "1"),), prefer="cost")
    assert rules_from_json({}) == DEFAULT_RULES


def test_a_deployment_that_goes_is_left_alone(minilm):
    """And one that is not there is answered with those that are."""
    with pytest.raises(VerbError, match="'bert'; there are: minilm"):
        set_placement("bert", {"spread": "node"}, "test")
    undeploy("minilm", actor="test")
    with pytest.raises(Conflict, match="is being removed"):
        set_placement("minilm", {"spread": "node"}, "test")


def test_the_command_tells_each_change_and_who_is_left_out(minilm, capsys):
    """Old and new, one line a key, and each node that is forbidden with the reason; as JSON too."""
    Node.objects.create(name="box-1", address="192.0.2.1", labels={"disk": "hdd"})
    told = run(capsys, "minilm", "require=disk=ssd", "prefer=cost").splitlines()
    assert told == [
        "deployment minilm changed", "  require: none -> disk=ssd", "  prefer: speed -> cost",
        "  not on box-1: it lacks the label disk=ssd",
    ]  # fmt: skip
    assert forbidden_nodes(Deployment.objects.get()) == {"box-1": "lacks the label disk=ssd"}
    assert run(capsys, "minilm", "prefer=cost").startswith("agents of minilm go where")
    document = json.loads(run(capsys, "minilm", "require=none", "--json"))
    assert (document["changes"], document["forbidden"]) == ({"require": ["disk=ssd", "none"]}, {})
    assert document["settings"] == DEFAULTS | {"prefer": "cost"}


def test_without_changes_the_command_prints_all(minilm, capsys):
    """Every key with its value, what it means and what is accepted."""
    lines = run(capsys, "minilm").splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[key, value] for key, value in DEFAULTS.items()]
    assert json.loads(run(capsys, "minilm", "--json"))["settings"] == DEFAULTS

"""How a deployment is served: the verb, the command, and what either refuses."""

import json

import pytest
from appliance_builders import make_model
from django.core.management import call_command
from django.core.management.base import CommandError

from appliance.deployments import deploy, set_serving, undeploy
from appliance.errors import Conflict, VerbError
from appliance.management.commands import set_serving as command
from appliance.models import AuditEvent, Deployment, RouteState
from appliance.policies.balancing import policy_names
from appliance.publish import build_snapshot
from appliance.row_settings import parse_pairs, read_fields, show_values, to_text
from appliance.serving_settings import SERVING

pytestmark = pytest.mark.django_db(transaction=True)

DEFAULTS = {
    "balancing": "expected_completion", "queue_limit": 1000, "queue_tokens": 4_000_000, "deadline_s": 60.0,
    "cache_mb": 0.0, "cache_shared": False, "sticky": False, "hedging": False,
}  # fmt: skip
OTHERS = {
    "balancing": "round_robin", "queue_limit": 7, "queue_tokens": 900, "deadline_s": 2.5, "cache_mb": 1.5,
    "cache_shared": True, "sticky": True, "hedging": True,
}  # fmt: skip


@pytest.fixture
def minilm(db):
    """A deployment, with nothing in the audit log."""
    make_model()
    deployment = deploy("minilm", model="minilm", actor="test").deployment
    AuditEvent.objects.all().delete()
    return deployment


@pytest.fixture
def waited(monkeypatch):
    """The generations that the command waits for."""
    seen = []
    monkeypatch.setattr(
        command.Command, "wait_for_gateways", lambda _self, generation: seen.append(generation)
    )
    return seen


def run(capsys, *arguments):
    call_command("set_serving", *arguments)
    return capsys.readouterr().out


@pytest.mark.parametrize("as_text", [False, True], ids=["values", "texts"])
def test_every_setting_reaches_the_routes(minilm, as_text):
    """As a value or as the text that a command line holds; rows, snapshot and audit log have it."""
    given = {key: to_text(value) if as_text else value for key, value in OTHERS.items()}
    done = set_serving("minilm", given, "test")
    assert done.changes == {key: (DEFAULTS[key], value) for key, value in OTHERS.items()}
    snapshot = build_snapshot(0.0)
    [route] = snapshot.deployments
    kept = {name: getattr(route, name) for name in OTHERS if name != "cache_mb"}
    assert {**kept, "cache_mb": route.cache_bytes / 1e6} == OTHERS
    assert snapshot.generation == done.generation
    event = AuditEvent.objects.get()
    assert (event.actor, event.verb, event.target, event.detail) == ("test", "set_serving", "minilm", OTHERS)


def test_what_is_so_already_is_no_change(minilm):
    """No event, no new generation; what is not named stays."""
    before = RouteState.objects.get().number
    done = set_serving("minilm", {"sticky": "no", "cache_mb": 0}, "test")
    assert (done.changes, done.generation) == ({}, None)
    assert RouteState.objects.get().number == before
    assert not AuditEvent.objects.exists()
    assert set_serving("minilm", {"sticky": "yes", "hedging": "no"}, "test").changes == {
        "sticky": (False, True)
    }
    assert show_values(SERVING, Deployment.objects.get()) == DEFAULTS | {"sticky": True}


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("balancing=fastest", f"balancing 'fastest' is not accepted: one of {', '.join(policy_names())} is"),
        ("queue_limit=0", "queue_limit '0' is not accepted: a whole number from 1 to 100,000 is"),
        ("queue_limit=1.5", "queue_limit '1.5' is not accepted"),
        ("queue_limit=", "queue_limit '' is not accepted"),
        ("queue_tokens=9999999999", "a whole number from 1 to 1,000,000,000 is, as queue_tokens=4000000"),
        ("deadline_s=0", "deadline_s '0' is not accepted: a number from 0.1 to 86,400 is, as deadline_s=60"),
        ("deadline_s=nan", "deadline_s 'nan' is not accepted"),
        ("deadline_s=1e3", "deadline_s '1e3' is not accepted"),
        ("cache_mb=-1", "cache_mb '-1' is not accepted: a number from 0 to 4,096 is, as cache_mb=64"),
        ("cache_mb=4097", "cache_mb '4097' is not accepted"),
        ("cache_shared=maybe", "cache_shared 'maybe' is not accepted: yes or no is, as cache_shared=yes"),
        ("max=3", "unknown setting 'max'; there are: balancing, queue_limit, "),
        ("sticky", "'sticky' is not accepted: KEY=VALUE is"),
        ("=yes", "'=yes' is not accepted"),
        ("hedging=no hedging=yes", "hedging is given twice: give it once"),
    ],
)
def test_one_value_that_is_refused_changes_nothing(minilm, waited, pair, said):
    """One line names key, value and what is accepted; what stood beside it is not done either."""
    with pytest.raises(CommandError) as refused:
        call_command("set_serving", "minilm", "sticky=yes", *pair.split(" "))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert show_values(SERVING, Deployment.objects.get()) == DEFAULTS
    assert not AuditEvent.objects.exists()
    assert waited == []


@pytest.mark.parametrize("value", [True, None, float("inf"), float("nan"), [], {}, 10**30, "9" * 5000])
@pytest.mark.parametrize("setting", [one for one in SERVING if one.example != "yes"], ids=lambda one: one.key)
def test_strange_values_are_refused(setting, value):
    """Whatever a program gives: a refusal of bounded length."""
    with pytest.raises(VerbError) as refused:
        read_fields(SERVING, {setting.key: value})
    assert len(str(refused.value)) < 300


def test_a_deployment_that_goes_is_left_alone(minilm):
    """And one that is not there is answered with those that are."""
    with pytest.raises(VerbError, match="'bert'; there are: minilm"):
        set_serving("bert", {"sticky": True}, "test")
    undeploy("minilm", actor="test")
    with pytest.raises(Conflict, match="is being removed"):
        set_serving("minilm", {"sticky": True}, "test")


def test_only_answers_that_stay_the_same_are_kept(minilm):
    """A cache for a task that answers otherwise each time is refused; turning it off is not."""
    type(minilm.model).objects.update(task="generate")
    with pytest.raises(VerbError, match=r"cache_mb 5 is not accepted: .*'generate'.* 0 is"):
        set_serving("minilm", {"cache_mb": 5}, "test")
    assert set_serving("minilm", {"cache_mb": 0}, "test").changes == {}


def test_the_command_tells_each_change(minilm, waited, capsys):
    """Old and new, one line a key, once the gateways have it; as JSON too; again: nothing to do."""
    told = run(capsys, "minilm", "cache_mb=64.5", "sticky=yes", "deadline_s=60")
    assert told == "deployment minilm changed\n  cache_mb: 0 -> 64.5\n  sticky: no -> yes\n"
    assert [generation.number for generation in waited] == [RouteState.objects.get().number]
    assert run(capsys, "minilm", "sticky=yes") == "deployment minilm is served as asked already\n"
    document = json.loads(run(capsys, "minilm", "cache_mb=0", "--json"))
    assert (document["name"], document["changes"]) == ("minilm", {"cache_mb": [64.5, 0.0]})
    assert document["settings"] == DEFAULTS | {"sticky": True}
    assert len(waited) == 2


def test_without_changes_the_command_prints_all(minilm, waited, capsys):
    """Every key with its value, what it means and what is accepted."""
    lines = run(capsys, "minilm").splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        [key, to_text(value)] for key, value in DEFAULTS.items()
    ]
    assert "MB of answers that each gateway keeps" in lines[5]
    assert "a number from 0 to 4,096" in lines[5]
    assert json.loads(run(capsys, "minilm", "--json"))["settings"] == DEFAULTS
    assert waited == []
    with pytest.raises(CommandError, match="no deployment is named 'bert'"):
        call_command("set_serving", "bert")


def test_pairs_are_read_as_they_stand():
    """The first equals sign ends the key; spaces around either part do not count."""
    assert parse_pairs(["a=1", " b = x=y "]) == {"a": "1", "b": "x=y"}
    assert parse_pairs([]) == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), (False, "no"), (64.0, "64"), (0.1, "0.1"), (1e-7, "0.0000001"), (7, "7")],
)
def test_values_are_told_as_they_may_be_given(value, text):
    """No exponent, no zeros behind the point."""
    assert to_text(value) == text

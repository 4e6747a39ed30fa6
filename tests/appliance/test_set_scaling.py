"""How a deployment scales: the verb, the command, and what either refuses."""

import json

import pytest
from appliance_builders import make_model
from django.core.management import call_command
from django.core.management.base import CommandError

from appliance.control.rows import policy_of
from appliance.deployments import deploy, undeploy
from appliance.errors import Conflict, VerbError
from appliance.management.commands import set_scaling as command
from appliance.models import AuditEvent, Deployment, RouteState
from appliance.policies.profiles import Profile
from appliance.policies.scaling_keys import KEYS
from appliance.publish import build_snapshot
from appliance.scaling import set_scaling
from appliance.scaling_settings import GROUPS, show_scaling, wanted_policy

pytestmark = pytest.mark.django_db(transaction=True)

WORK = "mon-fri 08:00-18:00 Europe/Berlin min=2"
NIGHT = "daily 22:00-06:00 UTC min=0 max=1"
OTHERS = {
    "min": 1, "max": 8, "warm_floor": 1, "activation": 2, "target_in_flight": 4.5, "target_cpu_percent": 70,
    "target_rps": 3, "target_p95_ms": 250, "target_queue_wait_ms": 500, "idle_s": 30, "stable_window_s": 40,
    "target_ttft_ms": 90, "target_tokens_per_s": 900,
    "panic_window_s": 5, "panic_ratio": 3, "tolerance": 0.2, "max_up_per_min": 4, "max_down_per_min": 2,
    "stabilization_s": 20, "miss_cost_s": 10, "peak_s": 15, "season_s": 86400, "start_s": 1.5, "park_s": 60,
    "hold": 3, "threads": 2, "max_threads": 4, "max_batch": 64,
}  # fmt: skip


@pytest.fixture
def minilm(db):
    """A deployment of up to four agents, with nothing in the audit log."""
    make_model()
    deployment = deploy("minilm", model="minilm", min_agents=1, max_agents=4, actor="test").deployment
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
    call_command("set_scaling", *arguments)
    return capsys.readouterr().out


@pytest.mark.parametrize("as_text", [False, True], ids=["values", "texts"])
def test_every_key_reaches_the_policy(minilm, as_text):
    """As a value or as a text; the row keeps it, the loop's policy has it, the audit log tells it."""
    given = {key: str(value) if as_text else value for key, value in OTHERS.items()}
    set_scaling("minilm", given, "test")
    row = Deployment.objects.get()
    assert {key: value for key, value in show_scaling(row).items() if key in OTHERS} == OTHERS
    policy = policy_of(row, [Profile(2, 1, 8), Profile(4, 1, 8)])
    assert (policy.slots, policy.capacity_rps, policy.target, policy.by_concurrency) == (24, None, 4.5, True)
    for name, key in KEYS.items():
        assert getattr(policy, key.field) == pytest.approx(OTHERS[name] / key.divided_by)
    event = AuditEvent.objects.get()
    assert (event.actor, event.verb, event.target) == ("test", "set_scaling", "minilm")
    assert event.detail["target_queue_wait_ms"] == 500
    assert set(OTHERS) == set(KEYS)


def test_keys_go_back_to_their_defaults(minilm):
    """`default`, and `none` where that is one, leave nothing in the row."""
    set_scaling("minilm", OTHERS, "test")
    reset = {key: "default" for key in OTHERS if key not in ("min", "max")}
    set_scaling("minilm", reset | {"min": 1, "max": 4, "hold": None}, "test")
    row = Deployment.objects.get()
    assert (row.scaling, row.target_in_flight) == ({}, None)
    policy = wanted_policy(row, slots=16.0, capacity_rps=100.0)
    assert (policy.target, policy.stabilization_s, policy.idle_s) == (pytest.approx(11.2), 14.0, 75.0)
    assert set_scaling("minilm", {"hold": "none"}, "test").changes == {}


def test_capacity_is_an_average_agents(minilm):
    """The mean of what agents do; unknown while one of them is."""
    row = Deployment.objects.get()
    assert policy_of(row, [Profile(2, 1, 8, 100.0), Profile(2, 1, 8, 300.0)]).capacity_rps == 200.0
    assert policy_of(row, [Profile(2, 1, 8, 100.0), Profile(2, 1, 8)]).capacity_rps is None


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["max=0"], "max=0: a whole number from 1 to 1,000 is accepted"),
        (["min=5"], "max=4 is below min=5: raise max or lower min"),
        (["max=2", "hold=3"], "hold=3 is outside min=1 and max=2"),
        (["hold=0"], "hold=0 is outside min=1 and max=4"),
        (["warm_floor=9"], "warm_floor=9 is above max=4"),
        (["activation=9"], "activation=9 is above max=4"),
        (["threads=4", "max_threads=2"], "max_threads=2 is below threads=4: raise max_threads or lower"),
        (["threads=0"], "threads=0: a whole number from 1 to 256, or none is accepted"),
        (["panic_window_s=90"], "panic_window_s=90 is above stable_window_s=60"),
        (["tolerance=1"], "tolerance=1: a number from 0 to 0.9 is accepted"),
        (["target_rps=0"], "target_rps=0: a number from 0.001 to 1,000,000, or none is accepted"),
        (["idle_s=none"], "idle_s=none: a number from 1 to 86,400 is accepted"),
        (["min=default"], "min=default: a whole number"),
        (["idle=5"], "'idle' is not a key: accepted are min, max, "),
        (["dry=yes"], ", max_batch, paused, dry_run, schedule"),
        (["paused=maybe"], "paused=maybe: yes or no is accepted"),
        (["idle_s=1", "idle_s=2"], "idle_s is given twice"),
        (["idle_s"], "'idle_s' is not accepted: KEY=VALUE is"),
        (["schedule+=mon 8-9 min=1"], "times '8-9' are not accepted"),
        (["schedule+=mon 08:00-09:00 Nowhere/City min=1"], "time zone 'Nowhere/City' is not known"),
        (["schedule+=mon 08:00-09:00 UTC min=5"], "asks more than max=4: raise max, or give it one"),
        (["schedule-=1"], "there is no such schedule; there are: (none)"),
        (["schedule-=" + WORK], "there is no such schedule"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_value_that_is_refused_changes_nothing(minilm, waited, pairs, said):
    """One line says what is accepted; what stood beside it is not done either.

    Exit code 2 where no deployment would accept it, 1 where it does not go with what else is set.
    """
    before = show_scaling(minilm)
    with pytest.raises(CommandError) as refused:
        call_command("set_scaling", "minilm", "stabilization_s=5", *pairs)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert show_scaling(Deployment.objects.get()) == before
    assert not AuditEvent.objects.exists()
    assert waited == []
    by_others = any(word in said for word in ("is below", "outside", "is above", "asks more"))
    assert refused.value.returncode == (1 if by_others else 2)


@pytest.mark.parametrize(
    "value", [True, float("inf"), float("nan"), [], {}, 10**30, "9" * 5000, "\0"], ids=repr
)
def test_strange_values_are_refused(minilm, value):
    """Whatever a program gives: a refusal of bounded length."""
    for key in (*KEYS, "schedule+") if value != [] else KEYS:
        with pytest.raises(VerbError) as refused:
            set_scaling("minilm", {key: value}, "test")
        assert len(str(refused.value)) < 400


def test_schedules_are_added_and_taken_away(minilm, waited, capsys):
    """By their words or their number; one that is there already is not there twice."""
    told = run(capsys, "minilm", f"schedule+={WORK}", f"schedule+={NIGHT}")
    assert told == f"deployment minilm changed\n  schedule: none -> {WORK}; {NIGHT}\n"
    assert run(capsys, "minilm", f"schedule+=  {WORK} ") == "deployment minilm scales as asked already\n"
    lines = run(capsys, "minilm").splitlines()
    assert [line.strip() for line in lines if line.strip()[:2] in ("1:", "2:")] == [
        f"1: {WORK}",
        f"2: {NIGHT}",
    ]
    run(capsys, "minilm", "schedule-=1")
    assert show_scaling(Deployment.objects.get())["schedule"] == [NIGHT]
    run(capsys, "minilm", f"schedule={WORK}")
    assert [one.text for one in wanted_policy(Deployment.objects.get()).schedules] == [WORK]
    run(capsys, "minilm", "schedule=none")
    assert Deployment.objects.get().scaling == {}
    with pytest.raises(VerbError, match="21 schedules are too many: up to 20 are accepted"):
        set_scaling("minilm", {"schedule": [f"mon 08:{n:02d}-09:00 UTC min=1" for n in range(21)]}, "test")


def test_the_command_tells_each_change(minilm, waited, capsys):
    """Old and new, one line a key; gateways are waited for only where routes change."""
    told = run(capsys, "minilm", "idle_s=30", "warm_floor=1", "max_up_per_min=none")
    assert told == "deployment minilm changed\n  warm_floor: 0 -> 1\n  idle_s: 75 -> 30\n"
    assert waited == []
    document = json.loads(run(capsys, "minilm", "max=6", "hold=2", "paused=yes", "--json"))
    assert document["name"] == "minilm"
    assert document["changes"] == {"max": [4, 6], "hold": [None, 2], "paused": [False, True]}
    assert (document["settings"]["idle_s"], document["settings"]["paused"]) == (30, True)
    assert [generation.number for generation in waited] == [RouteState.objects.get().number]
    assert run(capsys, "minilm", "max=6") == "deployment minilm scales as asked already\n"


def test_a_preview_needs_values(minilm):
    """Without one there is nothing to compare; bad arguments."""
    with pytest.raises(CommandError, match="--preview needs values: set_scaling NAME KEY=VALUE") as refused:
        call_command("set_scaling", "minilm", "--preview")
    assert refused.value.returncode == 2


def test_what_is_not_the_default_says_so(minilm, capsys):
    """A value that people set stands beside the default; minimum and maximum have none."""
    run(capsys, "minilm", "idle_s=30", "threads=2", "dry_run=yes")
    lines = run(capsys, "minilm").splitlines()
    said = {line.split()[0]: line for line in lines if " (default " in line}
    assert sorted(said) == ["dry_run", "idle_s", "threads"]
    assert " 30 (default 75) " in said["idle_s"]
    assert " 2 (default none) " in said["threads"]


def test_without_changes_the_command_prints_all(minilm, capsys):
    """Every key, by what belongs together, with value and what is accepted; and why so many are wanted."""
    Deployment.objects.update(reason="nothing comes: stay at 1 (min 1)", desired=1)
    lines = run(capsys, "minilm").splitlines()
    keys = [line.split()[0] for line in lines[1:-2] if not line.isupper()]
    assert keys == [key for group in GROUPS.values() for key in group]
    assert sorted(keys) == sorted((*KEYS, "paused", "dry_run", "schedule"))
    assert [line for line in lines if line.isupper()] == [heading.upper() for heading in GROUPS]
    assert lines[-1] == "now 1 wanted: nothing comes: stay at 1 (min 1)"
    shown = command.Command().create_parser("manage.py", "set_scaling").format_help()
    assert all(f"    {key} " in shown and KEYS[key].meaning in shown for key in KEYS)
    document = json.loads(run(capsys, "minilm", "--json"))
    assert set(document["settings"]) == {*KEYS, "paused", "dry_run", "schedule"}
    with pytest.raises(CommandError, match="no deployment is named 'bert'"):
        call_command("set_scaling", "bert")


def test_deploy_leaves_no_contradiction(minilm):
    """Bounds that do not go with what else is set are refused, as they are here; no bounds, no question."""
    set_scaling("minilm", {"hold": 3}, "test")
    with pytest.raises(VerbError, match="hold=3 is outside min=1 and max=2: change these, or hold"):
        deploy("minilm", model="minilm", max_agents=2, actor="test")
    assert Deployment.objects.get().max_agents == 4
    assert deploy("minilm", model="minilm", actor="test").changes == {}


def test_a_deployment_that_goes_is_left_alone(minilm):
    """Nothing of it is changed any more."""
    undeploy("minilm", actor="test")
    with pytest.raises(Conflict, match="is being removed"):
        set_scaling("minilm", {"idle_s": 5}, "test")


@pytest.mark.parametrize(
    "kept", [{"idle_s": "x"}, {"gone": 1}, {"schedule": ["x"]}, {"schedule": 5}, {"hold": []}]
)
def test_what_a_row_keeps_and_is_not_understood_is_left_out(minilm, kept):
    """A row of another version does not stop the loop."""
    Deployment.objects.update(scaling=kept)
    row = Deployment.objects.get()
    assert wanted_policy(row) == wanted_policy(minilm)
    assert show_scaling(row) == show_scaling(minilm)


def test_gateways_wake_no_more_than_is_held(minilm):
    """Routes have the number that people ordered in the place of the maximum, as far as that allows it."""
    assert build_snapshot(0.0).deployments[0].max_agents == 4
    set_scaling("minilm", {"hold": 2}, "test")
    assert build_snapshot(0.0).deployments[0].max_agents == 2
    Deployment.objects.update(max_agents=1)
    assert build_snapshot(0.0).deployments[0].max_agents == 1

"""`manage.py decisions`: a table for newcomers, JSON, CSV, sentences, and the check of the loop's record."""

import csv
import datetime as dt
import io
import json
import re
from pathlib import Path

import pytest
from appliance_builders import make_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from appliance import decision_log
from appliance.control import inputs
from appliance.control.inputs import InputLog
from appliance.decision_log import explain
from appliance.deployments import deploy
from appliance.models import Decision, RecordedTick
from appliance.policies.actions import Asked, DeploymentPlan
from appliance.policies.scaling import GatewayLoad, Load, ScalingPolicy, decide
from appliance.scaling import set_scaling
from appliance.scaling_settings import set_otherwise, wanted_policy

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def decided(db):
    """A deployment with three decisions: up, held where it is, and up in a dry run two hours ago."""
    make_model()
    deploy("minilm", model="minilm", max_agents=3, actor="test")
    given = {
        "deployment": "minilm",
        "trigger": "tick",
        "inputs": {"want_wait": 4, "want_peak": 2, "ready": 1},
    }
    rows = [
        {"kind": "load", "before": 1, "want": 4, "after": 3, "clamps": ["max 3"],
         "reason": "3.10 requests/s of 0.90 s: 1 -> 3 (max 3)", "actions": ["create an agent on local"]},
        {"kind": "cannot_tell", "before": 3, "want": None, "after": 3, "reason": "cannot tell"},
        {"kind": "load", "before": 1, "want": 2, "after": 2, "dry_run": True, "reason": "dry run"},
    ]  # fmt: skip
    for row, minutes in zip(rows, (1, 0, 120), strict=True):
        at = timezone.now() - dt.timedelta(minutes=minutes)
        Decision.objects.create(at=at, **{**given, **row})


def run(capsys, *arguments):
    call_command("decisions", *arguments)
    return capsys.readouterr().out


def test_sentences_use_the_names_that_people_set(decided):
    """What is not the default by the keys of set_scaling, in their units; beside it what agents can do."""
    schedule = "daily 00:00-24:00 UTC min=2"
    kept = {"max": 9, "target_queue_wait_ms": 500, "idle_s": 60, "schedule": [schedule]}
    row = set_scaling("minilm", kept, "test").deployment
    assert set_otherwise(wanted_policy(row)) == kept
    policy = set_otherwise(wanted_policy(row, slots=16.0))
    words = "max 9, target_queue_wait_ms 500, idle_s 60, slots 16, schedule daily 00:00-24:00 UTC min=2."
    assert explain(Decision(policy=policy, before=1, after=1))[-1].endswith(f"known of its agents: {words}")


def test_each_rule_is_explained():
    """Rules that ask for agents are named with what they ask for; which there are is told by their code."""
    policies = Path(decision_log.__file__).parent / "policies"
    source = "".join((policies / name).read_text() for name in ("scaling.py", "signal_rules.py"))
    asked = set(re.findall(r'Want\(\s*"([a-z0-9_]+)"', source))
    assert len(asked) >= 8
    assert asked - set(decision_log.RULES) == set()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["done-first", "reason-first"])
def test_what_was_done_is_told_once(order):
    """Rows keep it within their reason, and apart; sentences tell it as what was done."""
    done = "change minilm-1 from 2 x 1 threads, batch 8 to 4 x 1 threads, batch 8: load asks for 5"
    parts = (done, "asked 5, at most 2")
    reason = "; ".join(parts[index] for index in order)
    lines = explain(Decision(before=2, after=2, want=5, reason=reason, actions=[done]))
    assert "Why: asked 5, at most 2." in lines
    assert f"Done at once: {done}." in lines
    assert "Why: started." in explain(Decision(before=1, after=1, reason="started", actions=["started"]))


def test_the_table(capsys, decided):
    """When, from and to, what was asked and by which rule, what limited it, and why."""
    heads, first, second, third = run(capsys).strip().splitlines()
    assert heads.split()[:3] == ["when", "(UTC)", "deployment"]
    assert "3 " in first
    assert "?" in first
    for part in ("minilm", "1 -> 3", "wait 4, peak 2", "max 3", "3.10 requests/s"):
        assert part in second
    assert "1 -> 2 (dry run)" in third


def test_filters_and_shapes(capsys, decided):
    """The same filters for the table, JSON and CSV."""
    document = json.loads(run(capsys, "minilm", "--since", "1h", "--kind", "load", "--json"))
    assert (document["total"], document["decisions"][0]["wants"]) == (1, {"wait": 4, "peak": 2})
    rows = list(csv.DictReader(io.StringIO(run(capsys, "--changed", "--csv"))))
    assert [(row["from"], row["to"], row["dry_run"]) for row in rows] == [("1", "3", "no"), ("1", "2", "yes")]
    assert len(run(capsys, "--limit", "1").strip().splitlines()) == 2


def test_in_sentences(capsys, decided):
    """One decision is explained so that it needs no other page."""
    said = run(capsys, "minilm", "--kind", "load", "--explain", "--limit", "1")
    for part in (
        "went from 1 to 3 agents",
        "asked for 4 agents",
        "wait 4",
        "max 3",
        "It was the loop's turn.",
    ):
        assert part in said
    assert "dry run" in run(capsys, "--explain")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kind", "lod"], "no decisions of kind 'lod'; there are: cannot_tell, load"),
        (["--until", "30d"], "no decisions that fit: ask for a longer time, or for all kinds"),
    ],
)
def test_where_nothing_fits_what_there_is_is_named(capsys, decided, arguments, said):
    """A kind that there is not, or a time without any."""
    assert run(capsys, *arguments).strip() == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["other"], "no deployment is named 'other'"), (["--since", "soon"], "90s, 30m"),
        (["--verify"], "needs a deployment's name"), (["minilm", "--verify"], "no tick of 'minilm'"),
        (["--json", "--csv"], "give one"),
    ],
)  # fmt: skip
def test_refusals_name_what_is_accepted(decided, arguments, said):
    """One line, with what to do."""
    with pytest.raises(CommandError, match=said):
        call_command("decisions", *arguments)


def record_ticks(count, *, forge_at=None):
    """Ticks as the loop records them; one of them with a number that was not decided."""
    policy, log, state, accepted = ScalingPolicy(max_agents=9, slots=1.0), InputLog(), None, 0
    for number in range(count):
        now = 1_800_000_000.0 + number
        accepted += number % 7
        gateway = GatewayLoad("g@1", 1.0, now, float(accepted), 1, 0, accepted, accepted, accepted * 0.5)
        load = Load(2, 2, (gateway,))
        answer = decide(policy, load, state, now)
        plan = DeploymentPlan(
            "minilm", 2, answer.replicas, answer.want, answer.reason, answer.kind, "", answer.clamps,
            dict(answer.inputs), answer.state, None, True, (), Asked(policy, load, state, answer),
        )  # fmt: skip
        log.write([plan], now)
        log.keep()
        state = answer.state
        if number == forge_at:
            RecordedTick.objects.last().delete()


def test_a_sound_record_is_verified(capsys, decided):
    """Number of ticks, their time, and that all are equal."""
    record_ticks(30)
    assert "minilm: 30 ticks replayed, equal" in run(capsys, "minilm", "--verify")
    assert json.loads(run(capsys, "minilm", "--verify", "--json"))["equal"] is True


def test_a_record_with_a_gap_is_not(capsys, decided):
    """Exit code 1, and the time is named from which on the memory is another."""
    record_ticks(30, forge_at=12)
    with pytest.raises(CommandError, match="does not follow from itself"):
        run(capsys, "minilm", "--verify")
    assert "08:00:14: the policy's memory is not what the tick before left" in capsys.readouterr().out


def test_another_versions_decisions_are_left_out(capsys, decided, monkeypatch):
    """What was decided by other code is not held against this one; where it is all there is, that is said."""
    record_ticks(10)
    monkeypatch.setattr(decision_log, "code_mark", lambda: "other")
    with pytest.raises(CommandError, match="10 ticks of 'minilm' were decided by another version"):
        run(capsys, "minilm", "--verify")
    monkeypatch.setattr(inputs, "code_mark", lambda: "other")
    record_ticks(6)
    assert "minilm: 6 ticks replayed, equal" in run(capsys, "minilm", "--verify")

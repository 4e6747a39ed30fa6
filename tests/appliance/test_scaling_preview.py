"""What the last hour would have been: from the record of a deployment, shown before and after a change."""

import json
import time

import pytest
from appliance_builders import make_model
from django.core.management import call_command

from appliance.control.inputs import InputLog
from appliance.deployments import deploy
from appliance.errors import VerbError
from appliance.management.commands import set_scaling as command
from appliance.models import AuditEvent, Deployment
from appliance.policies.actions import Asked, DeploymentPlan
from appliance.policies.scaling import GatewayLoad, Load, ScalingPolicy, decide
from appliance.scaling_preview import compare_last_hour

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def recorded(db, monkeypatch):
    """Three minutes of a deployment, with a burst in each minute, as the loop records them."""
    monkeypatch.setattr(command.Command, "wait_for_gateways", lambda *_: None)
    make_model()
    deploy("minilm", model="minilm", min_agents=0, max_agents=6, actor="test")
    policy, log, accepted, begun = ScalingPolicy(max_agents=6, slots=1.0), InputLog(), 0, time.time() - 180
    state = None
    for number in range(180):
        accepted += 8 if number % 60 < 15 else 1
        gateway = GatewayLoad("g@1", 1.0, begun + number, 0.0, 1, 0, accepted, accepted, accepted * 0.4)
        load = Load(2, 2, (gateway,))
        answer = decide(policy, load, state, begun + number)
        plan = DeploymentPlan(
            "minilm", 2, answer.replicas, answer.want, answer.reason, answer.kind, "", answer.clamps,
            dict(answer.inputs), answer.state, None, True, (), Asked(policy, load, state, answer),
        )  # fmt: skip
        log.write([plan], begun + number)
        log.keep()
        state = answer.state


def run(capsys, *arguments):
    call_command("set_scaling", "minilm", *arguments)
    return capsys.readouterr().out


def test_a_preview_changes_nothing(capsys, recorded):
    """Old values beside new ones, as a table and as JSON; the deployment and the audit log stay."""
    events = AuditEvent.objects.count()
    said = run(capsys, "max=1", "--preview")
    for part in (
        "the last 3 min under these values",
        "before",
        "with the change",
        "agent-seconds",
        "waited over 2 s",
    ):
        assert part in said
    document = json.loads(run(capsys, "max=1", "--preview", "--json"))
    assert document["new"]["misses"] > document["old"]["misses"]
    assert (document["old"]["highest"] > 1, document["new"]["highest"]) == (True, 1)
    assert (Deployment.objects.get().max_agents, AuditEvent.objects.count()) == (6, events)


@pytest.mark.slow
def test_a_change_tells_what_it_would_have_meant(capsys, recorded):
    """The same lines stand under what changed, with the values before the change on the left."""
    said = run(capsys, "max=1")
    assert "max: 6 -> 1" in said
    assert "agents at most" in said
    line = next(one for one in said.splitlines() if "agents at most" in one)
    assert int(line.split()[-2]) > int(line.split()[-1]) == 1
    assert "last 3 min" not in run(capsys, "max=1")


def test_nonsense_is_refused(recorded):
    """As set_scaling refuses it."""
    with pytest.raises(VerbError, match="colour"):
        compare_last_hour("minilm", {"colour": "red"})
    with pytest.raises(VerbError, match="no deployment"):
        compare_last_hour("other", {"max": "3"})


def test_dry_run_is_a_key(capsys, recorded):
    """It is set, shown and taken back as any other."""
    assert "dry_run: no -> yes" in run(capsys, "dry_run=yes")
    assert Deployment.objects.get().scaling == {"dry_run": True}
    assert json.loads(run(capsys, "--json"))["settings"]["dry_run"] is True
    run(capsys, "dry_run=no")
    assert Deployment.objects.get().scaling == {}

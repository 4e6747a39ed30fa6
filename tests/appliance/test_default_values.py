"""`KEY=default`: every command that changes settings takes them back with it."""

import json

import pytest
from appliance_builders import make_model
from django.core.management import call_command
from django.core.management.base import CommandError

from appliance.deployments import deploy
from appliance.management import base

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def minilm(monkeypatch):
    """A deployment, and gateways that have every change at once."""
    monkeypatch.setattr(base.ApplianceCommand, "wait_for_gateways", lambda *_: None)
    make_model()
    return deploy("minilm", model="minilm", max_agents=4, actor="test").deployment


def settings(capsys, *command):
    """All values that a command shows."""
    call_command(*command, "--json")
    return json.loads(capsys.readouterr().out)["settings"]


@pytest.mark.parametrize(
    ("command", "pairs"),
    [
        (["set_scaling", "minilm"], ["idle_s=9", "threads=2", "hold=1", "target_ttft_ms=80"]),
        (["set_serving", "minilm"], ["cache_mb=5", "sticky=yes", "balancing=round_robin"]),
        (["set_placement", "minilm"], ["require=disk=ssd", "regions=eu,us", "prefer=cost"]),
        (["set_power"], ["sleep_after_s=60", "sleep_how=power_off", "headroom_nodes=0"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("set_") else "",
)
def test_default_takes_a_setting_back(capsys, command, pairs):
    """What was set is as it was; the others stay."""
    before = settings(capsys, *command)
    assert settings(capsys, *command, *pairs) != before
    assert settings(capsys, *command, *(f"{pair.partition('=')[0]}=default" for pair in pairs)) == before
    with pytest.raises(CommandError) as refused:
        call_command(*command, "colour=default")
    assert "'colour'" in str(refused.value)
    assert refused.value.returncode == 2

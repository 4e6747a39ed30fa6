"""Rows that are not as the loop wrote them: what they are of stays as it is, all else is looked after."""

import json

import pytest
from control_builders import add_model

from appliance.deployments import deploy
from appliance.models import Agent, Deployment, Node

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])


def bring_two(stage):
    """Deployments `mini` and `odd`, an agent of each ready."""
    add_model()
    for name in ("mini", "odd"):
        deploy(name, model="tiny", actor="test")
    for _ in range(3):
        stage.tick()


@pytest.mark.parametrize(
    "damage",
    [
        {"moves": ["yesterday"]},
        {"moves": 5},
        {"placement": [1]},
        {"placement": {"regions": 5}},
        {"scaling": [1]},
        {"scaling": {"schedule": ["mon-fri 08:00-18:00 Nowhere/City min=1", 7]}},
        {"scaling_state": ["?"]},
    ],
    ids=lambda one: json.dumps(one)[:40],
)
def test_a_damaged_deployment_stops_nobody(stage, damage):
    """Its agent goes on as it was; another's that is killed comes back."""
    bring_two(stage)
    Deployment.objects.filter(name="odd").update(**damage)
    (mini,) = Agent.objects.filter(deployment__name="mini")
    stage.node.end(mini.id)
    stage.tick()
    assert set(stage.node.alive) == set(Agent.objects.values_list("id", flat=True))
    assert set(Agent.objects.values_list("wanted", flat=True)) == {"warm"}


@pytest.mark.parametrize("damage", [["never"], 5], ids=str)
def test_a_damaged_node_stops_nobody(stage, damage):
    """Agents on other nodes are looked after."""
    bring_two(stage)
    power = {"power": "wol:52:54:00:12:34:56", "power_changes": damage}
    Node.objects.create(name="odd-box", address="10.0.0.9", **power)
    (mini,) = Agent.objects.filter(deployment__name="mini")
    stage.node.end(mini.id)
    stage.tick()
    assert mini.id in stage.node.alive

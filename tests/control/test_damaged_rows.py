"""Rows that are not as the loop wrote them: what they are of stays as it is, all else is looked after."""

import json

import msgspec
import pytest
from control_builders import add_model
from django.conf import settings
from django.db import connection

from appliance.deployments import deploy
from appliance.models import Agent, Deployment, Node
from appliance.nodes import set_node
from appliance.policies.snapshot import RouteSnapshot
from appliance.publish import build_snapshot

pytestmark = [
    pytest.mark.slow,  # each is a whole loop, and some thirty of them take seconds
    pytest.mark.django_db(transaction=True, databases=["default", "history"]),
]


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


def break_column(table, column, text, **where):
    """Put a text in place of a JSON column, whatever the database's own check says of it."""
    ((key, value),) = where.items()
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA ignore_check_constraints = ON")
        cursor.execute(f"UPDATE {table} SET {column} = %s WHERE {key} = %s", [text, value])
        cursor.execute("PRAGMA ignore_check_constraints = OFF")


def published():
    """The routes of agents as they are in the file, by id."""
    routes = msgspec.json.decode(settings.ENVIRONMENT.routes_file.read_bytes(), type=RouteSnapshot)
    return {route.id: route for route in routes.agents}


def test_damaged_labels_move_nobody(stage):
    """No agent comes to such a node or leaves it; the problem says so, and setting them again ends it."""
    bring_two(stage)
    Deployment.objects.filter(name="odd").update(placement={"require": [["zone", "a"]]})
    break_column("appliance_node", "labels", "{half", name="local")
    (mini,) = Agent.objects.filter(deployment__name="mini")
    stage.node.end(mini.id)
    Deployment.objects.filter(name="mini").update(min_agents=2, max_agents=2)
    for _ in range(2):
        stage.tick()
    assert {one.wanted for one in stage.agents()} == {"warm"}
    assert len(stage.agents()) == 2
    assert mini.id in stage.node.alive
    local = Node.objects.get(name="local")
    assert [one["code"] for one in local.problems] == ["row_damaged"]
    local.save()
    assert Node.objects.get(name="local").damage == "labels", "saving a row must not lose what is there"
    set_node("local", labels={"zone": "a"}, actor="test")
    for _ in range(2):
        stage.tick()
    assert Node.objects.get(name="local").problems == []
    assert len(stage.agents()) == 3


def test_damaged_hardware_is_read_again(stage):
    """Until the machine was read anew no agent comes; those that are there stay."""
    bring_two(stage)
    break_column("appliance_node", "hardware", "7", name="local")
    stage.tick()
    assert len(stage.node.alive) == 2
    for _ in range(2):
        stage.tick()
    local = Node.objects.get(name="local")
    assert (local.cores, local.problems, local.damage) == (2, [], "")


@pytest.mark.parametrize(("column", "damage"), [("profile", "{"), ("certificates", "[5]")])
def test_a_damaged_agent_stays_as_it_is(stage, column, damage):
    """Gateways keep its route, others are looked after, people are told; started anew it is whole again."""
    bring_two(stage)
    before = published()
    (mini,) = Agent.objects.filter(deployment__name="mini")
    (odd,) = Agent.objects.filter(deployment__name="odd")
    break_column("appliance_agent", column, damage, id=odd.id)
    Deployment.objects.filter(name="mini").update(min_agents=2, max_agents=2)
    stage.node.end(mini.id)
    for _ in range(2):
        stage.tick()
    assert len(stage.node.alive) == 3
    assert published()[odd.id] == before[odd.id]
    assert f"agent {odd.id}: the {column} of its row" in Deployment.objects.get(name="odd").problem
    stage.node.end(odd.id)
    for _ in range(2):
        stage.tick()
    odd.refresh_from_db()
    assert odd.damage == ""
    assert Deployment.objects.get(name="odd").problem == ""
    assert published()[odd.id].slots == before[odd.id].slots


def test_a_damaged_agent_can_be_told_of_without_a_route(stage):
    """Where no earlier route is known, it has the smallest profile and no certificate."""
    bring_two(stage)
    Agent.objects.update(profile=[], certificates=7)
    assert {(one.slots, one.ahead, one.certificates) for one in build_snapshot(0.0).agents} == {(1, 1, ())}

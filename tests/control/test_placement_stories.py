"""Agents that move between played boxes: by the whole loop, with rows, until all is at rest."""

import pytest
from test_remote_stories import BOXES, LEAST, Story

from appliance.models import Agent, Decision, Deployment, Node
from appliance.nodes import cordon_node, uncordon_node
from appliance.placement import set_placement

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True, databases=["default", "history"])]


@pytest.fixture
def story(stage, tmp_path):
    return Story(stage, 1, tmp_path / "release")


def where(story):
    """The nodes of agents that serve."""
    rows = Agent.objects.filter(pk__in=story.serving()).values_list("node__name", flat=True)
    return sorted(rows)


def watched(story, condition, limit_s):
    """Go on until it holds; never fewer serve than the minimum."""

    def look():
        assert len(story.serving()) >= LEAST
        return condition()

    story.until(look, limit_s)


def test_a_rule_that_is_broken_moves_agents(story):
    """Each on a box without the label makes room for one on a box with it, the new one first."""
    before = set(where(story))
    others = [f"box-{number}" for number in range(BOXES) if f"box-{number}" not in before]
    Node.objects.filter(name__in=others).update(labels={"disk": "ssd"})
    set_placement("mini", {"require": "disk=ssd"}, "test")
    watched(story, lambda: where(story) == others, 120)
    assert Deployment.objects.get().problem == ""


def test_a_crowd_is_spread_once_there_is_room(story):
    """All on one box while the others take none; one moves when they do, and the decision says why."""
    kept = where(story)[0]
    for number in range(BOXES):
        if f"box-{number}" != kept:
            cordon_node(f"box-{number}", actor="test")
    set_placement("mini", {"require": f"name={kept}"}, "test")
    Node.objects.filter(name=kept).update(labels={"name": kept})
    watched(story, lambda: where(story) == [kept, kept], 120)
    set_placement("mini", {"require": "none"}, "test")
    for number in range(BOXES):
        uncordon_node(f"box-{number}", actor="test")
    watched(story, lambda: len(set(where(story))) == LEAST, 300)
    moves = [one for one in Decision.objects.all() if any("move " in did for did in one.actions)]
    assert len(moves) == 1
    assert f"from {kept} to " in moves[0].reason
    assert len(Deployment.objects.get().moves) == 1
    for _ in range(100):
        story.second()
        assert len(story.serving()) == LEAST
    assert not Agent.objects.filter(moving_at__isnull=False).exists()

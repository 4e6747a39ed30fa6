"""How large agents are, as people and programs are told it."""

import pytest
from appliance_builders import make_agent, make_model, make_node
from dashboard_builders import agent_report, gateway_report

from appliance.agent_shapes import describe_shape, read_starts, reported_shape, shape_text
from appliance.deployments import deploy
from appliance.fleet import describe_fleet, read_rows
from appliance.models import Agent
from appliance.policies.report import SpeedReport
from appliance.policies.shapes import Shape
from appliance.scaling import set_scaling

SMALL, LARGE = Shape(2, 1, 8), Shape(4, 1, 32)
GROWN = {"workers": 4, "threads": 1, "batch_size": 8, "limit": 2, "stretched": True}


def speed(shape):
    """What an agent of that shape says of its speed."""
    return SpeedReport("fake", "1", shape.workers, shape.threads, shape.batch_size, 0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("wanted", "start", "reported", "words"),
    [
        pytest.param(SMALL, None, None, "2 x 1, batch 8", id="as-started"),
        pytest.param(SMALL, Shape(4, 1, 8), None, "2 x 1, batch 8 (shrunk from 4 x 1)", id="smaller"),
        pytest.param(SMALL, None, SMALL, "2 x 1, batch 8", id="as-it-says"),
        pytest.param(Shape(4, 1, 8), SMALL, None, "4 x 1, batch 8 (grown from 2 x 1)", id="threads"),
        pytest.param(Shape(2, 1, 32), SMALL, None, "2 x 1, batch 32 (grown from batch 8)", id="batch"),
        pytest.param(LARGE, SMALL, LARGE, "4 x 1, batch 32 (grown from 2 x 1, batch 8)", id="both"),
        pytest.param(LARGE, SMALL, SMALL, "2 x 1, batch 8 -> 4 x 1, batch 32", id="being-changed"),
        pytest.param(SMALL, SMALL, LARGE, "4 x 1, batch 32 -> 2 x 1, batch 8", id="going-back"),
        pytest.param(None, None, None, "", id="not-known"),
    ],
)
def test_a_shape_in_words(wanted, start, reported, words):
    """What it is to be, what it started with where it has grown, and what it still is."""
    profile = {} if wanted is None else wanted.to_json() | {"stretched": start is not None}
    told = describe_shape(Agent(profile=profile), start)
    assert shape_text(told | {"reported": None if reported is None else reported.to_json()}) == words


def test_growth_from_what_is_not_known():
    """The mark stays where the start is not known."""
    assert shape_text(describe_shape(Agent(profile=GROWN), None)) == "4 x 1, batch 8 (grown)"


def test_the_newest_word_of_an_agent_counts():
    """Gateways may have heard it at different times; one without a present connection says nothing."""
    links = [
        agent_report(speed=speed(SMALL), load_age_s=1.0),
        agent_report(speed=speed(LARGE), load_age_s=0.1),
        agent_report(speed=speed(SMALL), load_age_s=None),
    ]
    assert reported_shape(links) == LARGE.to_json()
    assert reported_shape([agent_report()]) is None


@pytest.mark.django_db(databases=["default", "history"])
def test_the_start_is_told_of_those_alone_that_have_grown(django_assert_num_queries):
    """From the profile of the box, cut to the limit that held when it started; others cost no query."""
    make_model()
    deployment = deploy("minilm", model="minilm", max_agents=2, actor="test").deployment
    node = make_node()
    node.hardware["cores_physical"] = 4
    node.save()
    make_agent(deployment, node)
    with django_assert_num_queries(0):
        assert read_starts(Agent.objects.none()) == {}
    make_agent(deployment, node, "minilm-000002")
    make_agent(deployment, node, "minilm-000003")
    Agent.objects.filter(pk="minilm-000003").update(profile="broken")
    Agent.objects.filter(pk="minilm-000002").update(profile=GROWN)
    set_scaling("minilm", {"threads": 3}, "test")
    rows = read_rows(1_000_000.0)
    assert rows.starts == {"minilm-000002": SMALL}
    report = gateway_report(1_000_000.0, agents=[agent_report("minilm-000002", speed=speed(SMALL))])
    told = {one["id"]: one for one in describe_fleet(rows, [report], 1_000_000.0)["agents"]}
    keys = ("workers", "stretched", "grown_from", "reported")
    assert [told["minilm-000003"][key] for key in keys] == [None, False, None, None]
    assert shape_text(told["minilm-000003"]) == ""
    assert [told["minilm-000001"][key] for key in keys] == [2, False, None, None]
    assert [told["minilm-000002"][key] for key in keys] == [4, True, SMALL.to_json(), SMALL.to_json()]

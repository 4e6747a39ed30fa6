"""Verbs on deployments: what they write, publish and refuse."""

import pytest
from appliance_builders import make_agent, make_model, make_node

from appliance.deployments import deploy, undeploy
from appliance.errors import VerbError
from appliance.models import AuditEvent, Deployment, InferenceModel
from appliance.publish import build_snapshot, write_routes

pytestmark = pytest.mark.django_db(transaction=True)


def bounds(deployment):
    return deployment.min_agents, deployment.max_agents


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, (1, 1), id="defaults"),
        pytest.param({"min_agents": 3}, (3, 3), id="min-lifts-max"),
        pytest.param({"min_agents": 0}, (0, 1), id="from-zero"),
        pytest.param({"max_agents": 4}, (1, 4), id="max-alone"),
        pytest.param({"min_agents": 2, "max_agents": 5}, (2, 5), id="both"),
    ],
)
def test_new_deployment_has_bounds(given, expected):
    """What is not given follows from what is."""
    make_model()
    assert bounds(deploy("minilm", model="minilm", actor="test", **given).deployment) == expected


def test_repeating_changes_nothing():
    """The same deploy again keeps the revision and names no change."""
    make_model()
    first = deploy("minilm", model="minilm", min_agents=1, max_agents=2, actor="test")
    again = deploy("minilm", model="minilm", actor="test")
    assert first.created
    assert not again.created
    assert again.changes == {}
    assert again.deployment.revision == first.deployment.revision


def test_update_names_old_and_new():
    """An update says what each value was."""
    make_model()
    deploy("minilm", model="minilm", actor="test")
    changed = deploy("minilm", model="minilm", max_agents=3, actor="test")
    assert changed.changes == {"max": (1, 3)}


def test_other_content_makes_a_new_revision():
    """Another model is a new revision; the number goes up."""
    make_model()
    make_model("other", digest="b" * 64)
    deploy("minilm", model="minilm", actor="test")
    changed = deploy("minilm", model="other", actor="test")
    assert str(changed.deployment.revision) == "minilm-2"
    assert changed.changes == {"model": ("minilm", "other"), "revision": ("minilm-1", "minilm-2")}


def test_new_content_of_the_same_model_is_named_as_a_change():
    """A model that was imported again with other content: the deploy that takes it over says so."""
    entry = make_model()
    deploy("minilm", model="minilm", actor="test")
    entry.digest = "b" * 64
    entry.save()
    changed = deploy("minilm", model="minilm", actor="test")
    assert changed.changes == {"revision": ("minilm-1", "minilm-2")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param({"name": "MiniLM"}, "'MiniLM' is no name", id="name"),
        pytest.param({"model": "nothing"}, "no model is named 'nothing'; there are: ", id="model"),
        pytest.param({"model": "half"}, "'half' is importing, not ready", id="importing"),
        pytest.param({"min_agents": 3, "max_agents": 2}, "max 2 is below min 3", id="bounds"),
        pytest.param({"min_agents": 0, "max_agents": 0}, "max: .*greater than or equal to 1", id="max-zero"),
        pytest.param({"max_agents": 5000}, "less than or equal to 1000", id="too-many"),
    ],
)
def test_refusals_leave_nothing_behind(arguments, said):
    """Each refusal says what is accepted; no row, no event."""
    make_model()
    make_model("half", digest="", state=InferenceModel.State.IMPORTING)
    with pytest.raises(VerbError, match=said):
        deploy(**{"name": "minilm", "model": "minilm", "actor": "test"} | arguments)
    assert not Deployment.objects.exists()
    assert not AuditEvent.objects.exists()


def test_undeploy_takes_it_out_of_service_and_can_be_repeated():
    """The wanted state changes once; the row goes when the agents have."""
    make_model()
    deploy("minilm", model="minilm", actor="test")
    undeploy("minilm", actor="test")
    undeploy("minilm", actor="test")
    assert Deployment.objects.get().removing
    assert AuditEvent.objects.filter(verb="undeploy").count() == 1
    with pytest.raises(VerbError, match="being removed"):
        deploy("minilm", model="minilm", actor="test")


def test_undeploy_of_nothing_names_what_there_is():
    """An unknown name is answered with the known ones."""
    make_model()
    deploy("minilm", model="minilm", actor="test")
    with pytest.raises(VerbError, match="'bert'; there are: minilm"):
        undeploy("bert", actor="test")


def test_snapshot_holds_agents_with_limits_and_certificate():
    """A gateway learns where an agent is, what it may be given, and whom to trust."""
    make_model()
    deployment = deploy("minilm", model="minilm", actor="test").deployment
    node = make_node()
    make_agent(deployment, node)
    make_agent(deployment, node, "minilm-000002", wanted="stopped")
    write_routes()
    (route,) = build_snapshot(1.0).agents
    assert (route.id, route.node, route.port, route.wanted) == ("minilm-000001", "local", 20001, "warm")
    assert (route.slots, route.ahead, route.certificates) == (16, 8, ("c" * 64,))

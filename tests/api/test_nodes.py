"""Nodes over the API."""

import pytest

from appliance.models import Agent, AuditEvent, Node

pytestmark = pytest.mark.django_db


def test_nodes_are_listed_a_page_at_a_time(ask, rows):
    """By name, bounded, with the number of all."""
    status, document, _ = ask("GET", "/api/nodes", by="vera")
    assert status == 200
    assert [node["name"] for node in document["items"]] == ["box-1", "local"]
    second = ask("GET", "/api/nodes?limit=1&offset=1")[1]
    assert ([node["name"] for node in second["items"]], second["total"]) == (["local"], 2)
    assert ask("GET", "/api/nodes?offset=1000")[1] == {"items": [], "total": 2}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", "limit: '0' is not accepted"),
        ("limit=201", "limit: '201'"),
        ("limit=x", "limit: 'x'"),
        ("offset=-1", "offset: '-1'"),
        ("offset=99999999999999999999", "offset: '9999"),
        ("page=2", "parameter 'page' is unknown; accepted are: limit, offset"),
    ],
)
def test_a_wrong_page_is_refused(ask, query, words):
    """The parameter, the value and what is accepted are named."""
    status, document, _ = ask("GET", f"/api/nodes?{query}")
    assert (status, document["error"]["code"]) == (400, "invalid")
    assert words in document["error"]["message"]


def test_a_node_is_told_in_full(ask, rows):
    """State, attributes, hardware, problems and agents."""
    status, box, _ = ask("GET", "/api/nodes/box-1")
    assert status == 200
    assert (box["state"], box["wanted"], box["operation"]) == ("ready", "ready", "")
    assert (box["cost_per_hour"], box["labels"], box["cores"]) == ("0.042", {"rack": "a1"}, 4)
    assert box["problems"] == [
        {"code": "clock_off", "message": "the clock is off", "remedy": "set it", "since": 1.5}
    ]
    local = ask("GET", "/api/nodes/local")[1]
    assert [(agent["id"], agent["deployment"]) for agent in local["agents"]] == [("minilm-000001", "minilm")]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/transfers"), ("POST", "/cordon"),
        ("POST", "/uncordon"), ("POST", "/drain"), ("POST", "/reboot"), ("POST", "/upgrade"),
        ("POST", "/calibrate"), ("POST", "/suspend"), ("POST", "/wake"),
    ],
)  # fmt: skip
def test_a_node_that_is_none_is_404(ask, rows, method, path):
    """The answer names those that there are."""
    body = {} if method == "PATCH" else None
    status, document, _ = ask(method, f"/api/nodes/nothing{path}", body)
    assert (status, document["error"]["code"]) == (404, "not_found")
    assert "box-1" in document["error"]["message"]


@pytest.mark.parametrize(
    ("verb", "field", "value"),
    [
        ("cordon", "wanted", "cordoned"), ("drain", "wanted", "drained"), ("reboot", "operation", "reboot"),
        ("upgrade", "operation", "upgrade"),
    ],
)  # fmt: skip
def test_an_order_is_written_down(ask, rows, verb, field, value):
    """The verb is called as the operator, and the node told as it is then; again changes nothing."""
    for _ in range(2):
        status, document, _ = ask("POST", f"/api/nodes/box-1/{verb}", by="oscar")
        assert (status, document[field]) == (202, value)
    assert getattr(Node.objects.get(name="box-1"), field) == value
    assert AuditEvent.objects.filter(verb=f"{verb}_node", actor="oscar", target="box-1").count() == 1


def test_a_measurement_is_ordered_and_profiles_are_told(ask, rows):
    """What agents of each deployment are started with there is told; the order stands until it is done."""
    Agent.objects.update(state="ready")
    status, document, _ = ask("POST", "/api/nodes/local/calibrate", by="oscar")
    assert (status, document["calibration_error"]) == (202, "")
    assert document["calibration_at"] is not None
    (profile,) = document["profiles"]
    assert (profile["deployment"], profile["source"], profile["batch_size"]) == ("minilm", "default", 8)
    assert AuditEvent.objects.filter(verb="calibrate_node", actor="oscar").count() == 1
    status, document, _ = ask("POST", "/api/nodes/box-1/calibrate")
    assert (status, document["error"]["code"]) == (409, "conflict")
    assert "has no ready agent" in document["error"]["message"]


def test_agents_tell_their_speed(ask, rows):
    """With what they run, what they can do by that, and how it is known."""
    (agent,) = ask("GET", "/api/agents")[1]["items"]
    assert (agent["capacity_rps"], agent["profile"]) == (None, "default")
    row = Agent.objects.get()
    row.profile |= {"capacity_rps": 90.0, "tokens_per_s": 2880.0, "source": "measured"}
    row.save()
    document = ask("GET", f"/api/agents/{row.pk}")[1]
    share = min(1.0, row.node.cores / row.engine_threads)
    assert (document["capacity_rps"], document["tokens_per_s"]) == (90.0 * share, 2880.0 * share)
    assert document["profile"] == "measured"


def test_a_cordon_is_taken_back(ask, rows):
    """Uncordon brings it back to service."""
    ask("POST", "/api/nodes/box-1/cordon")
    assert ask("POST", "/api/nodes/box-1/uncordon")[1]["wanted"] == "ready"


def test_an_order_against_the_state_is_a_conflict(ask, rows):
    """What stands against it is said."""
    ask("POST", "/api/nodes/box-1/reboot")
    status, document, _ = ask("POST", "/api/nodes/box-1/upgrade")
    assert (status, document["error"]["code"]) == (409, "conflict")
    assert "not done with its reboot" in document["error"]["message"]
    assert ask("POST", "/api/nodes/local/reboot")[0] == 409
    assert ask("DELETE", "/api/nodes/local")[0] == 409


def test_all_nodes_are_upgraded(ask, rows):
    """All but the appliance's own machine."""
    assert ask("POST", "/api/upgrade")[:2] == (202, {"nodes": ["box-1"]})


def test_attributes_are_changed_and_cleared(ask, rows):
    """What is left out stays, null clears."""
    body = {"region": "lab", "cost_per_hour": 0.5, "preemptible": True, "power": "wol:52-54-00-12-34-56"}
    status, box, _ = ask("PATCH", "/api/nodes/box-1", body)
    assert status == 200
    assert (box["region"], box["cost_per_hour"], box["preemptible"]) == ("lab", "0.5", True)
    assert (box["power"], box["labels"]) == ("wol:52:54:00:12:34:56", {"rack": "a1"})
    cleared = ask("PATCH", "/api/nodes/box-1", dict.fromkeys(("labels", "region", "cost_per_hour", "power")))[
        1
    ]
    assert (cleared["labels"], cleared["region"], cleared["cost_per_hour"], cleared["power"]) == (
        {}, "", None, "",
    )  # fmt: skip
    assert cleared["preemptible"] is True


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"colour": "red"}, "colour: extra inputs are not permitted"),
        ({"region": "no spaces"}, "region 'no spaces' is not accepted"),
        ({"region": 5}, "region: 5 is not accepted"),
        ({"cost_per_hour": -1}, "cost per hour '-1.0' is not accepted"),
        ({"cost_per_hour": "NaN"}, "cost per hour 'NaN' is not accepted"),
        ({"preemptible": "yes"}, "preemptible: 'yes' is not accepted"),
        ({"labels": {"UPPER": "x"}}, "label key 'UPPER' is not accepted"),
        ({"labels": ["a"]}, "labels: input should be a valid dictionary"),
        ({"power": "on"}, "power 'on' is not accepted"),
    ],
)
def test_a_wrong_attribute_changes_nothing(ask, rows, body, words):
    """The field, the value and what is accepted are named."""
    status, document, _ = ask("PATCH", "/api/nodes/box-1", body)
    assert (status, document["error"]["code"]) == (400, "invalid")
    assert words in document["error"]["message"]
    assert Node.objects.get(name="box-1").labels == {"rack": "a1"}


def test_a_node_is_retired(ask, rows):
    """By the loop; with `force` at once."""
    status, document, _ = ask("DELETE", "/api/nodes/box-1")
    assert (status, document["wanted"], document["retired_at"]) == (202, "retired", None)
    status, document, _ = ask("DELETE", "/api/nodes/box-1?force=true")
    assert (status, document["state"]) == (202, "retired")
    assert document["retired_at"]
    assert ask("POST", "/api/nodes/box-1/cordon")[0] == 409


@pytest.mark.parametrize("query", ["force=perhaps", "forse=true"])
def test_a_wrong_word_retires_nothing(ask, rows, query):
    """A misspelt parameter is no plain retirement."""
    assert ask("DELETE", f"/api/nodes/box-1?{query}")[0] == 400
    assert Node.objects.get(name="box-1").wanted == "ready"


def test_transfers_are_listed(ask, rows):
    """What is on its way to a node."""
    status, document, _ = ask("GET", "/api/nodes/box-1/transfers", by="vera")
    assert (status, document["total"]) == (200, 1)
    assert (document["items"][0]["kind"], document["items"][0]["total_bytes"]) == ("release", 10)

"""People, keys, one row of each kind, and a way to ask the API as one of them."""

import json

import pytest
from appliance_builders import make_agent, make_model
from conftest_people import make_people
from django.test import Client
from django.utils import timezone

from appliance.deployments import deploy
from appliance.keys import create_key
from appliance.models import Decision, Enrolment, Node, RemoteStep, Transfer

HOST_KEY = "SHA256:" + "A" * 43


@pytest.fixture
def people(db):
    """Alice administers, Oscar operates, Vera views; Charlie has an account and no role."""
    return make_people()


@pytest.fixture
def manage_key(db):
    """A key that opens the API."""
    return create_key("robot", scopes=("manage",), actor="test").secret


@pytest.fixture
def ask(people, manage_key):
    """Asks as a person, as `key` (the default) or as `stranger`; gives status, document and response."""

    def send(method, path, body=None, *, by="key", **headers):
        client = Client(raise_request_exception=False)
        if by in people:
            client.force_login(people[by])
        elif by == "key":
            headers["Authorization"] = f"Bearer {manage_key}"
        content = {} if body is None else {"data": json.dumps(body), "content_type": "application/json"}
        response = client.generic(method, path, headers=headers, **content)
        is_json = response.content and response.headers["Content-Type"].startswith("application/json")
        told = response.json() if is_json else None
        return response.status_code, told, response

    return send


@pytest.fixture
def rows(db):
    """The appliance's own node with an agent, a box, an enrolment, a transfer and a decision."""
    model = make_model()
    deployment = deploy("minilm", model=model.name, min_agents=1, max_agents=4, actor="test").deployment
    hardware = {"cores_physical": 4, "ram_bytes": 8 * 2**30}
    local = Node.objects.create(name="local", address="127.0.0.1", hardware=hardware, seen_at=timezone.now())
    make_agent(deployment, local)
    box = Node.objects.create(
        name="box-1", address="192.0.2.7", account="millwright", host_key=HOST_KEY, hardware=hardware,
        seen_at=timezone.now(), enrolled_at=timezone.now(), labels={"rack": "a1"}, cost_per_hour="0.0420",
        problems=[{"code": "clock_off", "message": "the clock is off", "remedy": "set it", "since": 1.5}],
    )  # fmt: skip
    enrolment = Enrolment.objects.create(
        name="box-1", address="192.0.2.7", way="password", host_key=HOST_KEY, node=box, state="done",
        sealed=b"sealed-credential", actor="test",
    )  # fmt: skip
    RemoteStep.objects.create(enrolment=enrolment, step="make account", outcome="changed")
    Transfer.objects.create(node=box, kind="release", name="release", digest="d" * 64, total_bytes=10)
    Decision.objects.create(
        at=timezone.now(), deployment="minilm", trigger="tick", before=1, want=2, after=2, reason="load"
    )
    return {"model": model, "deployment": deployment, "local": local, "box": box, "enrolment": enrolment}

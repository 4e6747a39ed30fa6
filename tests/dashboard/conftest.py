"""People, rows and a clean playground for the dashboard's tests."""

import pytest
from conftest_people import make_people
from django.core.cache import cache
from django.utils import timezone

from appliance.models import Agent, Deployment, InferenceModel, Node, Revision
from dashboard import embedding


@pytest.fixture(autouse=True)
def _clean_memory():
    """What this process remembers between requests."""
    cache.clear()
    embedding._key._secret = None


@pytest.fixture
def people(transactional_db):
    """Alice administers, Oscar operates, Vera views; Charlie has an account and no role."""
    return make_people()


@pytest.fixture
def log_in(client, people):
    """Logs one of the people in and gives the client."""

    def log_in_as(name):
        client.force_login(people[name])
        return client

    return log_in_as


@pytest.fixture
def viewer(log_in):
    """A client that Vera is logged in with."""
    return log_in("vera")


@pytest.fixture
def model(transactional_db):
    return InferenceModel.objects.create(
        name="minilm",
        source="pypi:example==1.0",
        state="ready",
        digest="ab" * 32,
        manifest={"size_bytes": 24},
    )


@pytest.fixture
def deployment(model):
    """A deployment with one agent that is ready."""
    row = Deployment.objects.create(name="minilm", model=model, min_agents=1, max_agents=4, desired=1)
    row.revision = Revision.objects.create(deployment=row, number=1, model=model, digest=model.digest)
    row.save()
    node = Node.objects.create(
        name="local", address="127.0.0.1", hardware={"cores_physical": 2, "ram_bytes": 8_000_000_000},
        seen_at=timezone.now(),
    )  # fmt: skip
    Agent.objects.create(
        id="minilm-aaaaaa", deployment=row, revision=row.revision, node=node, host="127.0.0.1", port=20001,
        profile={"workers": 2, "batch_size": 8, "threads": 1}, state="ready",
    )  # fmt: skip
    return row

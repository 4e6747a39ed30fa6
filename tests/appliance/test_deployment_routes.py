"""What of a deployment's scaling gateways are told."""

import pytest

from appliance.models import Deployment, InferenceModel, RouteState
from appliance.publish import build_snapshot

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("kept", "most", "after_s"),
    [
        ({}, 4, 4.0), ({"target_queue_wait_ms": 30_000}, 4, 60.0), ({"target_queue_wait_ms": 1}, 4, 4.0),
        ({"hold": 2}, 2, 4.0), ({"dry_run": True}, 1, 4.0), ([1], 1, 4.0), ({"hold": "many"}, 1, 4.0),
    ],
    ids=str,
)  # fmt: skip
def test_what_gateways_may_resume_by_themselves(kept, most, after_s):
    """As many as load may bring, once requests wait twice as long as they are to; of a damaged row none."""
    RouteState.objects.create(pk=1, epoch="e")
    model = InferenceModel.objects.create(name="tiny", source="dir:/tiny", state="ready", digest="ab" * 32)
    Deployment.objects.create(name="mini", model=model, max_agents=4, desired=1, scaling=kept)
    (route,) = build_snapshot(0.0).deployments
    assert (route.max_agents, route.resume_after_s) == (most, after_s)

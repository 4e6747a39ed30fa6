"""Creating and revoking API keys."""

import hashlib

import msgspec
import pytest
from django.conf import settings

from appliance.errors import VerbError
from appliance.keys import create_key, revoke_key
from appliance.models import ApiKey, AuditEvent
from appliance.policies.snapshot import RouteSnapshot

pytestmark = pytest.mark.django_db(transaction=True)


def published() -> RouteSnapshot:
    return msgspec.json.decode(settings.ENVIRONMENT.routes_file.read_bytes(), type=RouteSnapshot)


def test_created_key_is_published_by_its_digest():
    """The snapshot on disk holds the digest of a new key, and the database never its text."""
    created = create_key("alpha", team="search", rpm=60, actor="test")
    snapshot = published()
    assert snapshot.generation.reached(created.generation)
    (route,) = snapshot.keys
    assert route.sha256 == hashlib.sha256(created.secret.encode()).hexdigest()
    assert (route.name, route.team, route.rpm, route.scopes) == ("alpha", "search", 60, ("inference",))
    assert created.secret not in repr(created)
    assert created.secret not in str(list(ApiKey.objects.values())) + str(list(AuditEvent.objects.values()))


def test_revoked_key_leaves_the_snapshot():
    """Revoking takes the key out, and doing it again changes nothing."""
    create_key("alpha", actor="test")
    generation = revoke_key("alpha", actor="test")
    assert published().keys == ()
    assert published().generation.reached(generation)
    revoke_key("alpha", actor="test")
    assert AuditEvent.objects.filter(verb="revoke_key").count() == 1


def test_name_of_a_revoked_key_can_be_used_again():
    """A revoked key keeps its row; its name is free."""
    create_key("alpha", actor="test")
    revoke_key("alpha", actor="test")
    create_key("alpha", actor="test")
    assert ApiKey.objects.filter(name="alpha").count() == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param({"name": "Alpha"}, "'Alpha' is no name", id="capital"),
        pytest.param({"name": "a" * 64}, "is no name", id="long"),
        pytest.param({"name": "alpha", "rpm": 0}, "rpm: .*greater than or equal to 1", id="rpm-zero"),
        pytest.param({"name": "alpha", "scopes": ("root",)}, "scope root is unknown", id="scope"),
        pytest.param({"name": "alpha", "scopes": ()}, "accepted are: inference, metrics", id="no-scope"),
    ],
)
def test_bad_keys_are_refused(arguments, said):
    """Each refusal says what is accepted, and leaves nothing behind."""
    with pytest.raises(VerbError, match=said):
        create_key(**arguments, actor="test")
    assert not ApiKey.objects.exists()


def test_live_name_is_refused():
    """A second live key of the same name is refused with the way out."""
    create_key("alpha", actor="test")
    with pytest.raises(VerbError, match="revoke it first"):
        create_key("alpha", actor="test")


def test_unknown_key_is_named():
    """Revoking a key that never was names the live ones."""
    create_key("alpha", actor="test")
    with pytest.raises(VerbError, match="live keys: alpha"):
        revoke_key("beta", actor="test")

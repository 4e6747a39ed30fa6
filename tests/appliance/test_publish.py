"""The route snapshot on disk: whole, ordered, private."""

import threading

import msgspec
import pytest
from django.conf import settings
from django.db import connection, transaction

from appliance.keys import create_key
from appliance.models import RouteState
from appliance.policies.snapshot import Generation, RouteSnapshot
from appliance.publish import read_generation, touch_routes, write_routes
from provisioning.file_lock import hold_lock

pytestmark = pytest.mark.django_db(transaction=True)


def read():
    return msgspec.json.decode(settings.ENVIRONMENT.routes_file.read_bytes(), type=RouteSnapshot)


def test_snapshot_is_written_after_the_commit_only():
    """A transaction that is rolled back changes nothing that gateways see."""
    write_routes()
    before = read().generation

    with transaction.atomic():
        touch_routes()
        transaction.set_rollback(True)
    assert read().generation == before


def test_lost_file_is_written_again():
    """Where the file is gone or damaged, the next write makes it whole."""
    generation = write_routes()
    for damage in (None, b"", b"{", b"[]"):
        path = settings.ENVIRONMENT.routes_file
        path.unlink() if damage is None else path.write_bytes(damage)
        assert read_generation(path) is None
        assert write_routes() == generation
        assert read().generation == generation


def test_file_is_the_owners_alone():
    """Digests of keys are nobody else's business."""
    write_routes()
    assert settings.ENVIRONMENT.routes_file.stat().st_mode & 0o777 == 0o600


def test_writers_at_once_leave_the_newest():
    """Many verbs at the same time: the file ends at the last generation, with every key in it."""

    def create(number):
        create_key(f"key-{number}", actor="test")
        connection.close()

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    state = RouteState.objects.get()
    assert read().generation == Generation(state.epoch, state.number)
    assert len(read().keys) == 8


@pytest.mark.parametrize(
    ("new", "old", "supersedes"),
    [
        pytest.param(("a", 2), ("a", 1), True, id="newer"),
        pytest.param(("a", 1), ("a", 1), False, id="same"),
        pytest.param(("a", 1), ("a", 2), False, id="older"),
        pytest.param(("b", 1), ("a", 9), True, id="new-epoch"),
    ],
)
def test_generations_are_ordered(new, old, supersedes):
    """Within an epoch the larger number wins; another epoch always does."""
    assert Generation(*new).supersedes(Generation(*old)) is supersedes
    assert Generation(*new).supersedes(None)


def test_stopped_writer_holds_no_verb_up(monkeypatch):
    """A verb commits while another writer is stuck; what it could not write is written by the next one."""
    monkeypatch.setattr("appliance.publish.WRITER_TIMEOUT_S", 0.05)
    write_routes()
    before = read().generation
    with hold_lock(settings.ENVIRONMENT.routes_file.with_name(".routes.lock"), 1):
        created = create_key("alpha", actor="test")
        assert read().generation == before
    assert write_routes() == created.generation
    assert [key.name for key in read().keys] == ["alpha"]

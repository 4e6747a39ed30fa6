"""Credentials of enrolments: sealed, erased in time, in no row, and not needed after first contact."""

import datetime as dt

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone
from played_boxes import PASSWORD, settle
from provisioning_builders import wait_until

from appliance.errors import VerbError
from appliance.models import Enrolment, Node
from appliance.sealing import Spoilt, seal, unseal
from provisioning.errors import CommandFailed, StewardError
from provisioning.login import KeyText, Password
from provisioning.transport import Secret

pytestmark = pytest.mark.django_db(transaction=True)
State = Enrolment.State


def every_row():
    """All that stands in the database, as text."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = [name for (name,) in cursor.fetchall()]
        return "".join(str(cursor.execute(f'SELECT * FROM "{name}"').fetchall()) for name in tables)


def test_delivery_goes_on_without_the_credential(boxes):
    """After first contact a cut costs no credential: the next try uses the appliance's own key."""
    box = boxes.add(refuses={"install_release": StewardError("busy", reason="busy")})
    row = boxes.ask()
    boxes.crew.look()
    wait_until(lambda: not boxes.crew.at_work())
    row.refresh_from_db()
    assert (row.state, row.sealed, row.error) == (State.WAITING, None, "busy")
    assert Node.objects.get().enrolled_at is None
    commands = len(box.commands)
    Enrolment.objects.update(lease_expires_at=timezone.now())
    settle(boxes, row, State.DONE)
    assert len(box.commands) == commands
    assert box.asked.count("receive") == 1  # what was there was not sent again


def test_credential_is_erased_after_ten_minutes(boxes):
    """A box that never answered costs the credential its life, and the row says what to do."""
    row = boxes.ask()
    sealed = bytes(row.sealed)
    Enrolment.objects.update(
        sealed_until=timezone.now(), lease_expires_at=timezone.now() + dt.timedelta(minutes=1)
    )
    boxes.crew.look()
    row.refresh_from_db()
    assert (row.state, row.sealed, row.code) == (State.FAILED, None, "credential_expired")
    assert row.hint == "give the credential again"
    assert unseal(settings.ENVIRONMENT, sealed).password.reveal() == PASSWORD


def test_seal_opens_with_our_key_alone():
    """What was sealed comes back as it was; another's text does not open."""
    key = KeyText(Secret("-----BEGIN"))
    assert unseal(settings.ENVIRONMENT, seal(settings.ENVIRONMENT, key)).private.reveal() == "-----BEGIN"
    assert (settings.ENVIRONMENT.home / "sealing-key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Spoilt):
        unseal(settings.ENVIRONMENT, b"nonsense")
    with pytest.raises(VerbError, match="1 to 1024 characters"):
        seal(settings.ENVIRONMENT, Password(Secret("")))


def test_no_credential_in_any_row(boxes):
    """Also a box that says the password back finds it in no step, no error and no audit event."""
    boxes.add(fails_at={0: CommandFailed(f"no {PASSWORD} here")})
    row = boxes.ask()
    boxes.crew.look()
    wait_until(lambda: not boxes.crew.at_work())
    row.refresh_from_db()
    assert row.error == "no (redacted) here"
    assert PASSWORD not in every_row()
    Enrolment.objects.update(lease_expires_at=timezone.now())
    settle(boxes, row, State.DONE)
    assert PASSWORD not in every_row()

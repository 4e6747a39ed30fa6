"""The loop's lease: one owner, replaced at once when dead, and fenced."""

import datetime as dt
import os
import subprocess
import sys

import pytest
from django.utils import timezone

from appliance.control import lease
from appliance.models import Lease

pytestmark = pytest.mark.django_db

ELSEWHERE = "another-machine:1:1"


def expire(seconds=1):
    Lease.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=seconds))


def test_owner_keeps_its_lease():
    """Taking again renews; the fencing number stays."""
    first = lease.take("a:1:1")
    assert lease.take("a:1:1") == first
    assert first.fencing == 1
    assert Lease.objects.get().expires_at > timezone.now()


def test_living_owner_is_not_replaced():
    """Another owner gets nothing while the lease lasts, and the next number once it has run out."""
    lease.take(ELSEWHERE)
    assert lease.take("a:1:1") is None
    expire()
    assert lease.take("a:1:1").fencing == 2


@pytest.mark.slow
def test_dead_owner_is_replaced_at_once():
    """A process of this machine that is gone holds nothing, however fresh its lease."""
    program = (
        "import django; django.setup()\nfrom appliance.control.lease import this_owner\nprint(this_owner())"
    )
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "appliance.settings"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    dead = done.stdout.strip()
    lease.take(dead)
    assert lease.owner_is_dead(dead)
    assert lease.take("a:1:1").fencing == 2


def test_this_process_is_alive():
    """A process does not take itself for dead, nor another one with its number for itself."""
    assert not lease.owner_is_dead(lease.this_owner())
    host = lease.this_owner().partition(":")[0]
    assert lease.owner_is_dead(f"{host}:{os.getpid()}:1")


@pytest.mark.parametrize("owner", [ELSEWHERE, "", "x", "a:b:c"], ids=repr)
def test_what_cannot_be_told_counts_as_alive(owner):
    """Another machine's owner, or one that is not understood, keeps its lease until it runs out."""
    assert not lease.owner_is_dead(owner)


def test_replaced_owner_is_fenced():
    """The write of an owner that was replaced is refused."""
    old = lease.take(ELSEWHERE)
    lease.confirm(old)
    expire()
    lease.take("a:1:1")
    with pytest.raises(lease.LostLease):
        lease.confirm(old)


def test_worker_is_alive_once_it_ticked():
    """A lease with a beat says that a worker runs; released, run out or never beaten it does not."""
    assert not lease.worker_alive()
    held = lease.take(ELSEWHERE)
    assert not lease.worker_alive()
    lease.confirm(held)
    assert lease.worker_alive()
    lease.release(ELSEWHERE)
    assert not lease.worker_alive()


def test_late_beat_is_noticed():
    """The watchdog's question: did no tick run for so long."""
    assert lease.beat_is_late(3)
    held = lease.take(ELSEWHERE)
    lease.confirm(held)
    assert not lease.beat_is_late(3)
    Lease.objects.update(beat_at=timezone.now() - dt.timedelta(seconds=4))
    assert lease.beat_is_late(3)

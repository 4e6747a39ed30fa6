"""The loop's lease: only one tick at a time, anywhere, and no write by one that was replaced.

Expiry is judged by the database's clock. An owner on this machine whose process is gone is
replaced at once; any other once its lease has run out.
"""

import datetime as dt
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from django.db import IntegrityError
from django.db.models import F, Q
from django.db.models.functions import Now

from appliance.models import Lease

LOOP = "loop"
LEASE_S = 5.0


class LostLease(Exception):
    """Another owner has taken over: nothing of this tick may be written any more."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that was taken: writes are conditional on `fencing`."""

    name: str
    owner: str
    fencing: int


def this_owner() -> str:
    """This process in words that tell it from every other, also from a later one with its number."""
    pid = os.getpid()
    return f"{socket.gethostname()[:40]}:{pid}:{_start_ticks(pid)}"


def owner_is_dead(owner: str) -> bool:
    """Whether the owner is a process of this machine that is gone. False where it cannot be told."""
    host, _, rest = owner.rpartition(":")
    host, _, pid = host.rpartition(":")
    if host != socket.gethostname()[:40] or not pid.isdigit() or not Path("/proc/self/stat").exists():
        return False
    return _start_ticks(int(pid)) != rest


def take(owner: str, name: str = LOOP) -> Held | None:
    """Take or keep the lease; None where another living owner has it."""
    until = Now() + dt.timedelta(seconds=LEASE_S)
    mine = Lease.objects.filter(name=name, owner=owner)
    if mine.update(expires_at=until):
        return _held(name, owner)
    found = Lease.objects.filter(name=name).first()
    if found is None:
        try:
            Lease.objects.create(name=name, owner=owner, fencing=1, expires_at=dt.datetime.now(dt.UTC))
        except IntegrityError:
            return None  # another was first
        mine.update(expires_at=until)
        return _held(name, owner)
    free = Q(expires_at__lt=Now())
    if owner_is_dead(found.owner):
        free |= Q(owner=found.owner)
    taken = Lease.objects.filter(free, name=name, fencing=found.fencing).update(
        owner=owner, fencing=F("fencing") + 1, expires_at=until
    )
    return _held(name, owner) if taken else None


def confirm(held: Held) -> None:
    """Fence the present transaction: renew the lease and count the beat.

    Must be called first in a transaction that writes. Raises LostLease, upon which it must be rolled back.
    """
    still = Lease.objects.filter(name=held.name, owner=held.owner, fencing=held.fencing).update(
        expires_at=Now() + dt.timedelta(seconds=LEASE_S), beat_at=Now()
    )
    if not still:
        raise LostLease(f"the lease {held.name!r} was taken over from {held.owner}")


def release(owner: str, name: str = LOOP) -> None:
    """Give the lease back, where it is held: the next owner need not wait."""
    Lease.objects.filter(name=name, owner=owner).update(expires_at=Now() - dt.timedelta(seconds=1))


def worker_alive() -> bool:
    """Whether a worker runs: its lease is fresh, and its process not known to be gone."""
    found = Lease.objects.filter(name=LOOP, expires_at__gt=Now(), beat_at__isnull=False).first()
    return found is not None and not owner_is_dead(found.owner)


def beat_is_late(limit_s: float) -> bool:
    """Whether no tick has run for `limit_s` seconds, by the database's clock."""
    since = Now() - dt.timedelta(seconds=limit_s)
    return not Lease.objects.filter(name=LOOP, beat_at__gt=since).exists()


def _held(name: str, owner: str) -> Held | None:
    fencing = Lease.objects.filter(name=name, owner=owner).values_list("fencing", flat=True).first()
    return None if fencing is None else Held(name, owner, fencing)


def _start_ticks(pid: int) -> str:
    """When a process started, in the kernel's ticks since boot; empty where there is none, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    state, *rest = stat.rpartition(") ")[2].split()
    return "" if state in ("Z", "X") else rest[18]

"""Keeps the leases of enrolments that this process is at work on, however silent the box or the build is."""

import datetime as dt
import logging
import threading
from typing import Final

from django.db import DatabaseError, connections
from django.db.models.functions import Now

from appliance.enrolling import LEASE_S
from appliance.models import Enrolment

_RENEW_EVERY_S: Final = 3.0

log = logging.getLogger(__name__)


class LeaseKeeper:
    """The enrolments at work under one owner; a thread renews their leases. Thread-safe."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._lock = threading.Lock()
        self._mine: set[int] = set()
        self._thread: threading.Thread | None = None

    def mine(self) -> frozenset[int]:
        """Rows at work now."""
        with self._lock:
            return frozenset(self._mine)

    def add(self, enrolment: int) -> None:
        """Keep this row's lease from now on."""
        with self._lock:
            self._mine.add(enrolment)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="enrolment-leases", daemon=True)
                self._thread.start()

    def drop(self, enrolment: int) -> None:
        """Its work is over, or given up."""
        with self._lock:
            self._mine.discard(enrolment)

    def _renew(self) -> None:
        pause = threading.Event()
        while not pause.wait(_RENEW_EVERY_S):
            with self._lock:
                if not self._mine:
                    self._thread = None
                    return
                mine = list(self._mine)
            rows = Enrolment.objects.filter(pk__in=mine, lease_owner=self.owner)
            try:
                until = Now() + dt.timedelta(seconds=LEASE_S)
                rows.filter(state=Enrolment.State.RUNNING).update(lease_expires_at=until)
            except DatabaseError:
                log.warning("leases of enrolments could not be renewed", exc_info=True)
            finally:
                connections.close_all()

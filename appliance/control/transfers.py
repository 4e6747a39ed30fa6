"""What is on its way to nodes, as rows for those who watch. A row that cannot be written stops nothing."""

import datetime as dt
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import Error as DatabaseError

from appliance.models import Node
from appliance.models.enrolments import Transfer
from provisioning.delivery import Progress
from provisioning.errors import ProvisioningError

KEPT: Final = 20
_WRITE_EVERY_S: Final = 0.5
#: Where a row could not be written, the delivery goes on without for so long: a locked database takes time.
_AGAIN_S: Final = 10.0

log = logging.getLogger(__name__)


class TransferRow:
    """One delivery's row; it appears with the first progress, or with a failure."""

    def __init__(self, node: str, kind: str, name: str, digest: str) -> None:
        self._node = node
        self._what = {"kind": kind, "name": name[:100], "digest": digest}
        self._row: Transfer | None = None
        self._written_at = float("-inf")

    def tell(self, progress: Progress) -> None:
        """Write how far it is, at most twice a second."""
        now = time.monotonic()
        if now - self._written_at < _WRITE_EVERY_S:
            return
        self._write(have_bytes=progress.have_bytes, total_bytes=progress.total_bytes)

    def done(self) -> None:
        """All is there."""
        if self._row is not None:
            self._end(Transfer.State.DONE, have_bytes=self._row.total_bytes)

    def failed(self, error: str) -> None:
        """It was cut or refused."""
        self._end(Transfer.State.FAILED, error=error[:1000])

    def _end(self, state: str, **values: object) -> None:
        self._write(state=state, finished_at=dt.datetime.now(dt.UTC), **values)

    def _write(self, **values: object) -> None:
        with _forgiving():
            self._written_at = time.monotonic() + _AGAIN_S
            row = self._row = self._row or self._begin()
            if row is not None:
                for name, value in values.items():
                    setattr(row, name, value)
                row.save(update_fields=list(values))
            self._written_at = time.monotonic()

    def _begin(self) -> Transfer | None:
        node = Node.objects.filter(name=self._node).first()
        if node is None:
            return None
        old = Transfer.objects.filter(node=node)
        kept = list(old.order_by("-id").values_list("pk", flat=True)[: KEPT - 1])
        old.exclude(pk__in=kept).delete()
        return Transfer.objects.create(node=node, **self._what)


@contextmanager
def shown_transfer(node: str, kind: str, name: str, digest: str) -> Iterator[TransferRow]:
    """A delivery with a row that ends as the delivery does."""
    row = TransferRow(node, kind, name, digest)
    try:
        yield row
    except ProvisioningError as error:
        row.failed(error.line)
        raise
    except Exception as error:
        row.failed(f"{type(error).__name__}: {error}")
        raise
    row.done()


def end_interrupted(node: str) -> None:
    """Say of a node's transfers that nobody carries on that they failed: the worker that did is gone."""
    with _forgiving():
        Transfer.objects.filter(node__name=node, state=Transfer.State.RUNNING).update(
            state=Transfer.State.FAILED, error="interrupted", finished_at=dt.datetime.now(dt.UTC)
        )


@contextmanager
def _forgiving() -> Iterator[None]:
    try:
        yield
    except DatabaseError:
        log.warning("a transfer could not be written", exc_info=True)

"""Imports of models: rows with a lease, done by a child process, started again where a worker died.

A conversion needs memory and time, so it runs outside the worker; what it says line by line becomes the
row's stage and percent.
"""

import contextlib
import json
import logging
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from appliance.control.lease import owner_is_dead, this_owner
from appliance.models import InferenceModel

LEASE_S = 15.0
LIMIT_S = 30 * 60.0
MAX_ATTEMPTS = 3
#: Imports at once: each wants memory and a core, and the loop needs threads of its own.
MAX_AT_ONCE = 2
_RENEW_EVERY_S = 3.0
_WRITE_EVERY_S = 0.5
_POLL_S = 0.5
_MAX_LINE_BYTES = 4 * 1024 * 1024
_ROOT = Path(__file__).resolve().parent.parent.parent
#: Said in place of the owner while a task for the row waits in the queue.
_QUEUED = "queued"

log = logging.getLogger(__name__)

#: Set when the worker ends: children are ended, their rows left for the next worker.
stopping = threading.Event()


@dataclass(frozen=True, slots=True)
class Failed(Exception):
    """The import cannot succeed; both texts are for people."""

    message: str
    hint: str


class Interrupted(Exception):
    """The worker ends, or the row was taken over or removed: nothing more is written."""


def due_imports() -> list[int]:
    """Claim the rows that want a task now, and give up on those that were interrupted too often.

    A claim holds for the time of a lease; where the task is lost the row is due again after that.
    """
    importing = InferenceModel.objects.filter(state=InferenceModel.State.IMPORTING)
    fresh = set(importing.filter(lease_expires_at__gt=Now()).values_list("pk", flat=True))
    free: list[InferenceModel] = []
    live = 0
    for row in importing:
        if row.pk in fresh and not owner_is_dead(row.lease_owner):
            live += 1
        else:
            free.append(row)
    due: list[int] = []
    for row in free:
        if row.attempt >= MAX_ATTEMPTS:
            _give_up(row)
        elif live + len(due) < MAX_AT_ONCE and _claim(row, row.lease_owner, _QUEUED, started=False):
            due.append(row.pk)
    return due


def run_import(model: int, *, command: Callable[[InferenceModel], list[str]] | None = None) -> None:
    """Do one import to its end. Does nothing where the row is gone, done, or somebody else's."""
    row = InferenceModel.objects.filter(pk=model, state=InferenceModel.State.IMPORTING).first()
    owner = f"{this_owner()}:{threading.get_ident()}"[-64:]
    if row is None or not _claim(row, _QUEUED, owner, started=True):
        return
    try:
        manifest = _run_child((command or import_command)(row), _Progress(model, owner))
    except Interrupted:
        return
    except Failed as failure:
        _finish(model, owner, state=InferenceModel.State.FAILED, error=failure.message, hint=failure.hint)
    except OSError as error:
        _finish(model, owner, state=InferenceModel.State.FAILED, error=f"the import could not run: {error}")
    else:
        _finish(
            model,
            owner,
            state=InferenceModel.State.READY,
            manifest=manifest,
            digest=str(manifest["digest"]),
            percent=100.0,
            error="",
            hint="",
        )


def import_command(row: InferenceModel) -> list[str]:
    """The catalog's own program, tied to this process."""
    from django.conf import settings  # noqa: PLC0415 - kept here so that tests need no home for it

    return [
        sys.executable, "-m", "appliance.control.child", str(os.getpid()), "appliance.catalog", "import",
        "--home", str(settings.ENVIRONMENT.home), "--name", row.name, "--from", row.source,
        "--task", row.task, "--quantization", row.quantization,
    ]  # fmt: skip


class _Progress:
    """Writes stage and percent, at most twice a second, and keeps the lease."""

    def __init__(self, model: int, owner: str) -> None:
        self._mine = InferenceModel.objects.filter(pk=model, lease_owner=owner)
        self._written_at = self._renewed_at = time.monotonic()
        self._news: dict[str, object] = {}

    def tell(self, said: Mapping[str, Any]) -> None:
        """Take in a line of the child."""
        with contextlib.suppress(TypeError, ValueError):
            self._news = {"stage": str(said["stage"])[:32], "percent": float(said.get("percent") or 0.0)}

    def keep(self) -> None:
        """Write what is due. Raises Interrupted where the row is not ours any more, or the worker ends."""
        if stopping.is_set():
            raise Interrupted
        now = time.monotonic()
        if not (self._news and now - self._written_at >= _WRITE_EVERY_S) and (
            now - self._renewed_at < _RENEW_EVERY_S
        ):
            return
        changes: dict[str, Any] = dict(self._news)
        if not self._mine.update(lease_expires_at=Now() + timedelta(seconds=LEASE_S), **changes):
            raise Interrupted
        self._news = {}
        self._written_at = self._renewed_at = now


def _run_child(command: list[str], progress: _Progress) -> dict[str, Any]:
    """Run it to its end; the manifest it gave. Raises Failed, Interrupted, OSError."""
    last: dict[str, Any] = {}
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(  # noqa: S603 - our own program
            command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
        )
        assert child.stdout is not None
        try:
            for said in _lines(child.stdout, progress, time.monotonic() + LIMIT_S):
                if "stage" in said:
                    progress.tell(said)
                else:
                    last = said
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass  # it said all it has to say
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
        return _outcome(last, child.returncode, complaints)


def _outcome(last: Mapping[str, Any], code: int, complaints: IO[bytes]) -> dict[str, Any]:
    result, error = last.get("result"), last.get("error")
    if isinstance(result, dict) and result.get("digest"):
        return result
    if isinstance(error, dict):
        raise Failed(str(error.get("message", ""))[:4000], str(error.get("hint", ""))[:4000])
    complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - 2000))
    tail = complaints.read().decode(errors="replace").strip().splitlines()[-5:]
    raise Failed("\n".join((f"the import ended without a result (exit code {code})", *tail)), "")


def _lines(stream: IO[bytes], progress: _Progress, until: float) -> Iterator[dict[str, Any]]:
    """JSON objects, one a line, while the lease is kept; others are skipped. Raises Failed after `until`."""
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            progress.keep()
            if time.monotonic() > until:
                raise Failed(f"the import took longer than {LIMIT_S / 60:.0f} minutes", "")
            if not selector.select(_POLL_S):
                continue
            piece = os.read(stream.fileno(), 64 * 1024)
            if not piece:
                return
            *lines, buffer = (buffer + piece).split(b"\n")
            if len(buffer) > _MAX_LINE_BYTES:
                raise Failed("the import said a line without an end", "")
            for line in lines:
                with contextlib.suppress(ValueError):
                    said = json.loads(line)
                    if isinstance(said, dict):
                        yield said


def _claim(row: InferenceModel, owner: str, new_owner: str, *, started: bool) -> bool:
    """Take over from `owner`; whether nobody else was first. One that started counts as an attempt."""
    changes: dict[str, Any] = {"attempt": F("attempt") + 1} if started else {}
    return bool(
        InferenceModel.objects.filter(
            pk=row.pk, state=InferenceModel.State.IMPORTING, lease_owner=owner, attempt=row.attempt
        ).update(lease_owner=new_owner, lease_expires_at=Now() + timedelta(seconds=LEASE_S), **changes)
    )


def _give_up(row: InferenceModel) -> None:
    _finish(
        row.pk,
        row.lease_owner,
        state=InferenceModel.State.FAILED,
        error=f"the import was interrupted {row.attempt} times: the worker ended while it ran",
        hint="See logs/worker.log in the state directory, then import it again.",
    )


def _finish(model: int, owner: str, **changes: Any) -> None:
    InferenceModel.objects.filter(pk=model, lease_owner=owner, state=InferenceModel.State.IMPORTING).update(
        lease_owner="", lease_expires_at=None, finished_at=timezone.now(), **changes
    )

"""Imports: rows with a lease, done by a child."""

import datetime as dt
import json
import sys

import pytest
from django.utils import timezone

from appliance.control import imports
from appliance.models import InferenceModel

pytestmark = pytest.mark.django_db(transaction=True)

RESULT = {"digest": "ab" * 32, "size_bytes": 5}


def wanted(name="tiny", **given):
    return InferenceModel.objects.create(name=name, source="dir:/models/tiny", **given)


def says(*lines, code=0, then="", complaint=""):
    """A child that says these lines."""
    said = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    program = "\n".join(
        (
            "import sys, time",
            f"sys.stderr.write({complaint!r})",
            f"print({said!r}, flush=True)",
            then,
            f"sys.exit({code})",
        )
    )
    return lambda row: [sys.executable, "-c", program]


def run(row, command):
    assert imports.due_imports() == [row.pk]
    imports.run_import(row.pk, command=command)
    row.refresh_from_db()


def test_result_makes_it_ready():
    """The manifest ends up in the row, and the lease is given back."""
    row = wanted()
    run(row, says({"stage": "download", "percent": 5, "detail": "x"}, "noise", {"result": RESULT}))
    assert (row.state, row.digest, row.size_bytes, row.percent) == ("ready", "ab" * 32, 5, 100.0)
    assert (row.attempt, row.lease_owner, row.lease_expires_at) == (1, "", None)
    assert row.finished_at is not None


@pytest.mark.parametrize(
    ("command", "error", "hint"),
    [
        pytest.param(
            says({"error": {"message": "no such package", "hint": "check the name"}}, code=1),
            "no such package", "check the name", id="said",
        ),
        pytest.param(says(complaint="MemoryError", code=9), "exit code 9)\nMemoryError", "", id="died"),
        pytest.param(says({"result": {}}), "without a result", "", id="no-digest"),
        pytest.param(lambda row: ["/does/not/exist"], "could not run", "", id="not-started"),
    ],
)  # fmt: skip
def test_failure_is_told(command, error, hint):
    """The row says why and what to do."""
    row = wanted()
    run(row, command)
    assert row.state == "failed"
    assert error in row.error
    assert row.hint == hint


def test_progress_is_seen(monkeypatch):
    """Stage and percent are in the row while the child works."""
    monkeypatch.setattr(imports, "_WRITE_EVERY_S", 0.0)
    monkeypatch.setattr(imports, "_POLL_S", 0.01)
    row, seen = wanted(), []
    keep = imports._Progress.keep

    def watch(progress):
        keep(progress)
        seen.append(InferenceModel.objects.values_list("stage", "percent").get(pk=row.pk))

    monkeypatch.setattr(imports._Progress, "keep", watch)
    then = 'print(\'{"stage": "convert", "percent": 40}\', flush=True)\ntime.sleep(0.3)'
    run(row, says({"stage": "download", "percent": 10}, then=then))
    assert ("convert", 40.0) in seen


def test_lost_work_is_taken_up_again():
    """A row whose worker died is due again, three times in all, then it has failed."""
    row = wanted()
    for attempt in range(1, 4):
        assert imports.due_imports() == [row.pk]
        assert imports.due_imports() == []
        InferenceModel.objects.update(
            attempt=attempt, lease_owner="x", lease_expires_at=timezone.now() - dt.timedelta(seconds=1)
        )
    assert imports.due_imports() == []
    row.refresh_from_db()
    assert row.state == "failed"
    assert "interrupted 3 times" in row.error


def test_few_at_once():
    """Two imports run at a time; the rest wait."""
    rows = [wanted(f"m{number}") for number in range(4)]
    assert imports.due_imports() == [rows[0].pk, rows[1].pk]
    assert imports.due_imports() == []


def test_task_of_a_row_that_is_done_does_nothing():
    """A task that comes late, or twice, runs no child."""
    row = wanted()
    run(row, says({"result": RESULT}))
    imports.run_import(row.pk, command=lambda row: pytest.fail("must not run"))
    imports.run_import(row.pk + 100, command=lambda row: pytest.fail("must not run"))


def test_ending_worker_leaves_the_row_to_the_next():
    """When the worker ends the child is ended and nothing is written."""
    row = wanted()
    imports.stopping.set()
    try:
        run(row, says(then="time.sleep(60)"))
    finally:
        imports.stopping.clear()
    assert (row.state, row.attempt) == ("importing", 1)


def test_removed_row_ends_the_child(monkeypatch):
    """Removing the model ends its import."""
    monkeypatch.setattr(imports, "_RENEW_EVERY_S", 0.0)
    monkeypatch.setattr(imports, "_POLL_S", 0.01)
    row = wanted()
    assert imports.due_imports() == [row.pk]

    def command(row):
        InferenceModel.objects.filter(pk=row.pk).delete()
        return says(then="time.sleep(60)")(row)

    imports.run_import(row.pk, command=command)
    assert not InferenceModel.objects.exists()


def test_time_limit(monkeypatch):
    """An import that takes too long has failed."""
    monkeypatch.setattr(imports, "LIMIT_S", 0.0)
    row = wanted()
    run(row, says(then="time.sleep(60)"))
    assert row.state == "failed"
    assert "longer than" in row.error

"""Verbs on models: imports that are asked for again, and what a removal takes along."""

import json

import pytest
from appliance_builders import make_model
from django.conf import settings

from appliance.catalog.store import Store
from appliance.deployments import deploy
from appliance.errors import VerbError
from appliance.imports import remove_model, request_import
from appliance.models import InferenceModel, Revision

State = InferenceModel.State


@pytest.fixture
def stored(transactional_db):
    """A model that is ready, with its files in the store."""
    store = Store(settings.ENVIRONMENT.models_dir)
    with store.partial() as partial:
        folder = partial / "model"
        folder.mkdir()
        (folder / "model.bin").write_bytes(b"weights")
        manifest = store.publish(folder, {"task": "embed", "source": "pypi:some-model"})
    yield make_model(digest=manifest["digest"]), store.path(manifest["digest"])
    store.remove(manifest["digest"])


def ask_again():
    return request_import("minilm", source="pypi:some-model", actor="test")


def test_finished_import_is_not_done_again(stored):
    """Asking for what is there changes nothing."""
    assert ask_again().state == State.READY


@pytest.mark.parametrize("damage", ["cut off", "file gone", "all gone", "manifest broken"])
def test_damaged_model_is_imported_again(stored, damage):
    """Files that are missing or cut off are made anew, though the row says ready."""
    entry, folder = stored
    if damage == "cut off":
        (folder / "model.bin").write_bytes(b"w")
    elif damage == "manifest broken":
        (folder / "manifest.json").write_text(json.dumps({"digest": entry.digest}))
    else:
        (folder / "model.bin").unlink()
        if damage == "all gone":
            (folder / "manifest.json").unlink()
            folder.rmdir()
    again = ask_again()
    assert (again.state, again.attempt, again.percent) == (State.IMPORTING, 0, 0.0)


def test_removal_takes_the_files_along(stored):
    """Nothing of a removed model stays in the store."""
    _, folder = stored
    remove_model("minilm", actor="test")
    assert not folder.exists()


def test_removal_leaves_files_that_another_model_has(stored):
    """Two names for the same content: the files go with the last one."""
    entry, folder = stored
    make_model(name="twin", digest=entry.digest)
    remove_model("minilm", actor="test")
    assert folder.exists()
    remove_model("twin", actor="test")
    assert not folder.exists()


def test_model_of_an_older_revision_is_named_as_used(stored):
    """A deployment that went on to another model still holds the old one, and the refusal names it."""
    deploy("mini", model="minilm", actor="test")
    make_model(name="other", digest="b" * 64)
    deploy("mini", model="other", actor="test")
    assert Revision.objects.count() == 2
    with pytest.raises(VerbError, match=r"used by: mini \(an older revision\)"):
        remove_model("minilm", actor="test")

"""The content-addressed store: whole models or none, and damage is noticed."""

import errno
import json

import pytest

from appliance.catalog.errors import BadModel, CatalogError, disk_errors
from appliance.catalog.importing import import_model
from appliance.catalog.store import compute_digest


def test_importing_again_changes_nothing(store, bert, home):
    """The same content gives the same digest and one folder."""
    first = import_model(store, str(bert))
    assert import_model(store, str(bert)) == first
    assert sorted(path.name for path in (home / "models").iterdir()) == [".lock", first["digest"]]
    assert store.list() == [first]


def test_the_digest_covers_files_and_settings_not_the_source(store, bert):
    """What the model is makes its digest; where it came from does not."""
    manifest = import_model(store, str(bert))
    assert compute_digest(manifest) == manifest["digest"]
    assert compute_digest({**manifest, "source": "elsewhere"}) == manifest["digest"]
    assert compute_digest({**manifest, "max_length": 7}) != manifest["digest"]
    assert import_model(store, str(bert), quantization="float32")["digest"] != manifest["digest"]


def test_agents_accept_what_the_store_holds(store, bert):
    """The agent's own reader finds manifest and files as it wants them."""
    from agents.manifest import read_manifest, verify_files  # noqa: PLC0415 - a contract test of both sides

    digest = import_model(store, str(bert))["digest"]
    manifest = read_manifest(store.path(digest))
    assert manifest.digest == digest
    verify_files(store.path(digest), manifest)


@pytest.mark.parametrize("name", ["model.bin", "tokenizer.json"])
def test_damage_is_noticed_and_mended_by_importing_again(store, bert, name):
    """A changed byte fails `verify`, and the next import puts a sound model in its place."""
    digest = import_model(store, str(bert))["digest"]
    path = store.path(digest) / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BadModel, match=f"{name} is missing or damaged"):
        store.verify(digest)
    assert import_model(store, str(bert))["digest"] == digest
    store.verify(digest)


def test_a_manifest_that_was_changed_is_noticed(store, bert):
    """A manifest cannot claim other settings under the same digest."""
    digest = import_model(store, str(bert))["digest"]
    path = store.path(digest) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_length": 9999}))
    with pytest.raises(BadModel, match="does not have the digest"):
        store.read(digest)
    assert store.list() == []


def test_remove(store, bert, home):
    """A removed model is gone whole; removing it again is harmless."""
    digest = import_model(store, str(bert))["digest"]
    store.remove(digest)
    store.remove(digest)
    assert [path.name for path in (home / "models").iterdir()] == [".lock"]
    with pytest.raises(CatalogError, match=f"no model {digest}"):
        store.read(digest)


@pytest.mark.parametrize("digest", ["", "..", "../../etc", "a" * 63, "A" * 64])
def test_what_is_no_digest_is_refused(store, digest):
    """A digest never leads out of the store."""
    with pytest.raises(CatalogError, match="is no digest"):
        store.path(digest)


def test_everything_is_private(store, bert):
    """The store is readable by this user alone."""
    digest = import_model(store, str(bert))["digest"]
    assert store.path(digest).parent.stat().st_mode & 0o777 == 0o700


def test_progress_never_falls_and_ends_at_100(store, bert):
    """Progress counts over the whole import."""
    seen = []
    import_model(store, str(bert), on_progress=seen.append)
    percents = [progress.percent for progress in seen]
    assert percents == sorted(percents)
    assert percents[-1] == 100.0
    assert {progress.stage for progress in seen} == {"convert", "store"}


def test_a_file_in_the_stores_place_is_one_clear_line(store, bert, home):
    """A state directory that cannot be used is named."""
    home.write_text("")
    with pytest.raises(CatalogError, match=f"the model store cannot be used: Not a directory: {home}"):
        import_model(store, str(bert))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        pytest.param(errno.ENOSPC, "storing: no space left at /models/x", id="full"),
        pytest.param(errno.EDQUOT, "storing: no space left at /models/x", id="quota"),
        pytest.param(errno.EACCES, "storing: Permission denied: /models/x", id="forbidden"),
    ],
)
def test_disk_errors_are_one_line_with_a_hint(tmp_path, number, message):
    """What the file system refuses becomes a line with the path, and may be tried again."""
    import os  # noqa: PLC0415 - only for the text of the error

    with pytest.raises(CatalogError, match=message) as caught, disk_errors("storing", tmp_path):
        raise OSError(number, os.strerror(number), "/models/x")
    assert caught.value.hint
    assert not caught.value.permanent

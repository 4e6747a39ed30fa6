"""The content-addressed store: `<home>/models/<digest>/` holds a manifest and the files it lists.

A model appears by one rename, whole, or not at all. Unfinished work lies in `.partial-*` folders, each
locked by the process that works there; a folder whose owner is dead is removed by the next import.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from appliance.catalog.errors import BadModel, CatalogError, disk_errors
from provisioning.file_lock import LockHeld, hold_lock

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
#: What the digest does not cover: itself, and what may differ between two imports of the same model.
UNDIGESTED: Final = ("digest", "source", "size_bytes")
_PARTIAL: Final = ".partial-"
_OWNER: Final = ".owner"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LOCK_TIMEOUT_S: Final = 60.0

Manifest = dict[str, Any]


class Store:
    """The models of one state directory. Safe to use from several processes at once.

    `models_dir` is `<home>/models`; it is made when first needed.
    """

    def __init__(self, models_dir: Path) -> None:
        self._root = models_dir.absolute()

    def path(self, digest: str) -> Path:
        """The folder of a model, there or not. Raises CatalogError where `digest` is none."""
        if not _DIGEST.fullmatch(digest):
            raise CatalogError(f"{digest[:80]!r} is no digest: 64 hexadecimal digits are accepted")
        return self._root / digest

    def list(self) -> list[Manifest]:
        """The manifests of all models, by digest. Unreadable ones are left out; `verify` says why."""
        found: list[Manifest] = []
        for folder in sorted(self._root.glob("*")):
            if _DIGEST.fullmatch(folder.name):
                with contextlib.suppress(CatalogError):
                    found.append(self.read(folder.name))
        return found

    def read(self, digest: str) -> Manifest:
        """A model's manifest, checked against its digest; the files are not looked at.

        Raises CatalogError where there is no such model, BadModel where the manifest is damaged.
        """
        path = self.path(digest) / MANIFEST
        with disk_errors("the model cannot be read", path):
            if not path.is_file():
                raise CatalogError(f"no model {digest} is in the store")
            raw = path.read_bytes()
        try:
            manifest = json.loads(raw)
            if manifest["digest"] != digest or compute_digest(manifest) != digest:
                raise BadModel(f"{path} does not have the digest {digest}", "import the model again")
        except (ValueError, TypeError, KeyError) as error:
            raise BadModel(f"{path} is damaged: {error}", "import the model again") from error
        return dict(manifest)

    def verify(self, digest: str) -> Manifest:
        """As `read`, and compare every file with its size and SHA-256.

        Raises BadModel naming the first that differs.
        """
        manifest = self.read(digest)
        folder = self.path(digest)
        for entry in manifest["files"]:
            path = folder / entry["path"]
            with disk_errors("the model cannot be verified", path):
                if not path.is_file() or describe_file(folder, entry["path"]) != entry:
                    raise BadModel(f"{path} is missing or damaged", "import the model again")
        return manifest

    def remove(self, digest: str) -> None:
        """Remove a model; harmless where it is gone already."""
        folder = self.path(digest)
        if folder.exists():
            removing = disk_errors("the model cannot be removed", folder)
            with self.partial() as partial, removing, contextlib.suppress(FileNotFoundError):
                folder.rename(partial / "removed")

    @contextlib.contextmanager
    def partial(self) -> Iterator[Path]:
        """A folder to work in, removed afterwards. What dead processes left is removed first."""
        with disk_errors("the model store cannot be used", self._root):
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._lock():
                self._clean_up()
                folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=self._root))
                owner = (folder / _OWNER).open("ab")
                fcntl.flock(owner, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            owner.close()

    def publish(self, folder: Path, manifest: Mapping[str, Any]) -> Manifest:
        """Move a finished model into the store; `folder` lies in a `partial` one and is gone afterwards.

        `manifest` has everything but files, sizes and digest. Where the same model is there already and
        sound, that one stays. Returns the manifest of what is in the store.
        """
        with disk_errors("the model cannot be stored", folder):
            whole = build_manifest(folder, manifest)
            (folder / MANIFEST).write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
            _sync(folder)
            target = self.path(whole["digest"])
            with self._lock():
                if target.exists():
                    try:
                        return self.verify(target.name)
                    except BadModel:
                        target.rename(folder.parent / "damaged")
                folder.rename(target)
            _sync_folder(self._root)
        return whole

    def _clean_up(self) -> None:
        """Remove partial folders that nobody holds. Called with the lock."""
        for folder in self._root.glob(f"{_PARTIAL}*"):
            try:
                with (folder / _OWNER).open("ab") as owner:
                    fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                continue  # at work
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)  # being removed already, or no folder of ours

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold_lock(self._root / ".lock", _LOCK_TIMEOUT_S))
            except LockHeld as held:
                raise CatalogError(str(held), permanent=False) from None
            yield


def compute_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON of what the digest covers."""
    covered = {key: value for key, value in manifest.items() if key not in UNDIGESTED}
    return hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def build_manifest(folder: Path, facts: Mapping[str, Any]) -> Manifest:
    """The facts, the files in the folder, their sizes, and the digest over all of it."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = [describe_file(folder, name) for name in names if name != MANIFEST]
    manifest = {**facts, "format": FORMAT, "files": files, "size_bytes": sum(file["bytes"] for file in files)}
    return {**manifest, "digest": compute_digest(manifest)}


def describe_file(folder: Path, name: str) -> dict[str, Any]:
    """A file as a manifest lists it: path, bytes, sha256."""
    with (folder / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"path": name, "bytes": file.tell(), "sha256": digest}


def _sync(folder: Path) -> None:
    """Bring a folder's files to the disk, so that a power cut after the rename leaves no empty ones."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

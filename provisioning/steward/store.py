"""Receives files by digest, and makes releases and models of them."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, Protocol

from .answers import Answers
from .errors import Refusal
from .files import check_space, make_folder, remove, sync_folder, write_whole
from .places import Places

PIECE_BYTES: Final = 256 * 1024
MAX_RELEASE_BYTES: Final = 8 << 30
MAX_RELEASE_FILES: Final = 100_000
PARTIAL_KEPT_S: Final = 7 * 24 * 3600
_COMPILE_S: Final = 300
#: Longer than it takes to notice that a caller was cut off (`main.IDLE_S`).
_BUSY_S: Final = 20.0
#: An install goes on to its end without its caller, so who asks again waits for that.
_INSTALL_BUSY_S: Final = 600.0
_STAGED_KEPT_S: Final = 3600
#: What a model's digest does not cover.
_UNDIGESTED: Final = ("digest", "source", "size_bytes")


class Readable(Protocol):
    """Where bytes come from."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self, limit: int, /) -> bytes: ...


class Store:
    """Blobs, releases and models under the steward's home."""

    def __init__(self, places: Places) -> None:
        self._places = places
        for name in ("blobs", "partial"):
            make_folder(places.home / name, 0o700)
        for name in ("releases", "models"):
            make_folder(places.home / name)

    def missing(self, wanted: Mapping[str, Any]) -> dict[str, object]:
        """Which of the digests are not here, and of each blob how many bytes are."""
        places = self._places
        return {
            "releases": [one for one in wanted["releases"] if not places.release(one).is_dir()],
            "models": [one for one in wanted["models"] if not places.model(one).is_dir()],
            "blobs": {one: _size(places.partial(one)) for one in wanted["blobs"] if not self._has(one)},
        }

    def receive(
        self, sha256: str, total: int, offset: int, stream: Readable, answers: Answers
    ) -> dict[str, object]:
        """Append `total - offset` bytes of the stream to what is here; whole files are checked and kept.

        Raises Refusal: `wrong_offset` where another number of bytes is here, `cut_short` where the stream
        ends early (what came is kept), `wrong_digest` (what came is thrown away), `disk_full`, `busy`.
        """
        if self._has(sha256):
            return {"have": total, "complete": True}
        path = self._places.partial(sha256)
        with self._own(path, answers) as file:
            if self._has(sha256):  # another sent it meanwhile
                path.unlink()
                return {"have": total, "complete": True}
            have = os.fstat(file.fileno()).st_size
            if have > total or (offset not in (0, have)):
                raise Refusal("wrong_offset", f"{have} bytes are here, {offset} were taken for here")
            if offset == 0:
                file.truncate(0)
            check_space(path.parent, total - offset)
            digest = self._append(file, offset, total, stream, answers)
            if digest != sha256:
                path.unlink()
                raise Refusal("wrong_digest", f"received bytes have SHA-256 {digest}", "send them again")
            path.replace(self._places.blob(sha256))
        return {"have": total, "complete": True}

    def _append(self, file: BinaryIO, offset: int, total: int, stream: Readable, answers: Answers) -> str:
        digest = hashlib.sha256()
        file.seek(0)
        left = offset
        while left and (piece := file.read(min(left, PIECE_BYTES))):
            digest.update(piece)
            left -= len(piece)
        have = offset
        while have < total:
            piece = stream.read(min(PIECE_BYTES, total - have))
            if not piece:
                file.flush()
                raise Refusal("cut_short", f"{have} of {total} bytes came", "send the rest from there")
            file.write(piece)
            digest.update(piece)
            have += len(piece)
            answers.progress(have=have, total=total)
        file.flush()
        os.fsync(file.fileno())
        return digest.hexdigest()

    def install_release(self, sha256: str, answers: Answers) -> dict[str, object]:
        """Unpack a received blob; harmless where that release is here already. Raises Refusal."""
        place, blob = self._places.release(sha256), self._places.blob(sha256)
        if place.is_dir():
            remove(blob)
            return {"installed": False}
        if not blob.is_file():
            raise Refusal("not_received", f"release {sha256} was not received", "send it first")
        staged = place.with_name(f".new-{sha256}")
        with self._own(self._places.partial(f"{sha256}.lock"), answers, remove_after=True):
            if place.is_dir():  # another did it meanwhile
                return {"installed": False}
            remove(staged)
            make_folder(staged)
            try:
                _unpack(blob, staged, answers)
                _compile(staged, answers)
            except BaseException:
                remove(staged)
                raise
            staged.rename(place)
            sync_folder(place.parent)
            remove(blob)
        return {"installed": True}

    def install_model(self, manifest: Mapping[str, Any], answers: Answers) -> dict[str, object]:
        """Put received blobs together as a model, each verified on the way. Raises Refusal."""
        digest = str(manifest["digest"])
        place = self._places.model(digest)
        covered = {key: value for key, value in manifest.items() if key not in _UNDIGESTED}
        if hashlib.sha256(canonical(covered)).hexdigest() != digest:
            raise Refusal("wrong_digest", "the manifest's content does not have the digest that it says")
        if place.is_dir():
            return {"installed": False}
        sources = {entry["path"]: self._places.blob(entry["sha256"]) for entry in manifest["files"]}
        for entry in manifest["files"]:
            if _size(sources[entry["path"]]) != entry["bytes"] or not self._has(entry["sha256"]):
                raise Refusal("not_received", f"model file {entry['path']} was not received", "send it first")
        staged = place.with_name(f".new-{digest}")
        with self._own(self._places.partial(f"{digest}.lock"), answers, remove_after=True):
            if place.is_dir():
                return {"installed": False}
            remove(staged)
            make_folder(staged)
            for number, (name, blob) in enumerate(sources.items()):
                target = staged / name
                make_folder(target.parent)
                os.link(blob, target)
                target.chmod(0o644)
                answers.progress(files=number + 1, of=len(sources))
            write_whole(staged / "manifest.json", json.dumps(manifest, indent=1).encode(), 0o644)
            staged.rename(place)
            sync_folder(place.parent)
        for blob in set(sources.values()):
            remove(blob)
        return {"installed": True}

    def prune(self, keep_releases: set[str], keep_models: set[str], now: float) -> dict[str, object]:
        """Remove all other releases and models, what half-unpacked ones left, and old partial files."""
        removed: dict[str, object] = {}
        for kind, keep in (("releases", keep_releases), ("models", keep_models)):
            folder = self._places.home / kind
            gone = [path for path in folder.iterdir() if path.name not in keep and _is_over(path, now)]
            for path in gone:
                remove(path)
            removed[kind] = sorted(path.name for path in gone if not path.name.startswith("."))
        old = [path for name in ("partial", "blobs") for path in (self._places.home / name).iterdir()]
        for path in old:
            if now - path.stat().st_mtime > PARTIAL_KEPT_S:
                remove(path)
        return removed

    def _has(self, sha256: str) -> bool:
        return self._places.blob(sha256).is_file()

    @contextmanager
    def _own(self, path: Path, answers: Answers, *, remove_after: bool = False) -> Iterator[BinaryIO]:
        """The file, open for this process alone. Raises Refusal (code `busy`) where another has it."""
        deadline = time.monotonic() + (_INSTALL_BUSY_S if remove_after else _BUSY_S)
        while (file := _open_locked(path)) is None:
            if time.monotonic() > deadline:
                raise Refusal("busy", "the same file is being worked on", "try again in a moment")
            answers.progress(waiting=True)
            time.sleep(0.05)
        with file:
            yield file
            if remove_after:
                path.unlink(missing_ok=True)


def _open_locked(path: Path) -> BinaryIO | None:
    """The file with its lock; None while another has it, or has just moved it away."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_ino == path.stat().st_ino:
            return os.fdopen(handle, "r+b")
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None


def canonical(document: Mapping[str, Any]) -> bytes:
    """The bytes that a manifest's digest is taken of."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _is_over(path: Path, now: float) -> bool:
    """Whether nobody is just unpacking it."""
    return not path.name.startswith(".") or now - path.stat().st_mtime > _STAGED_KEPT_S


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _unpack(blob: Path, target: Path, answers: Answers) -> None:
    """Plain files and folders with relative names only; everything else is refused."""
    written = count = 0
    try:
        with tarfile.open(blob, "r:gz") as archive:
            for member in archive:
                count, written = count + 1, written + member.size
                if count > MAX_RELEASE_FILES or written > MAX_RELEASE_BYTES:
                    raise Refusal("bad_release", "the release is larger than any of ours")
                _unpack_one(archive, member, target)
                answers.progress(files=count)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Refusal("bad_release", "the release is no tar archive of ours") from error


def _unpack_one(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    parts = PurePosixPath(member.name).parts
    if not parts or member.name.startswith("/") or ".." in parts or "\0" in member.name:
        raise Refusal("bad_release", "the release holds a path that leads out of it")
    place = target.joinpath(*parts)
    if member.isdir():
        make_folder(place)
        return
    source = archive.extractfile(member) if member.isreg() else None
    if source is None:
        raise Refusal("bad_release", "the release holds something that is neither file nor folder")
    check_space(target, member.size)
    place.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "wb") as file:
        while piece := source.read(PIECE_BYTES):
            file.write(piece)
        os.fchmod(file.fileno(), 0o755 if member.mode & 0o100 else 0o644)


def _compile(folder: Path, answers: Answers) -> None:
    """Byte-compile the release, so that agents, which may not write there, start at once.

    One that came with this interpreter's bytecode is left as it is.
    """
    if (folder / "agents" / "__pycache__" / f"__main__.{sys.implementation.cache_tag}.pyc").is_file():
        return
    child = subprocess.Popen(  # noqa: S603 - a fixed program and a path of ours, no shell
        ["/usr/bin/python3", "-I", "-m", "compileall", "-q", "-q", "-j", "0", str(folder)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + _COMPILE_S
    try:
        while child.poll() is None and time.monotonic() < deadline:
            answers.progress(compiling=True)
            time.sleep(0.02)
    finally:
        if child.poll() is None:  # what is not compiled is only slower to import
            child.kill()
            child.wait()

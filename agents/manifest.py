"""The manifest of a model directory: what the model is, and digests that its files must have."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from agents.errors import ModelError

MANIFEST_NAME: Final = "manifest.json"
MANIFEST_FORMAT: Final = 1
#: Keys of the manifest that its digest does not cover.
UNDIGESTED: Final = ("digest", "source", "size_bytes")

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of the model; `path` is relative to the model directory."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an engine must know. `max_length` counts tokens, special ones included."""

    digest: str
    task: str
    engine: str
    quantization: str
    dimensions: int
    max_length: int
    vocabulary_size: int
    pooling: Pooling
    normalize: bool
    files: tuple[ModelFile, ...]


def compute_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON of what a manifest says, its digest left out."""
    covered = {key: value for key, value in manifest.items() if key not in UNDIGESTED}
    return hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(model_dir: Path) -> Manifest:
    """Read a model's manifest and check it against its own digest. Raises ModelError."""
    path = model_dir / MANIFEST_NAME
    try:
        return parse_manifest(path.read_bytes())
    except OSError as error:
        raise ModelError(f"model manifest {str(path)!r} cannot be read: {error.strerror}") from error


def parse_manifest(raw: bytes) -> Manifest:
    """Check a manifest given as JSON. Raises ModelError naming what is wrong with it."""
    try:
        given = json.loads(raw)
        if given["format"] != MANIFEST_FORMAT:
            raise ModelError(
                f"model manifest has format {given['format']!r}; this agent reads {MANIFEST_FORMAT}"
            )
        if given["digest"] != compute_digest(given):
            raise ModelError(
                f"model manifest says digest {given['digest']!r}, its own content has {compute_digest(given)}"
            )
        if given["pooling"] not in ("mean", "cls"):
            raise ModelError(f"model manifest has pooling {given['pooling']!r}; mean or cls is accepted")
        return Manifest(
            digest=given["digest"],
            task=given["task"],
            engine=given["engine"],
            quantization=given["quantization"],
            dimensions=int(given["dimensions"]),
            max_length=int(given["max_length"]),
            vocabulary_size=int(given["vocabulary_size"]),
            pooling=given["pooling"],
            normalize=bool(given["normalize"]),
            files=tuple(_file(entry) for entry in given["files"]),
        )
    except KeyError as error:
        raise ModelError(f"model manifest lacks {error.args[0]!r}") from error
    except (ValueError, TypeError) as error:
        raise ModelError(f"model manifest not understood: {error}") from error


def verify_files(model_dir: Path, manifest: Manifest) -> None:
    """Compare every file with its size and SHA-256. Raises ModelError naming the first that differs."""
    for entry in manifest.files:
        path = model_dir / entry.path
        try:
            size = path.stat().st_size
            if size != entry.size_bytes:
                raise ModelError(
                    f"model file {str(path)!r} has {size} bytes; the manifest says {entry.size_bytes}"
                )
            with path.open("rb") as stream:
                found = _sha256(stream)
        except OSError as error:
            raise ModelError(f"model file {str(path)!r} cannot be read: {error.strerror}") from error
        if found != entry.sha256:
            raise ModelError(
                f"model file {str(path)!r} has SHA-256 {found}; the manifest says {entry.sha256}"
            )


def _sha256(stream: Any) -> str:
    digest = hashlib.sha256()
    while piece := stream.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _file(entry: dict[str, Any]) -> ModelFile:
    path = PurePosixPath(entry["path"])
    if path.is_absolute() or ".." in path.parts:
        raise ModelError(f"model manifest names {entry['path']!r}; paths inside the model are accepted")
    return ModelFile(str(path), int(entry["bytes"]), entry["sha256"])

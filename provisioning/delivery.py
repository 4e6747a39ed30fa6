"""Brings releases and models to a node: by digest, only what is missing, resumed after a cut."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioning.bundle import Release
from provisioning.steward_client import LONG, StewardClient


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a delivery is: bytes on the node and bytes in all; `what` is for people."""

    what: str
    have_bytes: int
    total_bytes: int


OnDelivery = Callable[[Progress], None]


def deliver_release(client: StewardClient, release: Release, tell: OnDelivery | None = None) -> bool:
    """Have the node run this release; False where it was there already."""
    told = client.missing(releases=[release.sha256], blobs=[release.sha256])
    if not told["releases"]:
        return False
    teller = _teller("release", 0, release.size_bytes, tell)
    client.send_file(release.path, release.sha256, teller, missing=told["blobs"])
    client.ask("install_release", sha256=release.sha256, limits=LONG)
    return True


def deliver_model(client: StewardClient, model_dir: Path, tell: OnDelivery | None = None) -> bool:
    """Have the node hold this model; False where it was there already.

    Raises OSError or ValueError where the appliance's own copy cannot be read.
    """
    manifest: dict[str, Any] = json.loads((model_dir / "manifest.json").read_bytes())
    told = client.missing(
        models=[manifest["digest"]], blobs=sorted({entry["sha256"] for entry in manifest["files"]})
    )
    if not told["models"]:
        return False
    total = sum(entry["bytes"] for entry in manifest["files"])
    before = 0
    for entry in manifest["files"]:
        teller = _teller("model", before, total, tell)
        client.send_file(model_dir / entry["path"], entry["sha256"], teller, missing=told["blobs"])
        before += entry["bytes"]
    client.ask("install_model", manifest=manifest, limits=LONG)
    return True


def _teller(what: str, before: int, total: int, tell: OnDelivery | None) -> Callable[[int, int], None]:
    def told(have: int, _of: int) -> None:
        if tell is not None:
            tell(Progress(what, before + have, total))

    return told

"""Builders for the tests of the steward: one with its directories elsewhere, asked in this process."""

import io
import json
from pathlib import Path

from provisioning.steward.answers import Answers
from provisioning.steward.main import Steward
from provisioning.steward.places import Places

AGENT = "minilm-3fa9c1"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


class RecordedSystem:
    """Stands for the programs of a node: remembers what was called, answers what it was told to."""

    def __init__(self, **answers: bytes):
        self.calls: list[tuple[str, ...]] = []
        self.answers = answers

    def call(self, *command, check=True, timeout_s=30.0, limit_bytes=1 << 20):
        self.calls.append(command)
        return self.answers.get(command[1], b"")[-limit_bytes:]

    def bind(self, pid, cpus):
        self.calls.append(("bind", str(pid), str(cpus)))


def make_places(folder: Path) -> Places:
    places = Places(
        home=folder / "home", units=folder / "units", programs=folder / "programs",
        sudo_rule=folder / "sudoers" / "millwright", root_home=folder / "root",
    )  # fmt: skip
    for path in (places.units, places.programs, places.sudo_rule.parent):
        path.mkdir(parents=True, exist_ok=True)
    return places


def make_steward(folder: Path, system: RecordedSystem) -> Steward:
    return Steward(make_places(folder), system)


def ask(steward: Steward, request: bytes) -> tuple[int, dict]:
    """Exit code, and the last line of the answer."""
    told = io.BytesIO()
    code = steward.serve(io.BytesIO(request), Answers(told))
    return code, json.loads(told.getvalue().splitlines()[-1])


def snapshot(folder: Path, leave_out: Path) -> dict[str, bytes | None]:
    """Every path under a folder with its content."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if leave_out not in (path, *path.parents)
    }

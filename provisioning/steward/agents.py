"""Agents as systemd units: written, started, stopped, looked at."""

import binascii
import grp
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from .errors import Refusal
from .files import make_folder, remove, write_whole
from .places import AGENT_ACCOUNT, UNIT_PREFIX, Places, unit_name
from .system import System
from .units import Unit, build_unit

_PEM_BEGINS: Final = "-----BEGIN CERTIFICATE-----"
_PEM_ENDS: Final = "-----END CERTIFICATE-----"
LINE_CHARACTERS: Final = 1000
LOG_BYTES: Final = 256 * 1024
_SHOWN: Final = (
    "Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "Job", "MainPID",
    "ExecMainStatus", "ExecMainCode", "NRestarts", "MemoryCurrent", "ActiveEnterTimestampMonotonic",
)  # fmt: skip


class Agents:
    """The agents of this node."""

    def __init__(self, places: Places, system: System) -> None:
        self._places = places
        self._system = system
        make_folder(places.home / "agents")

    def write(self, asked: Mapping[str, Any]) -> dict[str, object]:
        """Write an agent's files and its unit; says whether anything changed. Raises Refusal."""
        name, release, model = asked["agent"], asked["release"], asked["model"]
        places = self._places
        if not places.release(release).is_dir():
            raise Refusal("not_installed", f"release {release} is not installed", "install it first")
        if model is not None and not places.model(model).is_dir():
            raise Refusal("not_installed", f"model {model} is not installed", "install it first")
        folder = places.agent(name)
        tls = {"ca": "ca.pem", "certificate": "cert.pem", "key": "key.pem"}
        config = {
            **asked["config"],
            "agent": name,
            "model_dir": None if model is None else str(places.model(model)),
            "tls": {kind: str(folder / file) for kind, file in tls.items()},
        }
        group = _agent_group()
        make_folder(folder, 0o750, group)
        # The key before its certificate: with the new certificate the pair is whole.
        files = {"ca.pem": asked["ca"], "key.pem": asked["key"], "cert.pem": asked["certificate"]}
        files["config.json"] = json.dumps(config, indent=1, sort_keys=True)
        changed = [file for file, text in files.items() if _differs(folder / file, text)]
        for file in changed:
            write_whole(folder / file, files[file].encode(), 0o640, group)
        unit = Unit(name, release, model, asked["memory_max_bytes"], asked["cpus"])
        return {"changed": changed + self._write_unit(unit)}

    def bring(self, asked: Sequence[Mapping[str, Any]]) -> dict[str, object]:
        """Write agents and start them all, now and at boot; of each what changed, or why it was not written.

        Returns at once, as `start`. Raises Refusal.
        """
        told: dict[str, object] = {}
        units = []
        for one in asked:
            try:
                told[one["agent"]] = self.write(one)
                units.append(unit_name(one["agent"]))
            except Refusal as refusal:
                told[one["agent"]] = refusal.as_answer()
        if units:
            self._system.call("systemctl", "reset-failed", *units, check=False)
            self._enable(*units)
            try:
                self._system.call("systemctl", "start", "--no-block", *units)
            except Refusal:  # what it knows of them may be old
                self._system.call("systemctl", "daemon-reload")
                self._system.call("systemctl", "start", "--no-block", *units)
        return {"agents": told}

    def set_limits(self, name: str, memory_max_bytes: int | None, cpus: tuple[int, ...] | None) -> None:
        """Change what an agent may use, also while it runs. Raises Refusal."""
        self._write_unit(replace(self._unit_of(name), memory_max_bytes=memory_max_bytes, cpus=cpus))
        shown = self._show([unit_name(name)])
        pid = shown[0].get("MainPID", "0") if shown else "0"
        if pid.isdigit() and pid != "0":  # systemd binds a process to processors only when it starts it
            self._system.bind(int(pid), cpus)

    def start(self, name: str) -> None:
        """Start it and have it start at boot; returns at once. Raises Refusal."""
        self._unit_of(name)
        self._system.call("systemctl", "reset-failed", unit_name(name), check=False)
        self._system.call("systemctl", "start", "--no-block", unit_name(name))
        self._enable(unit_name(name))

    def stop(self, name: str, *, kill: bool) -> None:
        """Have it drain and end, or end it; no longer start it at boot. Returns at once. Raises Refusal."""
        if not self._places.unit(name).is_file():
            return
        self._disable(unit_name(name))
        self._system.call("systemctl", "stop", "--no-block", unit_name(name))
        if kill:
            self._system.call("systemctl", "kill", "--signal=SIGKILL", unit_name(name), check=False)

    def forget(self, name: str) -> None:
        """Remove what is left of an agent that has ended. Raises Refusal while it runs."""
        if self._places.unit(name).is_file():
            shown = self._show([unit_name(name)])
            if any(one.get("ActiveState") not in ("inactive", "failed") for one in shown):
                raise Refusal("running", f"agent {name} is still running", "stop it first")
            self._disable(unit_name(name))
            self._places.unit(name).unlink()
            self._system.call("systemctl", "reset-failed", unit_name(name), check=False)
            if any(one.get("LoadState") == "loaded" for one in self._show([unit_name(name)])):
                self._system.call("systemctl", "daemon-reload")  # it holds on to what was there at boot
        remove(self._places.agent(name))

    def status(self) -> dict[str, object]:
        """All agents: what systemd says, and what each was written from."""
        names = self.names()
        shown = {str(one.get("Id")): one for one in self._show([unit_name(name) for name in names])}
        return {name: {"unit": shown.get(unit_name(name), {}), **self._written(name)} for name in names}

    def logs(self, name: str, lines: int) -> dict[str, object]:
        """The end of an agent's journal: at most `lines` lines, each cut and made printable."""
        raw = self._system.call(
            "journalctl", f"--unit={unit_name(name)}", f"--lines={lines}", "--no-pager", "--quiet",
            "--output=short-iso", limit_bytes=LOG_BYTES, check=False,
        )  # fmt: skip
        text = raw.decode(errors="replace").splitlines()[-lines:]
        return {"lines": [_printable(line[:LINE_CHARACTERS]) for line in text]}

    def names(self) -> list[str]:
        """Every agent that was written here, or of which a unit is left."""
        written = {path.name for path in (self._places.home / "agents").iterdir() if path.is_dir()}
        units = {path.name[len(UNIT_PREFIX) : -len(".service")] for path in self.unit_files()}
        return sorted(written | units)

    def unit_files(self) -> list[Path]:
        """The unit files of agents."""
        return sorted(self._places.units.glob(f"{UNIT_PREFIX}*.service"))

    def used(self) -> tuple[set[str], set[str]]:
        """Digests of the releases and models that agents were written for."""
        units = [self._unit_of(name) for name in self.names() if self._unit_path(name).is_file()]
        return {unit.release for unit in units}, {unit.model for unit in units if unit.model is not None}

    # What is done at boot is read at boot: systemd need not read all units again now, which takes it 0.2 s.

    def _enable(self, *units: str) -> None:
        self._system.call("systemctl", "enable", "--no-reload", "--quiet", *units)

    def _disable(self, *units: str) -> None:
        self._system.call("systemctl", "disable", "--no-reload", "--quiet", *units)

    def _unit_path(self, name: str) -> Path:
        return self._places.agent(name) / "unit.json"

    def _unit_of(self, name: str) -> Unit:
        try:
            given = json.loads(self._unit_path(name).read_text())
        except (OSError, ValueError):
            raise Refusal(
                "no_agent", f"agent {name} was not written on this node", "write it first"
            ) from None
        given["cpus"] = None if given["cpus"] is None else tuple(given["cpus"])
        return Unit(**given)

    def _write_unit(self, unit: Unit) -> list[str]:
        text = build_unit(unit, self._places)
        path = self._places.unit(unit.agent)
        changed, known = _differs(path, text), path.exists()
        write_whole(self._unit_path(unit.agent), json.dumps(asdict(unit)).encode(), 0o600)
        if changed:
            write_whole(path, text.encode(), 0o644)
            if known:  # a new one systemd reads when it is first asked for it
                self._system.call("systemctl", "daemon-reload")
        return ["unit"] if changed else []

    def _written(self, name: str) -> dict[str, object]:
        folder = self._places.agent(name)
        digests: dict[str, object] = {}
        for file in ("config.json", "cert.pem", "ca.pem"):
            try:
                digests[file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
            except OSError:
                digests[file] = None
        told = {"sha256": digests, "certificate_sha256": _certificate_digest(folder / "cert.pem")}
        try:
            return {"written": asdict(self._unit_of(name)), **told}
        except Refusal:
            return {"written": None, **told}

    def _show(self, units: list[str]) -> list[dict[str, str]]:
        if not units:
            return []
        raw = self._system.call("systemctl", "show", f"--property={','.join(_SHOWN)}", "--", *units)
        blocks = raw.decode(errors="replace").strip().split("\n\n")
        return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]


def _agent_group() -> int:
    """The group that agents run in; -1, so that nothing changes, where there is none."""
    try:
        return grp.getgrnam(AGENT_ACCOUNT).gr_gid
    except KeyError:
        return -1


def _certificate_digest(path: Path) -> str:
    """SHA-256 of the first certificate of a PEM file, in DER; '' where there is none."""
    try:
        before, ending, _ = path.read_text(encoding="ascii").partition(_PEM_ENDS)
        _, beginning, body = before.partition(_PEM_BEGINS)
        if not beginning or not ending:
            return ""
        der = binascii.a2b_base64(body)
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(der).hexdigest()


def _differs(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") != text
    except OSError:
        return True


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in line)

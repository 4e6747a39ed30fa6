"""What `enroll_node` is told: boxes from arguments or a CSV file, and with what to log in."""

import csv
import getpass
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from django.core.management.base import CommandError

from appliance.enrolling import EnrolmentRequest
from appliance.errors import VerbError
from appliance.models.nodes import LOCAL_NODE
from appliance.node_attributes import (
    check_address,
    check_attributes,
    check_name,
    check_port,
    check_user,
    default_name,
    parse_labels,
)
from appliance.sealing import MAX_PASSWORD
from provisioning.errors import NodeError
from provisioning.hostkeys import parse_pin
from provisioning.login import KeyFile, Password, SshAgent, Way
from provisioning.transport import Secret

MAX_ROWS: Final = 10_000
MAX_CSV_BYTES: Final = 8 * 1024 * 1024
MAX_NAMED: Final = 20
COLUMNS: Final = (
    "address", "name", "user", "port", "host_key", "label", "region", "cost_per_hour", "preemptible", "power",
)  # fmt: skip
_DEFAULT_KEYS: Final = ("id_ed25519", "id_ecdsa", "id_rsa")


def refuse(message: str) -> CommandError:
    """The error for bad arguments: exit code 2."""
    return CommandError(message, returncode=2)


def read_targets(options: Mapping[str, Any]) -> list[EnrolmentRequest]:
    """The boxes, every one checked; host_key is '' where it was not said. Raises CommandError (2)."""
    addresses: list[str] = options["address"]
    given = {
        "name": options["name"], "user": options["user"], "port": options["port"],
        "host_key": options["host_key"], "label": ";".join(options["label"] or ()),
        "region": options["region"], "cost_per_hour": options["cost_per_hour"],
        "preemptible": "yes" if options["preemptible"] else "", "power": options["power"],
    }  # fmt: skip
    if bool(addresses) == bool(options["source"]):
        raise refuse("give one ADDRESS or more, or --from FILE.csv (one of the two)")
    if options["source"]:
        if given["name"] or given["host_key"]:
            raise refuse("with --from, names and host keys are columns of the file: name, host_key")
        return _read_csv(Path(options["source"]), given)
    if len(addresses) > 1 and (given["name"] or given["host_key"]):
        raise refuse("--name and --host-key are for one ADDRESS: use --from FILE.csv for many")
    wrong: list[str] = []
    found = [(address, _target({**given, "address": address}, wrong, "")) for address in addresses]
    return _whole(found, wrong)


def _read_csv(path: Path, defaults: Mapping[str, Any]) -> list[EnrolmentRequest]:
    try:
        if path.stat().st_size > MAX_CSV_BYTES:
            raise refuse(f"{str(path)!r} is over {MAX_CSV_BYTES >> 20} MiB")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise refuse(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise refuse(f"{str(path)!r} is no text in UTF-8") from None
    rows = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        heads = [head.strip().lower() for head in next(rows, [])]
        unknown = [head for head in heads if head not in COLUMNS]
        if "address" not in heads or unknown or len(set(heads)) != len(heads):
            wrong_head = (
                f"; not known: {', '.join(repr(head[:40]) for head in unknown[:5])}" if unknown else ""
            )
            raise refuse(
                f"{path.name} line 1: a heading is needed with address, and any of "
                f"{', '.join(COLUMNS[1:])}, each once{wrong_head}"
            )
        return _read_rows(path.name, heads, rows, defaults)
    except csv.Error as error:
        raise refuse(f"{path.name} line {rows.line_num}: {error}") from None


def _read_rows(
    name: str, heads: list[str], rows: "Any", defaults: Mapping[str, Any]
) -> list[EnrolmentRequest]:
    wrong: list[str] = []
    found: list[tuple[str, EnrolmentRequest | None]] = []
    for cells in rows:
        where = f"{name} line {rows.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(heads):
            wrong.append(f"{where}: {len(cells)} cells, the heading has {len(heads)}")
            continue
        said = {head: cell.strip() for head, cell in zip(heads, cells, strict=False) if cell.strip()}
        found.append((where, _target({**defaults, "address": "", **said}, wrong, f"{where}: ")))
        if len(found) > MAX_ROWS:
            raise refuse(f"{name} has more than {MAX_ROWS} rows")
    if not found and not wrong:
        raise refuse(f"{name} names no box")
    return _whole(found, wrong)


def _whole(found: Iterable[tuple[str, EnrolmentRequest | None]], wrong: list[str]) -> list[EnrolmentRequest]:
    """All of them, no box and no name twice. Raises CommandError naming every one that is wrong."""
    places: dict[tuple[str, int], str] = {}
    names: dict[str, str] = {}
    targets = []
    for where, target in found:
        if target is None:
            continue
        first = places.setdefault((target.address, target.port), where)
        if first is not where:
            wrong.append(f"{where}: {target.address} port {target.port} was named before ({first})")
        elif target.name and names.setdefault(target.name, where) is not where:
            wrong.append(f"{where}: name {target.name!r} was given before ({names[target.name]})")
        targets.append(target)
    if wrong:
        more = len(wrong) - MAX_NAMED
        raise refuse("\n".join([*wrong[:MAX_NAMED], *([f"and {more} more"] if more > 0 else [])]))
    return targets


def _target(said: Mapping[str, Any], wrong: list[str], where: str) -> EnrolmentRequest | None:
    """One box; None where something is wrong, which is added to `wrong`."""
    attributes: dict[str, object] = {}
    try:
        if said["label"]:
            attributes["labels"] = parse_labels(part for part in said["label"].split(";") if part.strip())
        for key in ("region", "cost_per_hour", "preemptible", "power"):
            if said[key] not in (None, ""):
                attributes[key] = said[key]
        address = check_address(said["address"])
        name = str(said["name"] or "")
        check_name(name or default_name(address))
        if name == LOCAL_NODE:
            raise VerbError(f"name {LOCAL_NODE!r} is the appliance's own machine: take another")  # noqa: TRY301
        return EnrolmentRequest(
            address=address,
            host_key=parse_pin(said["host_key"]).fingerprint if said["host_key"] else "",
            name=name,
            port=check_port(said["port"]),
            user=check_user(said["user"]),
            attributes=check_attributes(attributes),
        )
    except VerbError as error:
        wrong.append(f"{where}{error}")
    except NodeError as error:
        wrong.append(f"{where}{error.line}")
    return None


def choose_way(options: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Way:
    """With what to log in: as told, else ssh-agent, else a key of this user, else an asked password.

    Raises CommandError (2) where there is none of them.
    """
    if options["identity"]:
        path = Path(options["identity"]).expanduser()
        if not path.is_file():
            raise refuse(f"--identity {options['identity']!r} is no file: a private key file is accepted")
        return KeyFile(path)
    if options["password_stdin"]:
        return Password(_password(sys.stdin.readline(MAX_PASSWORD + 2).rstrip("\r\n"), "--password-stdin"))
    if environment.get("SSH_AUTH_SOCK"):
        return SshAgent()
    for name in _DEFAULT_KEYS:
        path = Path(environment.get("HOME") or "~").expanduser() / ".ssh" / name
        if path.is_file():
            return KeyFile(path)
    if sys.stdin.isatty():
        return Password(_password(getpass.getpass(f"Password of {options['user']}: "), "the password"))
    raise refuse(
        "nothing to log in with: give --identity FILE, or --password-stdin, or load a key into ssh-agent "
        "(SSH_AUTH_SOCK)"
    )


def _password(text: str, source: str) -> Secret:
    if not 0 < len(text) <= MAX_PASSWORD:
        raise refuse(f"{source}: 1 to {MAX_PASSWORD} characters are accepted")
    return Secret(text)

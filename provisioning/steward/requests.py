"""What may be asked of the steward, checked whole before anything is done. Pure.

A request is one JSON object on one line, at most `MAX_LINE_BYTES` long: `{"verb": ..., ...}`. Each verb
takes exactly the keys named in `_VERBS`; an unknown key is refused like a wrong value. No key holds a
path of the node: names and digests do, in patterns that cannot leave the steward's own directory.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from .errors import Refusal

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
MAX_ITEMS: Final = 4096
MAX_BLOB_BYTES: Final = 1 << 40
MAX_TEXT: Final = 255
MAX_PEM: Final = 64 * 1024
MAX_LOG_LINES: Final = 1000
MIN_MEMORY_BYTES: Final = 64 * 1024 * 1024
MAX_MEMORY_BYTES: Final = 1 << 50
MAX_CPU: Final = 8191

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_AGENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FILE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,99}")
#: Keys of an agent's configuration that the steward alone fills in.
OWN_CONFIG_KEYS: Final = frozenset({"agent", "tls", "model_dir"})


@dataclass(frozen=True)
class Request:
    """A verb, and its arguments as the checks returned them."""

    verb: str
    arguments: Mapping[str, Any]


class _Wrong(Exception):
    """A value that a check does not take; the message tells what it takes."""


Check = Callable[[Any], Any]


@dataclass(frozen=True)
class _Optional:
    """A key that may be left out, and what then stands for it."""

    check: Check
    default: object


def parse_request(line: bytes) -> Request:
    """Check one request. Raises Refusal (code `bad_request`) naming the key and what is accepted."""
    if len(line) > MAX_LINE_BYTES:
        raise _bad(f"the request is longer than {MAX_LINE_BYTES} bytes")
    try:
        given = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _bad("the request is no JSON in UTF-8") from None
    if not isinstance(given, dict):
        raise _bad("the request is no JSON object")
    verb = given.pop("verb", None)
    if not isinstance(verb, str) or verb not in _VERBS:
        raise _bad(f"unknown verb: accepted are {', '.join(sorted(_VERBS))}")
    taken = _checked(given, _VERBS[verb], verb)
    if verb == "receive" and taken["offset"] > taken["total"]:
        raise _bad("receive: 'offset' is beyond 'total'")
    return Request(verb, taken)


def _checked(
    given: Mapping[str, Any], accepted: Mapping[str, "Check | _Optional"], where: str
) -> dict[str, Any]:
    unknown = sorted(set(given) - set(accepted))
    if unknown:
        names = ", ".join(repr(name[:40]) for name in unknown[:5])
        raise _bad(f"{where}: unknown key {names}; accepted: {', '.join(sorted(accepted)) or 'none'}")
    values: dict[str, Any] = {}
    for name, rule in accepted.items():
        optional = isinstance(rule, _Optional)
        if name not in given:
            if not isinstance(rule, _Optional):
                raise _bad(f"{where}: key {name!r} is missing")
            values[name] = rule.default
            continue
        check = rule.check if isinstance(rule, _Optional) else rule
        try:
            values[name] = None if optional and given[name] is None else check(given[name])
        except _Wrong as wrong:
            raise _bad(f"{where}: {name!r} must be {wrong}") from None
    return values


def _bad(message: str) -> Refusal:
    return Refusal("bad_request", message, "the appliance and this steward may differ in version")


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _pattern(pattern: "re.Pattern[str]", what: str) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _Wrong(what)
        return value

    return check


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _Wrong(f"a whole number from {low} to {high}")
        return value

    return check


def _many(check: Check) -> Check:
    def check_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise _Wrong(f"a list of at most {MAX_ITEMS} items")
        return tuple(check(item) for item in value)

    return check_all


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("true or false")
    return value


def _pem(kind: str) -> Check:
    body = re.compile(rf"(?:-----BEGIN {kind}-----\n[A-Za-z0-9+/=\n]+-----END {kind}-----\n?)+")

    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > MAX_PEM or not body.fullmatch(value):
            raise _Wrong("PEM text of at most 64 KiB")
        return value

    return check


def _config(value: Any) -> dict[str, object]:
    """An agent's configuration: a flat object of names and plain values, none of them a path."""
    if not isinstance(value, dict) or len(value) > 64:
        raise _Wrong("an object of at most 64 keys")
    for name, item in value.items():
        if not _KEY.fullmatch(name) or name in OWN_CONFIG_KEYS:
            raise _Wrong("an object whose keys are plain names, without agent, tls and model_dir")
        if isinstance(item, str):
            if len(item) > MAX_TEXT or not item.isprintable() or "/" in item or "\\" in item:
                raise _Wrong("an object of plain values: texts are short, printable and no paths")
        elif item is not None and not (
            isinstance(item, (bool, int, float)) and abs(item) <= MAX_MEMORY_BYTES
        ):
            raise _Wrong("an object of plain values: texts, numbers, true and false")
    return dict(value)


def _manifest(value: Any) -> dict[str, Any]:
    """A model's manifest: its own digest, and files by relative path, size and SHA-256."""
    if not isinstance(value, dict):
        raise _Wrong("an object")
    _sha(value.get("digest"))
    files = value.get("files")
    if not isinstance(files, list) or not 0 < len(files) <= MAX_ITEMS:
        raise _Wrong(f"an object with 1 to {MAX_ITEMS} files")
    seen = set()
    for entry in files:
        if not isinstance(entry, dict) or set(entry) != {"path", "bytes", "sha256"}:
            raise _Wrong("an object whose files have path, bytes and sha256")
        seen.add(_relative(entry["path"]))
        _whole(0, MAX_BLOB_BYTES)(entry["bytes"])
        _sha(entry["sha256"])
    if len(seen) != len(files) or "manifest.json" in seen:
        raise _Wrong("an object whose files have paths of their own")
    if any(parent in seen for path in seen for parent in map(str, PurePosixPath(path).parents)):
        raise _Wrong("an object none of whose files is another's folder")
    return value


def _relative(value: Any) -> str:
    if not isinstance(value, str) or not all(_FILE.fullmatch(part) for part in value.split("/")):
        raise _Wrong("an object whose files have relative paths of plain names")
    if value.count("/") > 4:
        raise _Wrong("an object whose files lie at most four folders deep")
    return value


_sha = _pattern(_DIGEST, "a SHA-256 in 64 lower-case hexadecimal digits")
_agent = _pattern(_AGENT, "an agent's name: a letter or digit, then letters, digits, '.', '_', '-'")
_memory = _whole(MIN_MEMORY_BYTES, MAX_MEMORY_BYTES)
_cpus = _many(_whole(0, MAX_CPU))

#: What an agent is written from.
_WRITTEN: Final[dict[str, "Check | _Optional"]] = {
    "agent": _agent,
    "release": _sha,
    "model": _Optional(_sha, None),
    "config": _config,
    "certificate": _pem("CERTIFICATE"),
    "key": _pem("(?:EC |RSA )?PRIVATE KEY"),
    "ca": _pem("CERTIFICATE"),
    "memory_max_bytes": _Optional(_memory, None),
    "cpus": _Optional(_cpus, None),
}


def _written(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong("a list of objects, each as of write_agent")
    return _checked(value, _WRITTEN, "bring")


_VERBS: Final[dict[str, dict[str, "Check | _Optional"]]] = {
    "hello": {},
    "facts": {},
    "missing": {
        "releases": _Optional(_many(_sha), ()),
        "models": _Optional(_many(_sha), ()),
        "blobs": _Optional(_many(_sha), ()),
    },
    "receive": {"sha256": _sha, "total": _whole(0, MAX_BLOB_BYTES), "offset": _whole(0, MAX_BLOB_BYTES)},
    "install_release": {"sha256": _sha},
    "install_model": {"manifest": _manifest},
    "write_agent": _WRITTEN,
    "bring": {"agents": _many(_written)},
    "start": {"agent": _agent},
    "stop": {"agent": _agent, "kill": _Optional(_flag, default=False)},
    "set_limits": {
        "agent": _agent,
        "memory_max_bytes": _Optional(_memory, None),
        "cpus": _Optional(_cpus, None),
    },
    "forget": {"agent": _agent},
    "status": {},
    "logs": {"agent": _agent, "lines": _Optional(_whole(1, MAX_LOG_LINES), 100)},
    "prune": {"keep_releases": _many(_sha), "keep_models": _many(_sha)},
    "reboot": {},
    "power_off": {},
    "suspend": {},
    "retire": {},
}
VERBS: Final = tuple(sorted(_VERBS))
#: Verbs that change nothing on the node.
READING: Final = frozenset({"hello", "facts", "missing", "status", "logs"})

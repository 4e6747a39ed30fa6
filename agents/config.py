"""What an agent is told at its start: one JSON file, checked whole before anything else happens."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from agents.errors import BadConfig
from agents.protocol import TASK_PATHS

EngineName = Literal["ctranslate2", "fake"]
ENGINES: Final[tuple[EngineName, ...]] = ("ctranslate2", "fake")
#: What the fake engine's service time is spent on.
ServicePer = Literal["batch", "sequence"]

MAX_WORKERS: Final = 256
MAX_THREADS: Final = 256
MAX_BATCH_SIZE: Final = 1024
MAX_ADMITS: Final = 100_000
#: No batch is put together that would take longer; whoever comes meanwhile waits at most for that.
BATCH_BUDGET_MS: Final = 100.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the authority that clients' certificates come from, and the agent's own pair."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """One agent. `port` 0 takes a free one; `admits` is in requests, executing and waiting together.

    `model_dir` is None for the fake engine only, which needs none. `batch_budget_ms` is the latency budget.
    """

    agent: str
    deployment: str
    revision: str
    task: str
    engine: EngineName
    model_dir: Path | None
    host: str
    port: int
    tls: TlsFiles
    workers: int
    threads: int
    batch_size: int
    admits: int
    batch_budget_ms: float = BATCH_BUDGET_MS
    fake_service_ms: float = 0.0
    fake_service_per: ServicePer = "batch"
    fake_load_ms: float = 0.0


def read_config(path: Path) -> AgentConfig:
    """Read and check a configuration file. Raises BadConfig."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadConfig(f"configuration {str(path)!r} cannot be read: {error.strerror}") from error
    return parse_config(raw)


def parse_config(raw: bytes) -> AgentConfig:
    """Check a configuration given as JSON. Raises BadConfig naming key, value and what is accepted."""
    try:
        given = json.loads(raw)
    except ValueError as error:
        raise BadConfig(f"the configuration is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise BadConfig(f"the configuration is a JSON {type(given).__name__}; an object is accepted")
    engine = _taken(given, "engine", _choice(ENGINES))
    accepted = dict(_CHECKS)
    if engine == "fake":
        accepted |= _FAKE_CHECKS
    _refuse_unknown(given, accepted, "")
    optional = {"batch_budget_ms"}
    if engine == "fake":
        optional |= {"model_dir", *_FAKE_CHECKS}
    values = {
        key: _taken(given, key, check) for key, check in accepted.items() if _wanted(given, key, optional)
    }
    values.setdefault("model_dir", None)
    return AgentConfig(**values)


Check = Callable[[Any], Any]


def _wanted(given: Mapping[str, Any], key: str, optional: set[str]) -> bool:
    return not (key in optional and given.get(key) is None)


def _taken(given: Mapping[str, Any], key: str, check: Check, prefix: str = "") -> Any:
    if key not in given:
        raise BadConfig(f"configuration key {prefix + key!r} is missing")
    try:
        return check(given[key])
    except _Refused as refused:
        raise BadConfig(
            f"configuration key {prefix + key!r} is {given[key]!r}: {refused} is accepted"
        ) from None


def _refuse_unknown(given: Mapping[str, Any], accepted: Mapping[str, Check], prefix: str) -> None:
    unknown = sorted(set(given) - set(accepted))
    if unknown:
        names = ", ".join(repr(prefix + key) for key in unknown)
        raise BadConfig(f"unknown configuration key {names}: accepted are {', '.join(sorted(accepted))}")


class _Refused(Exception):
    """A value that a check does not take; the message tells what it would take."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > 255:
        raise _Refused("a line of 1 to 255 characters")
    return value


def _choice(choices: tuple[str, ...]) -> Check:
    def check(value: Any) -> str:
        if value not in choices:
            raise _Refused("one of " + ", ".join(choices))
        return str(value)

    return check


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _Refused(f"a whole number from {low} to {high}")
        return value

    return check


def _milliseconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 60_000:
        raise _Refused("a number of milliseconds from 0 to 60000")
    return float(value)


def _path(value: Any) -> Path:
    if not isinstance(value, str) or not Path(value).is_absolute():
        raise _Refused("an absolute path")
    return Path(value)


def _tls(value: Any) -> TlsFiles:
    if not isinstance(value, dict):
        raise _Refused("an object with ca, certificate and key")
    checks: dict[str, Check] = {"ca": _path, "certificate": _path, "key": _path}
    _refuse_unknown(value, checks, "tls.")
    return TlsFiles(**{key: _taken(value, key, check, "tls.") for key, check in checks.items()})


_CHECKS: Final[dict[str, Check]] = {
    "agent": _text,
    "deployment": _text,
    "revision": _text,
    "task": _choice(tuple(TASK_PATHS)),
    "engine": _choice(ENGINES),
    "model_dir": _path,
    "host": _text,
    "port": _whole(0, 65535),
    "tls": _tls,
    "workers": _whole(1, MAX_WORKERS),
    "threads": _whole(1, MAX_THREADS),
    "batch_size": _whole(1, MAX_BATCH_SIZE),
    "admits": _whole(1, MAX_ADMITS),
    "batch_budget_ms": _milliseconds,
}
_FAKE_CHECKS: Final[dict[str, Check]] = {
    "fake_service_ms": _milliseconds,
    "fake_service_per": _choice(("batch", "sequence")),
    "fake_load_ms": _milliseconds,
}

"""What an agent last wrote, and how its process stands: read from this machine, or over SSH from its node.

Reading is slow where a node is, so it is bounded: so many at once, and each within its limits. What comes
back is untrusted text, cut and printable.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.conf import settings

from appliance.errors import VerbError
from appliance.models import Agent, Node
from appliance.ssh_identity import ensure_identity
from provisioning import ssh
from provisioning.enrolment import Connect, open_steward
from provisioning.errors import ProvisioningError
from provisioning.hostkeys import HostKey
from provisioning.local import LocalNode
from provisioning.login import Address
from provisioning.steward_client import StewardClient
from provisioning.transport import Limits

MAX_LINES: Final = 1000
DEFAULT_LINES: Final = 100
MAX_READERS: Final = 4
_LINE_CHARACTERS: Final = 1000
_LOG_BYTES: Final = 256 * 1024
_WORD_CHARACTERS: Final = 64
_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 10.0

_turns = threading.BoundedSemaphore(MAX_READERS)
_connect: Connect = partial(ssh.connect, connect_s=_CONNECT_S, auth_s=_CONNECT_S)


class LogUnavailable(VerbError):
    """The log cannot be read now; the message is one line."""


@dataclass(frozen=True, slots=True)
class UnitState:
    """An agent's process as its machine sees it; systemd's words where there is a unit.

    `pid` is None where none runs; `since` is in Unix seconds. None is what the machine does not tell.
    """

    active: str
    sub: str = ""
    pid: int | None = None
    restarts: int | None = None
    memory_bytes: int | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class AgentLog:
    """The newest lines, oldest first, and the process behind them (None where it is not known there)."""

    lines: tuple[str, ...]
    unit: UnitState | None


def read_agent_log(agent: Agent, lines: int = DEFAULT_LINES) -> list[str]:
    """The end of an agent's log, at most `lines` lines (1 to 1000), oldest first. Raises LogUnavailable."""
    return list(read_agent(agent, lines).lines)


def read_agent(agent: Agent, lines: int = DEFAULT_LINES) -> AgentLog:
    """The same with the state of its process. Raises LogUnavailable."""
    wanted = max(1, min(lines, MAX_LINES))
    with _turn():
        if agent.node.is_local:
            return _read_local(agent, wanted)
        return _read_remote(agent, wanted)


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(blocking=False):
        raise LogUnavailable(f"{MAX_READERS} logs are being read already: try again in a moment")
    try:
        yield
    finally:
        _turns.release()


def _read_local(agent: Agent, lines: int) -> AgentLog:
    node = LocalNode(settings.ENVIRONMENT.home)
    try:
        living = node.running().get(agent.pk)
        text = node.last_log_lines(agent.pk, lines)
    except (ProvisioningError, OSError) as error:
        raise LogUnavailable(f"the log of {agent.pk} cannot be read: {error}") from None
    if living is None:
        return AgentLog(_bounded(text), UnitState("inactive", restarts=agent.attempt))
    since = agent.started_at.timestamp() if agent.started_at else None
    return AgentLog(
        _bounded(text),
        UnitState("active", "running", pid=living.pid, restarts=agent.attempt, since=since),
    )


def _read_remote(agent: Agent, lines: int) -> AgentLog:
    node = agent.node
    if not node.account or not node.host_key:
        raise LogUnavailable(f"node {node.name} is not enrolled: there is no way to its logs")
    try:
        with _steward(node) as client:
            ask = _within(client, time.monotonic() + _ANSWER_S)
            told = ask("logs", agent=agent.pk, lines=lines)
            status = ask("status").get("agents")
            uptime_s = _first_number(ask("facts").get("uptime"))
    except ProvisioningError as error:
        raise LogUnavailable(error.line) from None
    given = told.get("lines")
    found = status.get(agent.pk) if isinstance(status, dict) else None
    unit = found.get("unit") if isinstance(found, dict) else None
    return AgentLog(
        _bounded([str(line) for line in given] if isinstance(given, list) else []),
        parse_unit(unit, uptime_s, time.time()) if isinstance(unit, dict) and unit else None,
    )


def _steward(node: Node) -> AbstractContextManager[StewardClient]:
    try:
        identity = ensure_identity(settings.ENVIRONMENT)
    except (OSError, ValueError) as error:
        raise LogUnavailable(f"the appliance's SSH key cannot be used: {error}") from None
    address = Address(node.address, node.port, node.account)
    return open_steward(address, HostKey(node.host_key, node.host_key_kind), identity, _connect)


def _within(client: StewardClient, until: float) -> Callable[..., dict[str, Any]]:
    """Ask the steward, all questions together within one limit."""

    def ask(verb: str, **arguments: Any) -> dict[str, Any]:
        left_s = max(0.5, until - time.monotonic())
        return client.ask(verb, limits=Limits(idle_s=left_s, total_s=left_s), **arguments)

    return ask


def parse_unit(shown: Mapping[str, Any], uptime_s: float | None, now: float) -> UnitState:
    """What `systemctl show` says of a unit. Its times count from the boot, so `uptime_s` places them.

    Numbers that are none (`[not set]`, or the largest number there is) become None.
    """
    entered_us = _number(shown.get("ActiveEnterTimestampMonotonic"))
    since = now - uptime_s + entered_us / 1e6 if uptime_s and entered_us else None
    return UnitState(
        active=_word(shown.get("ActiveState")) or "unknown",
        sub=_word(shown.get("SubState")),
        pid=_number(shown.get("MainPID")) or None,
        restarts=_number(shown.get("NRestarts")),
        memory_bytes=_number(shown.get("MemoryCurrent")),
        since=since if since is not None and 0 < since <= now + 60 else None,
    )


def _number(text: object) -> int | None:
    given = str(text)
    return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None


def _first_number(text: object) -> float | None:
    try:
        return float(str(text).split()[0])
    except (ValueError, IndexError):
        return None


def _word(text: object) -> str:
    return _printable(str(text or ""))[:_WORD_CHARACTERS]


def _bounded(lines: list[str]) -> tuple[str, ...]:
    """The newest of them that fit, each cut and printable."""
    kept: list[str] = []
    room = _LOG_BYTES
    for line in reversed(lines[-MAX_LINES:]):
        cut = _printable(line[:_LINE_CHARACTERS])
        room -= len(cut.encode(errors="replace")) + 1
        if room < 0:
            break
        kept.append(cut)
    return tuple(reversed(kept))


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in line)

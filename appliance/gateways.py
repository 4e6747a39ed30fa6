"""Reading what gateways say on their inner listeners."""

import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import msgspec

from appliance.inner_socket import connect_inner
from appliance.policies.report import GatewayReport, GenerationEvent, WantEvent
from appliance.policies.snapshot import Generation

InnerMessage = GatewayReport | WantEvent | GenerationEvent
_KINDS: dict[str, type[InnerMessage]] = {
    "report": GatewayReport,
    "want": WantEvent,
    "generation": GenerationEvent,
}
_MAX_LINE_BYTES = 16 * 1024 * 1024


class _Kind(msgspec.Struct):
    kind: str


def find_sockets(run_dir: Path) -> list[Path]:
    """The inner sockets of this machine's gateways; one may be left over from a dead gateway."""
    return sorted(run_dir.glob("gateway-*.sock"))


def parse_message(line: bytes) -> InnerMessage:
    """One line of an inner listener. Raises msgspec.DecodeError where it is not understood."""
    kind = msgspec.json.decode(line, type=_Kind).kind
    if kind not in _KINDS:
        raise msgspec.ValidationError(f"message of unknown kind {kind!r}")
    return msgspec.json.decode(line, type=_KINDS[kind])


def read_messages(path: Path, *, silence_s: float) -> Generator[InnerMessage]:
    """Connect to a gateway and yield what it says, until it goes away.

    Raises OSError (TimeoutError among them) where it cannot be reached, ends, or says nothing for
    `silence_s` seconds: a living gateway reports each second.
    """
    with closing(connect_inner(path.parent, path.stem, timeout_s=silence_s)) as connection:
        connection.settimeout(silence_s)
        buffer = bytearray()
        while True:
            piece = connection.recv(256 * 1024)
            if not piece:
                raise ConnectionResetError(f"the gateway at {path.name} closed its inner connection")
            buffer += piece
            *lines, rest = bytes(buffer).split(b"\n")
            if len(rest) > _MAX_LINE_BYTES:
                raise ConnectionAbortedError(f"the gateway at {path.name} sent a line without an end")
            buffer[:] = rest
            yield from map(parse_message, filter(None, lines))


def read_reports(run_dir: Path, *, timeout_s: float = 2.0) -> list[GatewayReport]:
    """One report of each gateway that answers."""
    reports = []
    for path in find_sockets(run_dir):
        try:
            for message in read_messages(path, silence_s=timeout_s):
                if isinstance(message, GatewayReport):
                    reports.append(message)
                    break
        except (OSError, msgspec.DecodeError):
            continue
    return reports


def wait_for_generation(run_dir: Path, wanted: Generation, *, timeout_s: float = 5.0) -> list[str]:
    """Wait until every gateway that answers serves `wanted` or a newer one.

    Returns the names of those that do not by then; a gateway that cannot be reached is none.
    """
    deadline = time.monotonic() + timeout_s
    return [
        path.stem for path in find_sockets(run_dir) if not _serves(path, wanted, deadline - time.monotonic())
    ]


def _serves(path: Path, wanted: Generation, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    try:
        for message in read_messages(path, silence_s=max(0.1, timeout_s)):
            if (
                not isinstance(message, WantEvent)
                and message.generation
                and message.generation.reached(wanted)
            ):
                return True
            if time.monotonic() > deadline:
                return False
    except (ConnectionRefusedError, FileNotFoundError):
        return True  # no gateway there: it reads the newest snapshot when it starts
    except (OSError, msgspec.DecodeError):
        return False
    return False

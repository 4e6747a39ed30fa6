"""Speaks with the steward of one node: requests as lines of JSON, answers checked."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from provisioning.errors import (
    DiskFull,
    NodeError,
    PythonMissing,
    PythonTooOld,
    StewardError,
    StewardMissing,
)
from provisioning.transport import Carrier, Limits, Result

ASK: Final = Limits(idle_s=15.0, total_s=40.0)
#: Sending and unpacking: the node tells every half second how far it is.
LONG: Final = Limits(idle_s=20.0, total_s=3600.0)
_PIECE_BYTES: Final = 256 * 1024
_MAX_LINE_BYTES: Final = 4 * 1024 * 1024
#: Of a whole number: databases keep 63 bits.
_MAX_DIGITS: Final = 18

#: Called with the bytes that are there and the bytes there will be.
OnProgress = Callable[[int, int], None]
_FAULTS: Final[dict[str, type[NodeError]]] = {"disk_full": DiskFull, "python_too_old": PythonTooOld}
#: How sudo, and the shells that may be root's, say that a program is there and its interpreter is not.
_NO_INTERPRETER: Final = ("unable to execute", "bad interpreter", "required file not found")


class StewardClient:
    """The verbs of the steward, over any carrier.

    `command` is what the carrier is told to run: over SSH with the appliance's key it does not matter,
    since the key is bound to the steward.
    """

    def __init__(self, carrier: Carrier, command: str = "steward") -> None:
        self._carrier = carrier
        self._command = command

    def ask(
        self,
        verb: str,
        *,
        body: Iterable[bytes] = (),
        limits: Limits = ASK,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        **arguments: object,
    ) -> dict[str, Any]:
        """Ask for one thing and return its answer.

        Raises StewardError, StewardMissing, PythonMissing, PythonTooOld, DiskFull, and the carrier's errors.
        """
        lines = _Lines(on_progress)
        head = json.dumps({"verb": verb, **arguments}).encode() + b"\n"
        done = self._carrier.run(self._command, stdin=_chain(head, body), limits=limits, on_output=lines.feed)
        answer = lines.answer
        if answer is None:
            raise _explain_silence(done)
        if "error" in answer:
            raise refusal_of(answer["error"])
        return answer

    def missing(
        self, *, releases: Sequence[str] = (), models: Sequence[str] = (), blobs: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Which of these digests are not there; of blobs, how many bytes are."""
        return self.ask("missing", releases=list(releases), models=list(models), blobs=list(blobs))

    def send_file(
        self,
        path: Path,
        sha256: str,
        on_progress: OnProgress | None = None,
        *,
        missing: Mapping[str, int] | None = None,
    ) -> None:
        """Send what is not there yet of a file. Raises what `ask` raises.

        `missing` is what the node said of blobs just before; without it it is asked.
        """
        total = path.stat().st_size
        have = self.missing(blobs=[sha256])["blobs"] if missing is None else missing
        if sha256 not in have:
            return
        offset = int(have[sha256])
        if not 0 <= offset <= total:
            offset = 0
        try:
            self._send(path, sha256, offset, total, on_progress)
        except StewardError as error:
            if error.reason not in ("wrong_digest", "wrong_offset") or offset == 0:
                raise
            self._send(path, sha256, 0, total, on_progress)  # what lay there was spoilt: from the beginning

    def _send(self, path: Path, sha256: str, offset: int, total: int, on_progress: OnProgress | None) -> None:
        def told(progress: dict[str, Any]) -> None:
            if on_progress is not None and isinstance(progress.get("have"), int):
                on_progress(progress["have"], total)

        self.ask(
            "receive", sha256=sha256, total=total, offset=offset, body=_pieces(path, offset),
            limits=LONG, on_progress=told,
        )  # fmt: skip
        if on_progress is not None:
            on_progress(total, total)


class _Lines:
    """Puts lines together from bytes as they come; the last that is no progress is the answer."""

    def __init__(self, on_progress: Callable[[dict[str, Any]], None] | None) -> None:
        self._rest = bytearray()
        self._on_progress = on_progress
        self.answer: dict[str, Any] | None = None

    def feed(self, piece: bytes) -> None:
        self._rest += piece
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest[:_MAX_LINE_BYTES]
        for line in lines:
            self._take(bytes(line))

    def _take(self, line: bytes) -> None:
        try:
            given = _parse(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(given, dict):
            return
        if isinstance(given.get("progress"), dict):
            if self._on_progress is not None:
                self._on_progress(given["progress"])
        elif given.get("ok") is True or isinstance(given.get("error"), dict):
            self.answer = given


def _parse(line: bytes) -> object:
    """The document, if every row can keep it: whole characters, finite numbers, none too large.

    Raises ValueError, RecursionError.
    """
    given: object = json.loads(
        line.decode(errors="replace"), parse_int=_whole, parse_float=_finite, parse_constant=_finite
    )
    json.dumps(given, ensure_ascii=False).encode()
    return given


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("too large a number")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("no number")
    return number


def _explain_silence(done: Result) -> NodeError:
    """Why a command that ended without an answer gave none, from what the box complained with."""
    said = done.error_line
    if any(words in said for words in _NO_INTERPRETER):
        return PythonMissing("the node has no /usr/bin/python3 any more")
    return StewardMissing(f"no steward answered (exit code {done.exit_code}): {said or 'nothing was said'}")


def refusal_of(error: object) -> NodeError:
    """What a steward's `error` says. The node's words are untrusted: short, and printable."""
    told = error if isinstance(error, dict) else {}
    code, message, hint = (_short(told.get(name)) for name in ("code", "message", "hint"))
    if code in _FAULTS:
        return _FAULTS[code](message, remedy=hint)
    return StewardError(message or "the steward refused", reason=code, remedy=hint)


def _short(text: object) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in str(text or "")[:400])


def _chain(head: bytes, body: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from body


def _pieces(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while piece := file.read(_PIECE_BYTES):
            yield piece

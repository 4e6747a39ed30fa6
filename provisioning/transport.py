"""The one port through which nodes are reached, whatever carries it. Standard library only.

Carriers: `ssh.py` and, for tests, `testing.py`. Both raise the errors of `errors.py`.
"""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

#: Of what a command prints, this much is kept; the rest is read and dropped.
MAX_OUTPUT_BYTES: Final = 2 * 1024 * 1024


class Secret:
    """A text that prints as redacted; `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(redacted)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a command may take: between two signs of progress, and in all; seconds."""

    idle_s: float = 20.0
    total_s: float = 60.0


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended. Output beyond MAX_OUTPUT_BYTES is left out."""

    exit_code: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)

    @property
    def error_line(self) -> str:
        """The last line it complained with, printable and short."""
        lines = self.stderr.decode(errors="replace").strip().splitlines() or [""]
        return "".join(letter if letter.isprintable() else " " for letter in lines[-1])[:300]


#: Called with bytes of standard output as they come.
OnOutput = Callable[[bytes], None]


class Carrier(Protocol):
    """A way to run commands on one node. `run` may be called again and again, by one thread at a time."""

    def run(
        self,
        command: str,
        *,
        stdin: Iterable[bytes] = (),
        limits: Limits = DEFAULT_LIMITS,
        on_output: OnOutput | None = None,
    ) -> Result:
        """Run a shell command line to its end.

        `stdin` is drawn only as fast as the node takes it. Raises Hung, ConnectionLost; never for an
        exit code. With `on_output` standard output goes there and not into the result.
        """
        ...

    def close(self) -> None:
        """Let go of the node; may be called from another thread to end a `run` that hangs."""
        ...


def quote(*arguments: str) -> str:
    """One shell command line of an argument list."""
    return shlex.join(arguments)


class Kept:
    """The first bytes of a stream, up to a bound."""

    def __init__(self, limit_bytes: int = MAX_OUTPUT_BYTES) -> None:
        self._limit = limit_bytes
        self._pieces = bytearray()

    def add(self, piece: bytes) -> None:
        """Keep what still fits."""
        room = self._limit - len(self._pieces)
        if room > 0:
            self._pieces += piece[:room]

    def value(self) -> bytes:
        """What was kept."""
        return bytes(self._pieces)

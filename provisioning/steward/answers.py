"""How the steward answers: lines of JSON, each written at once."""

import json
import time
from collections.abc import Mapping
from typing import BinaryIO, Final

_EVERY_S: Final = 0.5


class Answers:
    """Writes answers to a stream. A caller that has gone away does not stop what was begun."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._told = 0.0

    def progress(self, **told: object) -> None:
        """Say how far it is, at most twice a second."""
        now = time.monotonic()
        if now - self._told >= _EVERY_S:
            self._told = now
            self.send({"progress": told})

    def send(self, answer: Mapping[str, object]) -> None:
        """Write one line."""
        try:
            self._stream.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
            self._stream.flush()
        except (BrokenPipeError, ValueError):
            pass

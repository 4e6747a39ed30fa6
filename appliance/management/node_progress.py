"""How commands on nodes show how far they are: lines, or one line with a bar on a terminal."""

import shutil
import threading
from collections.abc import Callable
from typing import Final, TextIO

_BAR: Final = 10
_STEP_PERCENT: Final = 10.0


class ProgressLines:
    """A line for each news: another stage, ten percent more, another note where there is no percentage."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._shown: dict[str, tuple[str, float, str]] = {}

    def __call__(self, name: str, stage: str, percent: float | None, note: str) -> None:
        with self._lock:
            before = self._shown.get(name, ("", 0.0, ""))
            if percent is None:
                news = (stage, note) != (before[0], before[2])
            else:
                news = stage != before[0] or percent >= before[1] + _STEP_PERCENT
            if news:
                self._shown[name] = (stage, percent or 0.0, note)
                said = stage if percent is None else f"{stage} {percent:.0f} %"
                self._say(f"{name}: {said}{f' ({note})' if note else ''}")

    def close(self) -> None:
        """Nothing is left open."""


class ProgressBar:
    """One line that is written over and over."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = ""

    def __call__(self, name: str, stage: str, percent: float | None, note: str) -> None:
        line = format_bar(name, stage, percent, note)[: max(20, shutil.get_terminal_size().columns - 1)]
        if line != self._shown:
            self._shown = line
            self._stream.write(f"\r{line}\x1b[K")
            self._stream.flush()

    def close(self) -> None:
        """Leave the line empty for what is written next."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = ""


def format_bar(name: str, stage: str, percent: float | None, note: str) -> str:
    """`node-1  sending the runtime  [####......] 48 %  31 of 65 MB`."""
    parts = [name, stage]
    if percent is not None:
        full = min(_BAR, max(0, int(percent * _BAR / 100)))
        parts.append(f"[{'#' * full}{'.' * (_BAR - full)}] {percent:.0f} %")
    return "  ".join((*parts, note)).rstrip()

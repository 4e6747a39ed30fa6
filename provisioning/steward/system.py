"""The programs of the node that the steward runs: fixed names, no shell, always within a time limit."""

import os
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Final

from .errors import Refusal

_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_ERROR_CHARACTERS: Final = 300


class System:
    """Runs system programs as they are."""

    def call(
        self, *command: str, check: bool = True, timeout_s: float = 30.0, limit_bytes: int = 1 << 20
    ) -> bytes:
        """The last `limit_bytes` of its output. Raises Refusal: `command_failed` or `hung`."""
        try:
            done = subprocess.run(  # noqa: S603 - names of ours and checked names only, no shell
                command, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False,
                env={"PATH": _PATH, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Refusal("hung", f"{command[0]} did not end within {timeout_s:g} s") from None
        except OSError as error:
            raise Refusal("command_failed", f"{command[0]} could not be run: {error.strerror}") from None
        if check and done.returncode != 0:
            told = " ".join(done.stderr.decode(errors="replace").split())[-_ERROR_CHARACTERS:]
            raise Refusal("command_failed", f"{' '.join(command[:2])} ended with {done.returncode}: {told}")
        return done.stdout[-limit_bytes:]

    def bind(self, pid: int, cpus: "Collection[int] | None") -> None:
        """Let a running process, with all its threads, use these processors alone; None or none: all.

        Raises OSError where the machine has none of them.
        """
        wanted = cpus or range(os.cpu_count() or 1)
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                os.sched_setaffinity(int(task.name), wanted)
            except ProcessLookupError:  # a thread that has just ended
                continue

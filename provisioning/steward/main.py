"""One request in, one answer out."""

import errno
import os
import pwd
import resource
import signal
import sys
import syslog
import time
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from .agents import Agents
from .answers import Answers
from .errors import Refusal
from .files import make_folder
from .host import Host
from .places import Places
from .requests import MAX_LINE_BYTES, READING, Request, parse_request
from .store import Readable, Store
from .system import System

#: A caller that sends nothing for so long has gone; what it held is then free for its next try.
IDLE_S: Final = 15
#: Files pass through in pieces, and requests are short: this is plenty.
MEMORY_BYTES: Final = 512 * 1024 * 1024
_NOTE_CHARACTERS: Final = 1000


class Steward:
    """Carries out checked requests."""

    def __init__(
        self, places: Places, system: System, note: Callable[[str], None] = lambda _line: None
    ) -> None:
        self._write_note = note
        make_folder(places.home)
        self._host = Host(places, system)
        self._store = Store(places)
        self._agents = Agents(places, system)

    def serve(self, requests: Readable, answers: Answers) -> int:
        """Read one request, do it, answer. 0 where it was done, else 1."""
        try:
            request = parse_request(requests.readline(MAX_LINE_BYTES + 1))
            self._note(request)
            answers.send({"ok": True, **self._do(request, requests, answers)})
        except Refusal as refusal:
            answers.send(refusal.as_answer())
            return 1
        except OSError as error:
            answers.send(_as_refusal(error).as_answer())
            return 1
        except Exception as error:  # noqa: BLE001 - the caller must hear of it; details stay on the node
            answers.send(Refusal("fault", f"the steward failed: {type(error).__name__}").as_answer())
            return 1
        return 0

    def _note(self, request: Request) -> None:
        """Leave a line on the node for whatever may change it."""
        if request.verb not in READING:
            asked = request.arguments
            many = (str(one["agent"]) for one in asked.get("agents", ()))
            about = asked.get("agent") or asked.get("sha256") or " ".join(many)
            self._write_note(f"{request.verb} {about}".strip()[:_NOTE_CHARACTERS])

    def _do(self, request: Request, stream: Readable, answers: Answers) -> dict[str, object]:
        asked: Any = request.arguments
        agents, store, host = self._agents, self._store, self._host
        verbs: dict[str, Callable[[], dict[str, object] | None]] = {
            "hello": host.hello,
            "facts": host.facts,
            "missing": lambda: store.missing(asked),
            "receive": lambda: store.receive(**asked, stream=stream, answers=answers),
            "install_release": lambda: store.install_release(asked["sha256"], answers),
            "install_model": lambda: store.install_model(asked["manifest"], answers),
            "write_agent": lambda: agents.write(asked),
            "bring": lambda: agents.bring(asked["agents"]),
            "start": lambda: agents.start(asked["agent"]),
            "stop": lambda: agents.stop(asked["agent"], kill=asked["kill"]),
            "set_limits": lambda: agents.set_limits(asked["agent"], asked["memory_max_bytes"], asked["cpus"]),
            "forget": lambda: agents.forget(asked["agent"]),
            "status": lambda: {"agents": agents.status()},
            "logs": lambda: agents.logs(asked["agent"], asked["lines"]),
            "prune": lambda: self._prune(asked),
            "reboot": host.reboot,
            "power_off": host.power_off,
            "suspend": host.suspend,
            "retire": lambda: host.retire(agents),
        }
        return verbs[request.verb]() or {}

    def _prune(self, asked: Any) -> dict[str, object]:
        releases, models = self._agents.used()
        return self._store.prune(
            releases | set(asked["keep_releases"]), models | set(asked["keep_models"]), time.time()
        )


class Patient:
    """Standard input, for a caller who may have gone: a read that takes too long ends the steward."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream

    def readline(self, limit: int) -> bytes:
        """One line."""
        return self._timed(lambda: self._stream.readline(limit))

    def read(self, size: int) -> bytes:
        """At most so many bytes, as they come; none at the end."""
        return self._timed(lambda: self._stream.read1(size))

    def _timed(self, read: Callable[[], bytes]) -> bytes:
        signal.alarm(IDLE_S)
        try:
            return read()
        finally:
            signal.alarm(0)


def _as_refusal(error: OSError) -> Refusal:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refusal("disk_full", "the node's disk is full", "make room on it, then try again")
    if error.errno == errno.EROFS:
        return Refusal("read_only", "the node's disk is read-only", "see the node's kernel log")
    return Refusal("system", f"{error.strerror or error}: {error.filename or ''}".strip(": "))


def main() -> int:
    """Serve one request of standard input, as root, with the places that are built in."""
    os.umask(0o022)
    os.chdir("/")
    # Whatever an archive says of itself, it ends this program, not the machine's other ones.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    syslog.openlog("millwright-steward")
    answers = Answers(sys.stdout.buffer)
    if len(sys.argv) > 1 or os.geteuid() != 0:
        answers.send(Refusal("bad_request", "the steward runs as root and takes no arguments").as_answer())
        return 1
    with open(0, "rb", closefd=False) as requests:
        places = Places(root_home=Path(pwd.getpwuid(0).pw_dir))
        return Steward(places, System(), syslog.syslog).serve(Patient(requests), answers)

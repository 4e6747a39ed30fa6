"""The third carrier: boxes that are only played, for tests with many of them. They keep what is installed."""

import hashlib
import json
import shlex
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from provisioning.commands import install, places
from provisioning.commands.probe import MARK, SECTIONS, probe
from provisioning.commands.root import WHO
from provisioning.errors import Hung, NodeError, Unreachable
from provisioning.hostkeys import HostKey
from provisioning.login import Address, Way
from provisioning.transport import DEFAULT_LIMITS, Limits, OnOutput, Result

#: What a played box says of itself where a test says nothing else.
SECTION_TEXTS = {
    "cpuinfo": "processor : 0\nmodel name : Played CPU\nflags : avx2 sse2\n",
    "meminfo": "MemTotal: 4194304 kB\n",
    "os_release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "arch": "x86_64\n",
    "python": "3.11.2\nglibc 2.36\n",
    "init": "systemd\n",
    "disk": "/dev/sda1 100000000 1000000 90000000 2% /\n",
    "clock": "1000.0\n",
    "sudo": "/usr/bin/sudo\n",
}
_FILES = {
    install.write_steward(): (places.STEWARD, "755"),
    install.write_sudo_rule(): (places.SUDO_RULE, "440"),
    install.write_authorized_keys(): (places.AUTHORIZED_KEYS, "644"),
}
_ACCOUNTS = {
    install.create_account(): f"{places.ACCOUNT}:x:990:990::{places.HOME}:/bin/sh",
    install.create_agent_account(): f"{places.AGENT_ACCOUNT}:x:991:991::/nonexistent:/usr/sbin/nologin",
}


@dataclass
class ScriptedBox:
    """A box: texts of its facts, what was installed, every command it ran.

    `hangs` makes it silent; `fails_at` maps the number of a command, counted from 0, to the error that
    ends it, once.
    """

    texts: dict[str, str] = field(default_factory=lambda: dict(SECTION_TEXTS))
    accounts: list[str] = field(default_factory=list)
    files: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    root_keys: bytes = b""
    commands: list[str] = field(default_factory=list)
    fails_at: dict[int, NodeError] = field(default_factory=dict)
    hangs: bool = False

    def obey(self, command: str, stdin: bytes) -> Result:
        """Run one command as root. Raises the NodeError that was ordered for it."""
        number = len(self.commands)
        self.commands.append(command)
        if number in self.fails_at:
            raise self.fails_at.pop(number)
        if command == WHO:
            return Result(0, b"0\nroot\n/usr/bin/sudo\n0\n", b"")
        if command == probe():
            return Result(0, self._told().encode(), b"")
        if command in _ACCOUNTS:
            self.accounts.append(_ACCOUNTS[command])
        elif command in _FILES:
            path, mode = _FILES[command]
            self.files[path] = (stdin, mode)
        elif command == install.write_root_key():
            self.root_keys = stdin
        else:
            return Result(127, b"", b"not played here")
        return Result(0, b"", b"")

    def answer_steward(self, request: bytes) -> Result:
        """Answer `hello` as the steward that was installed."""
        steward = self.files.get(places.STEWARD)
        if steward is None or json.loads(request.split(b"\n")[0]).get("verb") != "hello":
            return Result(1, b"", b"no steward")
        told = {"ok": True, "protocol": 1, "steward": hashlib.sha256(steward[0]).hexdigest()}
        return Result(0, json.dumps(told).encode() + b"\n", b"")

    def _told(self) -> str:
        texts = {**self.texts, "accounts": "\n".join(self.accounts), "files": self._file_lines()}
        texts["root_keys"] = self.root_keys.decode()
        return "".join(f"\n{MARK}{name}\n{texts.get(name, '')}\n" for name in SECTIONS)

    def _file_lines(self) -> str:
        lines = []
        for path, (content, mode) in self.files.items():
            lines += [f"{hashlib.sha256(content).hexdigest()}  {path}", f"{mode} 0 {path}"]
        return "\n".join(lines)


class ScriptedCarrier:
    """A connection to a played box."""

    def __init__(self, box: ScriptedBox, user: str) -> None:
        self._box = box
        self._user = user
        self._closed = threading.Event()

    def run(
        self,
        command: str,
        *,
        stdin: Iterable[bytes] = (),
        limits: Limits = DEFAULT_LIMITS,
        on_output: OnOutput | None = None,
    ) -> Result:
        """As `transport.Carrier` has it. A box that hangs does so until it is closed, or for `idle_s`."""
        if self._box.hangs:
            self._closed.wait(limits.idle_s)
            raise Hung("the played box hangs")
        given = b"".join(stdin)
        if self._user == places.ACCOUNT or command == "steward":
            done = self._box.answer_steward(given)
        else:
            done = self._box.obey(shlex.split(command)[-1], given)
        if on_output is not None:
            on_output(done.stdout)
            return Result(done.exit_code, b"", done.stderr)
        return done

    def close(self) -> None:
        """Wake a `run` that hangs."""
        self._closed.set()


def play(boxes: dict[str, ScriptedBox]) -> Callable[[Address, HostKey, Way], ScriptedCarrier]:
    """A `connect` for these boxes, by host name."""

    def connect(address: Address, _host_key: HostKey, _way: Way) -> ScriptedCarrier:
        if address.host not in boxes:
            raise Unreachable(f"{address} cannot be reached")
        return ScriptedCarrier(boxes[address.host], address.user)

    return connect

"""The node itself: what it is, putting it to sleep, turning it off, and leaving it as it was found."""

import hashlib
import platform
import shutil
import time
from pathlib import Path
from typing import Final

from .agents import Agents
from .errors import Refusal
from .files import remove
from .places import ACCOUNT, AGENT_ACCOUNT, Places, unit_name
from .root_key import remove_root_key
from .system import System

PROTOCOL: Final = 1
_FACT_BYTES: Final = 256 * 1024
#: The units by which systemd suspends a machine.
_SLEEP_UNITS: Final = ("suspend.target", "sleep.target", "systemd-suspend.service")
#: Ways of the kernel to suspend with memory kept; "disk" is none of them.
_SLEEP_STATES: Final = frozenset({"mem", "standby", "freeze"})
#: So much later it happens: by then the answer is with who asked.
_AFTER_ANSWER: Final = "--on-active=1s"


class Host:
    """This machine."""

    def __init__(self, places: Places, system: System) -> None:
        self._places = places
        self._system = system

    def hello(self) -> dict[str, object]:
        """Who answers: the steward's own SHA-256, and this boot of the machine."""
        boot = self._read(self._places.proc / "sys/kernel/random/boot_id").strip()
        program = self._places.program
        own = hashlib.sha256(program.read_bytes()).hexdigest() if program.is_file() else ""
        return {"protocol": PROTOCOL, "steward": own, "boot_id": boot, "time": time.time()}

    def facts(self) -> dict[str, object]:
        """Texts that the appliance parses, as the first contact read them, and figures of the moment."""
        libc, libc_version = platform.libc_ver()
        disk = shutil.disk_usage(self._places.home)
        return {
            "cpuinfo": self._read(self._places.proc / "cpuinfo"),
            "meminfo": self._read(self._places.proc / "meminfo"),
            "os_release": self._read(self._places.etc / "os-release"),
            "uptime": self._read(self._places.proc / "uptime"),
            "load": self._read(self._places.proc / "loadavg"),
            "arch": platform.machine(),
            "python": platform.python_version(),
            "libc": f"{libc} {libc_version}".strip(),
            "disk_bytes": disk.total,
            "disk_free_bytes": disk.free,
            "time": time.time(),
        }

    def reboot(self) -> None:
        """Restart the machine; agents are asked to drain first."""
        self._system.call("systemctl", "--no-block", "reboot")

    def power_off(self) -> None:
        """Turn the machine off."""
        self._later("poweroff")

    def suspend(self) -> None:
        """Suspend the machine to memory. Raises Refusal (code `cannot_suspend`) where it has no way to."""
        states = self._read(self._places.sys / "power/state").split()
        if not _SLEEP_STATES.intersection(states):
            raise _cannot_suspend("its kernel offers no suspend to memory")
        shown = self._system.call("systemctl", "show", "--property=LoadState", "--value", *_SLEEP_UNITS)
        for unit, state in zip(_SLEEP_UNITS, shown.decode(errors="replace").split(), strict=False):
            if state != "loaded":
                raise _cannot_suspend(f"its {unit} is {state}")
        self._later("start", "suspend.target")

    def _later(self, *what: str) -> None:
        """Have systemd do it in a moment, by a unit of its own."""
        own = f"--unit=millwright-{what[-1].partition('.')[0]}"
        self._system.call(
            "systemd-run", "--quiet", "--collect", _AFTER_ANSWER, "--timer-property=AccuracySec=100ms", own,
            "systemctl", "--no-block", *what,
        )  # fmt: skip

    def retire(self, agents: Agents) -> None:
        """Remove all that is ours. What lets us in goes last, so that after a cut one can try again."""
        names = [unit_name(name) for name in agents.names()]
        if names:
            self._system.call("systemctl", "kill", "--signal=SIGKILL", *names, check=False)
            self._system.call("systemctl", "disable", "--now", "--quiet", *names, check=False, timeout_s=60.0)
        for path in agents.unit_files():
            remove(path)
        self._system.call("systemctl", "daemon-reload")
        if names:
            self._system.call("systemctl", "reset-failed", *names, check=False)
        for name in ("agents", "releases", "models", "blobs", "partial"):
            remove(self._places.home / name)
        self._remove_account(AGENT_ACCOUNT)
        remove(self._places.home)
        made = self._read(self._places.made).split()
        remove(self._places.sudo_rule)
        remove(self._places.programs)
        remove_root_key(self._places, made)
        self._remove_account(ACCOUNT)

    def _remove_account(self, name: str) -> None:
        # --force, since the session that this runs in belongs to the account
        self._system.call("userdel", "--force", name, check=False)
        self._system.call("groupdel", name, check=False)

    def _read(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                return file.read(_FACT_BYTES).decode(errors="replace")
        except OSError:
            return ""


def _cannot_suspend(why: str) -> Refusal:
    return Refusal(
        "cannot_suspend",
        f"the node cannot suspend: {why}",
        "have it powered off instead: sleep_how=power_off",
    )

"""The machine under a host: its disk, its nspawn process and its link, switched on and off like hardware."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from fleet_groups import Group, wait_until
from fleet_network import Network, command, has_link, loop_files, remove_link

BOOT = Path(__file__).with_name("boot.sh")
SLOW_LINK = Path(__file__).with_name("slow_link.py")
REBOOT = 133  # nspawn's exit code where the machine asks to be started again


@dataclass(frozen=True)
class Line:
    """How a machine is wired: both ways, except that `rate_mbit` bounds what comes to it."""

    up: bool = True
    delay_ms: float = 0.0
    loss_percent: float = 0.0
    rate_mbit: float | None = None


class Machine:
    """One machine, off until `switch_on`; rebooted from inside it starts again, powered off it stays off.

    A thread of its own waits for its process, which the kernel kills when that thread ends: so a killed test
    run takes its machines with it.
    """

    def __init__(self, network: Network, index: int, hostname: str, tree: Path, disk_bytes: int):
        self.network, self.hostname, self.tree, self.disk_bytes = network, hostname, tree, disk_bytes
        self.address = network.address(index)
        self.id = f"{network.bridge}-{index}"
        self.device = f"vb-{self.id}"
        self.folder = network.folder / hostname
        self.disk = self.folder / "disk.img"
        self.seed = self.folder / "seed"
        self.group = Group(f"{network.group.name}/{hostname}")
        self.line = Line()
        self.cpus: float | None = None
        self.boots = 0
        self._process: subprocess.Popen | None = None
        self._slow_link: subprocess.Popen | None = None
        self._thread: threading.Thread | None = None
        self._wiring = threading.RLock()
        self._problem: BaseException | None = None
        self._cut = False

    def make_disk(self) -> None:
        """A new, empty disk; the machine is off."""
        for folder in ("disk", "root", "seed"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        self._await_disk()
        self.disk.unlink(missing_ok=True)
        with self.disk.open("wb") as file:
            file.truncate(self.disk_bytes)
        command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", str(self.disk))

    @property
    def is_on(self) -> bool:
        """Whether it runs, or is just starting again."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def console(self) -> str:
        """The last 20,000 characters of what it said while starting and stopping."""
        path = self.folder / "console.log"
        return path.read_text(errors="replace")[-20_000:] if path.exists() else ""

    def switch_on(self) -> None:
        """Start it; returns at once."""
        assert not self.is_on, f"{self.hostname} is on"
        self._problem, self._cut = None, False
        self._thread = threading.Thread(target=self._run, name=f"machine {self.hostname}", daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Press the power button: it shuts down in order; returns at once."""
        nspawn = self._nspawn()
        if nspawn is not None:
            os.kill(nspawn, signal.SIGTERM)

    def cut_power(self) -> None:
        """It stops at once, without a word to anybody; returns when it is off."""
        if has_link(self.device):  # first, or its kernel side would close connections politely
            command("ip", "link", "set", self.device, "down", check=False)
        if self._thread is not None:
            self._cut = True
            wait_until(self._try_cut, 20.0, f"{self.hostname} to be off")

    def _try_cut(self) -> bool:
        self.group.kill()  # again and again: it may be just starting
        return not self.is_on

    def wait_off(self, timeout_s: float) -> None:
        """Return once it is off."""
        wait_until(lambda: not self.is_on, timeout_s, f"{self.hostname} to be off")
        self.check()

    def check(self) -> None:
        """RuntimeError where the harness could not start it or wire it."""
        if self._problem is not None:
            raise RuntimeError(f"{self.hostname}: {self._problem}\n{self.console}") from self._problem

    def leader(self) -> int | None:
        """The process id (outside) of the machine's first process; None while it has none."""
        nspawn = self._nspawn()
        for child in _children(nspawn) if nspawn else ():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{child}/status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
                if len(ids) >= 3 and ids[-1] == "1":  # first in a namespace within nspawn's own
                    return child
        return None

    def _nspawn(self) -> int | None:
        process = self._process
        if process is None or process.poll() is not None:
            return None
        return next(iter(_children(process.pid)), None)

    def rewire(self, line: Line) -> None:
        """Change how it is wired, now and for its later starts."""
        with self._wiring:
            self.line = line
            if self.is_on and has_link(self.device):
                self._wire()

    def limit_cpus(self, cpus: float | None) -> None:
        """Let it use so many CPUs in all, now and after its later starts; None: no bound."""
        self.cpus = cpus
        if self.group.exists():
            self.group.limit_cpus(cpus)

    def discard(self) -> None:
        """Cut its power and remove all that is its own."""
        self.cut_power()
        self._await_disk()
        if has_link(self.device):
            remove_link(self.device)
        self.group.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what its thread does

    def _run(self) -> None:
        try:
            while self._run_once() == REBOOT and not self._cut:
                continue
        except BaseException as problem:  # noqa: BLE001 - told by `check` in the thread that waits for the machine
            self._problem = problem
            self.group.kill()

    def _run_once(self) -> int:
        self._await_disk()
        if has_link(self.device):
            remove_link(self.device)
        # New for each start: Linux counts the kills of a group, and kills what is cloned from a group with
        # one count into a group with another, as a newer systemd does for each service.
        self.group.remove()
        self.group.make()
        self.limit_cpus(self.cpus)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "LC_ALL": "C.UTF-8",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            "FLEET_GROUPS": " ".join(map(str, self.group.folders)),
        }
        with (self.folder / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment,
                cwd="/", start_new_session=True,
            )  # fmt: skip
        try:
            with self._wiring:
                if self.line != Line():
                    wait_until(self._is_wired, 30.0, f"the link of {self.hostname}")
                    if self._process.poll() is None:
                        self._wire()
            self.boots += 1
            return self._process.wait()
        finally:
            with self._wiring:
                self._end_slow_link()  # it would keep the machine's network alive

    def _is_wired(self) -> bool:
        return self._process.poll() is not None or (has_link(self.device) and self.leader() is not None)

    def _command(self) -> list[str]:
        # When this process's thread ends the kernel kills unshare, and with it all in its process namespace.
        apart = (
            "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child",
            "--mount-proc", "sh",
        )  # fmt: skip
        options = (
            "--quiet", "--boot", "--register=no", "--keep-unit", "--settings=no", "--console=pipe",
            "--link-journal=no", "--resolv-conf=off", "--timezone=off",
        )  # fmt: skip
        return [
            *apart, str(BOOT), str(self.folder), str(self.tree), "systemd-nspawn", *options,
            f"--directory={self.folder}/root", f"--machine={self.id}", f"--hostname={self.hostname}",
            f"--network-bridge={self.network.bridge}",
        ]  # fmt: skip

    def _await_disk(self) -> None:
        wait_until(
            lambda: str(self.disk) not in loop_files(), 20.0, f"the disk of {self.hostname} to be released"
        )

    def _wire(self) -> None:
        command("ip", "link", "set", self.device, "up" if self.line.up else "down")
        command("tc", "qdisc", "delete", "dev", self.device, "root", check=False)
        if self.line.rate_mbit is not None:
            rate = f"{self.line.rate_mbit * 1000:.0f}kbit"
            shape = ["tbf", "rate", rate, "burst", "64kb", "latency", "200ms"]
            command("tc", "qdisc", "add", "dev", self.device, "root", *shape)
        self._end_slow_link()
        if self.line.delay_ms or self.line.loss_percent:
            self._start_slow_link()

    def _start_slow_link(self) -> None:
        leader = self.leader()
        assert leader is not None, f"{self.hostname} is off"
        inside = ["nsenter", "--target", str(leader), "--net"]
        program = [sys.executable, "-I", str(SLOW_LINK), str(self.line.delay_ms), str(self.line.loss_percent)]
        self._slow_link = subprocess.Popen(
            [*inside, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if self._slow_link.stdout.readline() != b"ready\n":
            raise RuntimeError(f"slow_link.py: {self._slow_link.stderr.read().decode(errors='replace')}")
        for chain, way in (("INPUT", "--in-interface"), ("OUTPUT", "--out-interface")):
            command(
                *inside, "iptables", "--wait", "20", "--append", chain, way, "host0", "--jump", "NFQUEUE",
                "--queue-num", "77", "--queue-bypass",
            )  # fmt: skip

    def _end_slow_link(self) -> None:
        process, self._slow_link = self._slow_link, None
        if process is None:
            return
        if leader := self.leader():
            for chain in ("INPUT", "OUTPUT"):
                inside = ["nsenter", "--target", str(leader), "--net"]
                command(*inside, "iptables", "--wait", "20", "--flush", chain, check=False)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []

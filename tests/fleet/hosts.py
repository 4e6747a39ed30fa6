"""Real hosts on this machine: each with its own systemd, sshd, address, disk and power switch.

    with Fleet() as fleet:
        host = fleet.start("alpha", "trixie")     # returns when its sshd answers
        host.run("systemctl is-system-running")   # as root inside, without SSH

A Fleet has a network of its own; its hosts reach this machine and each other, and nothing else.
"""

import base64
import hashlib
import os
import platform
import re
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from fleet_groups import find_hierarchies, wait_until
from fleet_machine import Line, Machine
from fleet_network import Network, command
from fleet_trees import PASSWORD, cache_folder, tree

ROOT, SUDOER, ASKED, GUEST = "root", "sudoer", "asked", "guest"  # see make_tree.sh
TOOLS = (
    "debootstrap",
    "systemd-nspawn",
    "ip",
    "tc",
    "iptables",
    "nsenter",
    "setpriv",
    "unshare",
    "mkfs.ext4",
)
DISK_BYTES = 4 << 30
READY_TIMEOUT_S = 90.0
INSIDE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

__all__ = ["ASKED", "GUEST", "PASSWORD", "ROOT", "SUDOER", "Fleet", "Host", "why_not"]


def why_not() -> str | None:
    """Why this machine cannot run hosts, in one line; None where it can."""
    if platform.system() != "Linux":
        return "real hosts need Linux"
    if os.geteuid() != 0:
        return "real hosts need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"real hosts need {', '.join(missing)} (tests/packages.sh installs them)"
    if not Path("/dev/loop-control").exists():
        return "real hosts need loop devices (/dev/loop-control)"
    unified = find_hierarchies(Path("/proc/self/mountinfo").read_text())[0]
    return None if unified else "real hosts need a mounted cgroup v2"


class Fleet:
    """The hosts of one test run and their network.

    `close` leaves nothing behind; after a kill the next run's `Fleet()` clears up.
    """

    def __init__(self, cache: Path | None = None):
        self._cache = cache or cache_folder()
        self.network = Network.claim(self._cache)
        self.hosts: dict[str, Host] = {}
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def gateway(self) -> str:
        """The address of this machine as the hosts see it."""
        return self.network.gateway

    def start(self, name: str, release: str = "bookworm", *, cpus: float | None = None,
              disk_bytes: int = DISK_BYTES, wait: bool = True) -> "Host":  # fmt: skip
        """A new host, ready (with `wait=False`: starting; see `Host.wait_ready`).

        `cpus` bounds what it gets of this machine; `disk_bytes` is the size of its (sparse) disk.
        """
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name), f"no host name: {name}"
        assert name not in self.hosts, f"{name} is there already"
        assert self._started < 240, "this fleet's network has no address left"
        base = tree(release, self._cache)
        host = Host(name, release, Machine(self.network, self._started, name, base, disk_bytes))
        self._started += 1
        self.hosts[name] = host
        host.limit_cpus(cpus)
        host.reset(wait=False)
        if wait:
            host.wait_ready()
        return host

    def remove(self, *names: str) -> None:
        """End these hosts and throw away their disks (all hosts, where none is named)."""
        for name in names or tuple(self.hosts):
            self.hosts.pop(name).machine.discard()

    def close(self) -> None:
        """End all and remove the network."""
        try:
            self.remove()
        finally:
            self.network.release()


class Host:
    """One host. Its methods may be called from any thread; those that wait raise TimeoutError in the end."""

    port = 22

    def __init__(self, name: str, release: str, machine: Machine):
        self.name, self.release, self.machine = name, release, machine
        self.address = machine.address

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.release} {self.address}>"

    # -- power

    def reset(self, *, wait: bool = True) -> None:
        """As new: power cut, empty disk, new identity and host keys, plain link, started."""
        self.machine.cut_power()
        self.machine.make_disk()
        self.machine.line = Line()
        self._write_seed()
        self.start(wait=wait)

    def start(self, *, wait: bool = True) -> None:
        """Switch it on; with `wait`, return when it is ready."""
        self.machine.switch_on()
        if wait:
            self.wait_ready()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Press the power button and wait: it shuts down in order."""
        self.machine.ask_to_stop()
        self.machine.wait_off(timeout_s)

    def cut_power(self) -> None:
        """Off at once: no process gets to say anything, no connection is closed."""
        self.machine.cut_power()

    def reboot(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Reboot from inside, in order, and wait until it is ready again."""
        boots = self.boots
        self.run("systemctl --no-block reboot")
        wait_until(lambda: self.boots > boots or not self.is_on, timeout_s, f"{self.name} to start again")
        self.wait_ready(timeout_s)

    def hang(self) -> None:
        """Nothing in it runs any more; its kernel still takes connections and data."""
        self.machine.group.freeze(frozen=True)

    def resume(self) -> None:
        """Let it run again after `hang`."""
        self.machine.group.freeze(frozen=False)

    def limit_cpus(self, cpus: float | None) -> None:
        """Let it use so many CPUs in all, now and after restarts; None: no bound."""
        self.machine.limit_cpus(cpus)

    @property
    def is_on(self) -> bool:
        """Whether it runs (or is between the two halves of a reboot)."""
        return self.machine.is_on

    @property
    def boots(self) -> int:
        """How often it has started."""
        return self.machine.boots

    @property
    def console(self) -> str:
        """What it said while starting and stopping."""
        return self.machine.console

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return once its sshd answers at its address (or would, were the line up and good)."""
        deadline = time.monotonic() + timeout_s
        try:
            wait_until(self._listens, timeout_s, f"sshd of {self.name}")
            if self.machine.line.up:
                wait_until(self._answers, max(1.0, deadline - time.monotonic()), f"an answer of {self.name}")
        except TimeoutError as problem:
            raise TimeoutError(f"{problem}\n{self.console}") from None

    def _listens(self) -> bool:
        self.machine.check()
        assert self.is_on, f"{self.name} went off while it was to start:\n{self.console}"
        leader = self.machine.leader()
        if leader is None:
            return False
        try:
            sockets = Path(f"/proc/{leader}/net/tcp").read_text()
            routes = Path(f"/proc/{leader}/net/route").read_text()
        except OSError:
            return False
        return ":0016 00000000:0000 0A" in sockets and "host0" in routes

    def _answers(self) -> bool:
        # What this machine has learnt of the address before may be old by now.
        network = self.machine.network
        command("ip", "neighbour", "delete", self.address, "dev", network.bridge, check=False)
        try:
            with socket.create_connection((self.address, self.port), timeout=3.0) as link:
                return link.recv(4) == b"SSH-"
        except OSError:
            return False

    # -- inside

    def run(
        self, script: str, *, given: str | None = None, check: bool = True, timeout_s: float = 60.0
    ) -> str:
        """The output of a shell script run as root inside, without SSH; `given` is its input.

        AssertionError with what it said where it fails.
        """
        leader = self.machine.leader()
        assert leader is not None, f"{self.name} is off"
        inside = [
            "nsenter", "--target", str(leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
            "--root", "--wd", "--", "/bin/sh", "-c", script,
        ]  # fmt: skip
        source = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
        done = subprocess.run(
            inside, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s,
            env=INSIDE, **source,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{self}: {script}: exit {done.returncode}: {done.stderr}"
        return done.stdout

    def journal(self, unit: str | None = None, lines: int = 100) -> str:
        """The last lines of its journal (of one unit)."""
        return self.run(f"journalctl --no-pager --lines={lines}" + (f" --unit={unit}" if unit else ""))

    def set_password(self, user: str, password: str) -> None:
        """Give an account another password (all have PASSWORD at first)."""
        self.run("chpasswd", given=f"{user}:{password}\n")

    def authorize(self, user: str, public_key: str) -> None:
        """Let the holder of a key (one line as in id_ed25519.pub) log in."""
        home = "/root" if user == ROOT else f"/home/{user}"
        self.run(
            f"install -d -m 0700 -o {user} -g {user} {home}/.ssh && cat >>{home}/.ssh/authorized_keys"
            f" && chown {user}:{user} {home}/.ssh/authorized_keys && chmod 0600 {home}/.ssh/authorized_keys",
            given=f"{public_key}\n",
        )

    def stop_sshd(self) -> None:
        """Its SSH port is closed from now on; sessions that are open stay."""
        self.run("systemctl stop ssh.socket 2>/dev/null; systemctl stop ssh.service")

    def start_sshd(self) -> None:
        """Open the SSH port again."""
        self.run("systemctl start ssh.service")
        self.wait_ready()

    def change_host_key(self) -> None:
        """Give it other host keys, as after a new installation."""
        for name, (private, public) in _new_host_keys().items():
            self.run(f"umask 077 && cat >/etc/ssh/{name}", given=private)
            self.run(f"cat >/etc/ssh/{name}.pub", given=public)
        self.run("systemctl restart ssh.service")
        self.wait_ready()

    def fingerprints(self) -> dict[str, str]:
        """Its host keys' fingerprints (SHA256:...) by key type (ssh-ed25519, ...)."""
        lines = self.run("cat /etc/ssh/ssh_host_*_key.pub").splitlines()
        return {kind: _fingerprint(key) for kind, key in (line.split()[:2] for line in lines)}

    # -- line and disk

    def disconnect(self) -> None:
        """Pull its network cable: nothing arrives, nothing is refused."""
        self._rewire(up=False)

    def connect(self) -> None:
        """Plug the cable in again; returns at once."""
        self._rewire(up=True)

    def spoil_line(
        self, *, delay_ms: float = 0.0, loss_percent: float = 0.0, rate_mbit: float | None = None
    ) -> None:
        """Delay and lose its packets each way, bound the rate of what comes to it; nothing given: undo it."""
        self._rewire(delay_ms=delay_ms, loss_percent=loss_percent, rate_mbit=rate_mbit)

    def _rewire(self, **changes: object) -> None:
        self.machine.rewire(Line(**{**self.machine.line.__dict__, **changes}))

    def free_bytes(self) -> int:
        """What is free on its disk."""
        blocks, block_bytes = self.run("stat --file-system --format='%a %S' /var/lib").split()
        return int(blocks) * int(block_bytes)

    def fill_disk(self, leave_bytes: int = 0) -> None:
        """Leave so much of its disk free (within 1 MiB; with 0, not one block)."""
        self.free_disk()
        self.run(f"fallocate --length {max(1, self.free_bytes() - max(leave_bytes, 1 << 20))} /var/filler")
        if not leave_bytes:
            self.run("cat /dev/zero >>/var/filler2 2>/dev/null; sync /var/filler2", check=False)

    def free_disk(self) -> None:
        """Undo `fill_disk`."""
        self.run("rm -f /var/filler /var/filler2")

    # -- what a new disk holds

    def _write_seed(self) -> None:
        seed = self.machine.seed
        network = (
            "[Match]\nName=host0\n\n[Link]\nRequiredForOnline=no\n\n"
            f"[Network]\nAddress={self.address}/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
            "ConfigureWithoutCarrier=yes\n"  # keeps its address while the cable is out
        )
        files = {
            "etc/hostname": (f"{self.name}\n", 0o644),
            "etc/hosts": (f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n", 0o644),
            "etc/machine-id": (f"{uuid.uuid4().hex}\n", 0o444),
            "etc/systemd/network/10-host0.network": (network, 0o644),
        }
        for name, (private, public) in _new_host_keys().items():
            files[f"etc/ssh/{name}"] = (private, 0o600)
            files[f"etc/ssh/{name}.pub"] = (public, 0o644)
        shutil.rmtree(seed, ignore_errors=True)
        for name, (text, mode) in files.items():
            path = seed / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(mode)
        for folder in (seed, *(path for path in seed.rglob("*") if path.is_dir())):
            folder.chmod(0o755)


def _new_host_keys() -> dict[str, tuple[str, str]]:
    made = {}
    for kind, key in (
        ("ed25519", ed25519.Ed25519PrivateKey.generate()),
        ("ecdsa", ec.generate_private_key(ec.SECP256R1())),
    ):
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        made[f"ssh_host_{kind}_key"] = (private.decode(), public.decode() + "\n")
    return made


def _fingerprint(key: str) -> str:
    digest = hashlib.sha256(base64.b64decode(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

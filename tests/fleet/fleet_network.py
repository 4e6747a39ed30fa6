"""The fleet's own network: a bridge in the current network namespace with a free 10.77.N.0/24.

A fleet holds a lock file in RUN while it lives. Whatever a killed run left (bridge, control groups, disks) is
found by lock files that nobody holds, and removed by the next run.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

from fleet_groups import Group, wait_until

RUN = Path("/run/millwright-fleet")
NUMBERS = range(1, 250)


def command(*words: str, check: bool = True, timeout_s: float = 30.0) -> str:
    """The output of a program; RuntimeError with what it said where it fails."""
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    if check and done.returncode:
        raise RuntimeError(
            f"{' '.join(words)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return done.stdout


def has_link(name: str) -> bool:
    """Whether this network device exists."""
    return Path("/sys/class/net", name).exists()


def remove_link(name: str) -> None:
    """Remove a network device, there or not."""
    command("ip", "link", "delete", name, check=False)  # the kernel may be about to remove it itself
    wait_until(lambda: not has_link(name), 20.0, f"device {name} to go")


def links_of(number: int) -> list[str]:
    """The devices of fleet `number`: its hosts' lines, then its bridge."""
    names = [path.name for path in Path("/sys/class/net").iterdir()]
    return sorted(name for name in names if name == f"mwf{number}" or name.startswith(f"vb-mwf{number}-"))[
        ::-1
    ]


class Network:
    """One fleet's claim on a number N: bridge mwfN, addresses 10.77.N.0/24, control group millwright-fleet-N.

    `claim` makes it. `folder` is where the fleet keeps its disks. `release` removes everything.
    """

    def __init__(self, number: int, folder: Path, handle):
        self.number = number
        self.folder = folder
        self.bridge = f"mwf{number}"
        self.group = Group(f"millwright-fleet-{number}")
        self._handle = handle

    @property
    def gateway(self) -> str:
        """The address of this machine in the fleet's network."""
        return f"10.77.{self.number}.1"

    def address(self, index: int) -> str:
        """The address of the fleet's host number `index` (from 0)."""
        return f"10.77.{self.number}.{index + 10}"

    @classmethod
    def claim(cls, cache: Path) -> "Network":
        """A network for a new fleet, after removing what dead fleets left."""
        RUN.mkdir(mode=0o755, exist_ok=True)
        remove_leftovers()
        taken = _networks_in_use()
        for number in NUMBERS:
            if any(text.startswith(f"10.77.{number}.") for text in taken) or has_link(f"mwf{number}"):
                continue
            handle = _try_lock(RUN / f"{number}.lock")
            if handle is None:
                continue
            folder = cache / "runs" / str(number)
            handle.truncate(0)
            handle.write(f"{folder}\n")
            handle.flush()
            network = cls(number, folder, handle)
            if network._make():
                return network
            handle.close()
        raise RuntimeError("no free network 10.77.N.0/24 for a fleet")

    def _make(self) -> bool:
        try:
            command("ip", "link", "add", self.bridge, "type", "bridge", "forward_delay", "0")
        except RuntimeError:
            if has_link(self.bridge):  # somebody was quicker
                return False
            raise
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.group.make()
        command("ip", "address", "add", f"{self.gateway}/24", "dev", self.bridge)
        command("ip", "link", "set", self.bridge, "up")
        return True

    def release(self) -> None:
        """Remove all that is the fleet's, and give the number back."""
        _remove_all(self.number, self.folder)
        (RUN / f"{self.number}.lock").unlink(missing_ok=True)
        self._handle.close()

    def leftovers(self) -> list[str]:
        """What is there of it, in words; empty after `release`."""
        found = [f"process {pid}" for pid in self.group.pids()]
        found += [f"control group {folder}" for folder in self.group.folders if folder.exists()]
        found += [f"device {name}" for name in links_of(self.number)]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [f"mount {line}" for line in mounts if f"{self.folder}/" in line]
        found += [f"loop device of {path}" for path in loop_files() if Path(path).is_relative_to(self.folder)]
        found += [f"folder {self.folder}"] if self.folder.exists() else []
        return found


def loop_files() -> list[str]:
    """The files that loop devices of this machine stand on."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # it has just gone
            found.append(path.read_text().strip().removesuffix(" (deleted)"))
    return found


def remove_leftovers() -> list[int]:
    """Remove what fleets left whose run is over; their numbers. Those of living runs are not touched."""
    removed = []
    for path in sorted(RUN.glob("*.lock")):
        handle = _try_lock(path)
        if handle is None:
            continue
        with handle:
            number, folder = int(path.stem), handle.read().strip()
            if folder:
                _remove_all(number, Path(folder))
                removed.append(number)
            path.unlink(missing_ok=True)
    return removed


def _remove_all(number: int, folder: Path) -> None:
    group = Group(f"millwright-fleet-{number}")
    group.remove()
    for name in links_of(number):
        remove_link(name)
    # Mounts live in namespaces of the hosts' own processes, and the kernel takes them down after these.
    wait_until(
        lambda: not any(Path(path).is_relative_to(folder) for path in loop_files()),
        20.0, f"the disks in {folder} to be released",
    )  # fmt: skip
    if folder.exists():
        shutil.rmtree(folder)


def _try_lock(path: Path):
    """The open lock file, ours until it is closed; None where a living fleet holds it."""
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.fstat(handle.fileno()).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        ours = False
    if not ours:  # held, or removed and perhaps made anew by another meanwhile
        handle.close()
        return None
    handle.seek(0)
    return handle


def _networks_in_use() -> list[str]:
    routes = json.loads(command("ip", "-json", "-4", "route", "show", "table", "all") or "[]")
    return [route.get("dst", "") for route in routes]

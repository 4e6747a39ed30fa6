"""Control groups of the fleet: every process of a host is in its host's group, however it came to be.

So a host is ended, frozen or slowed by its group alone; no process is ever looked up by its name.
Paths are those of cgroup v2, beside v1's `cpu` and `systemd` hierarchies where the machine has them.
"""

import os
import time
from pathlib import Path

PERIOD_US = 100_000


def find_hierarchies(mountinfo: str) -> tuple[Path | None, Path | None, list[Path]]:
    """(cgroup v2, v1's cpu hierarchy, all those a host joins) from the text of /proc/self/mountinfo."""
    unified, cpu, joined = None, None, []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        place = Path(before.split()[4])
        names = options.split(",")
        if kind == "cgroup2" and unified is None:
            unified = place
            joined.append(place)
        elif kind == "cgroup" and "cpu" in names and cpu is None:
            cpu = place
            joined.append(place)
        elif kind == "cgroup" and "name=systemd" in names:
            joined.append(place)
    return unified, cpu, joined


class Group:
    """The control group `name` (`fleet/host` or `fleet`) in each hierarchy; made by `make`."""

    def __init__(self, name: str):
        self.unified, self._cpu, hierarchies = find_hierarchies(Path("/proc/self/mountinfo").read_text())
        if self.unified is None:
            raise RuntimeError("no cgroup v2: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
        self.name = name
        self.folders = [hierarchy / name for hierarchy in hierarchies]

    def make(self) -> None:
        """Make it in each hierarchy."""
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
        if self._cpu is None:  # v2 gives a group its cpu controller only where each parent hands it down
            for parent in reversed((self.unified / self.name).parents):
                if parent == self.unified or self.unified in parent.parents:
                    (parent / "cgroup.subtree_control").write_text("+cpu")

    def exists(self) -> bool:
        """Whether it is there."""
        return all(folder.is_dir() for folder in self.folders)

    def pids(self) -> list[int]:
        """Of all processes in it and below."""
        found = []
        for folder in _with_those_below(self.unified / self.name):
            try:
                found += [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
            except OSError:  # the group has just gone
                continue
        return found

    def kill(self) -> None:
        """Kill all processes in it at once, new ones included."""
        try:
            (self.unified / self.name / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            return

    def freeze(self, *, frozen: bool) -> None:
        """Let none of its processes run (or let them run again); returns when it is so."""
        folder = self.unified / self.name
        (folder / "cgroup.freeze").write_text(str(int(frozen)))
        wait_until(
            lambda: f"frozen {int(frozen)}" in (folder / "cgroup.events").read_text(),
            10.0, f"{self.name} to {'freeze' if frozen else 'thaw'}",
        )  # fmt: skip

    def limit_cpus(self, cpus: float | None) -> None:
        """Let it use so many CPUs in all (0.25: a quarter of one); None: as many as there are."""
        quota = None if cpus is None else max(1000, int(cpus * PERIOD_US))
        if self._cpu is None:
            text = f"{quota or 'max'} {PERIOD_US}"
            (self.unified / self.name / "cpu.max").write_text(text)
            return
        (self._cpu / self.name / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (self._cpu / self.name / "cpu.cfs_quota_us").write_text(str(quota or -1))

    def remove(self, timeout_s: float = 10.0) -> None:
        """Kill what is in it and remove it with all below."""
        self.kill()
        wait_until(self._try_remove, timeout_s, f"control group {self.name} to empty")

    def _try_remove(self) -> bool:
        for folder in self.folders:
            for path in sorted(_with_those_below(folder), reverse=True):
                try:
                    path.rmdir()
                except FileNotFoundError:
                    continue
                except OSError:  # a process in it has not ended yet
                    return False
        return not any(folder.exists() for folder in self.folders)


def _with_those_below(group: Path) -> list[Path]:
    """`group` and all below it; one that goes meanwhile is left out, where `Path.glob` raises."""
    return [Path(folder) for folder, _, _ in os.walk(group)]


def wait_until(condition, timeout_s: float, what: str, interval_s: float = 0.02) -> None:
    """Return once `condition()` is true; TimeoutError naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(interval_s)

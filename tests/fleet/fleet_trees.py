"""The file trees that hosts start from: made by debootstrap once, kept outside the repository.

A tree is named by its release and a digest of how it is made, built beside its place and renamed into it: a
killed build leaves nothing that could be taken for a tree. Two test runs may ask for the same one at once.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "sudo", "iproute2", "ca-certificates",
)  # fmt: skip
PASSWORD = "fleet-password-1"  # of every account on a new host
RECIPE = Path(__file__).with_name("make_tree.sh")
BUILD_TIMEOUT_S = 1200


def cache_folder() -> Path:
    """Where trees and the disks of running hosts are: FLEET_CACHE, else ~/.cache/millwright-fleet."""
    return Path(os.environ.get("FLEET_CACHE") or Path.home() / ".cache" / "millwright-fleet").absolute()


def find_mirror(targets: str) -> str | None:
    """The Debian mirror among the lines of `apt-get indextargets`; None leaves the choice to debootstrap."""
    for line in targets.splitlines():
        address, _, suite = line.strip().partition(" ")
        plain = "-" not in suite.replace("-updates", "").replace("-backports", "")
        if plain and address.startswith(("http://", "https://")) and address.rstrip("/").endswith("/debian"):
            return address.rstrip("/")
    return None


def _mirror() -> list[str]:
    if given := os.environ.get("FLEET_MIRROR"):
        return [given]
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    found = find_mirror(asked.stdout)
    return [found] if found else []


@contextlib.contextmanager
def _locked(path: Path):
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def tree(release: str, folder: Path | None = None) -> Path:
    """The tree of a Debian release (its code name); made now where it is not there yet (about a minute)."""
    folder = folder or cache_folder()
    trees = folder / "trees"
    trees.mkdir(parents=True, exist_ok=True)
    how = hashlib.sha256("\0".join([RECIPE.read_text(), PASSWORD, *PACKAGES]).encode()).hexdigest()[:12]
    place = trees / f"{release}-{how}"
    if place.is_dir():
        return place
    with _locked(trees / f"{release}.lock"):
        for left in trees.glob(f"{release}-*"):  # older recipes stay: a run that uses one may be alive
            if left.name.endswith(".building"):
                shutil.rmtree(left)
        if not place.is_dir():
            _build(release, place, trees / f"{release}.log")
    return place


def _build(release: str, place: Path, log: Path) -> None:
    started = time.monotonic()
    building = place.with_name(place.name + ".building")
    # Its mounts and children live in namespaces of their own, and so end with it however it ends.
    wrap = [
        "setpriv", "--pdeathsig", "KILL",
        "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
    ]  # fmt: skip
    recipe = ["sh", str(RECIPE), release, str(building), PASSWORD, ",".join(PACKAGES), *_mirror()]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    environment["DPKG_FORCE"] = "unsafe-io"  # no wait for the disk at each file; see the one at the end
    with log.open("w") as output:
        made = subprocess.run(
            [*wrap, *recipe], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=environment, check=False, timeout=BUILD_TIMEOUT_S,
        )  # fmt: skip
    if made.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"the tree of {release} could not be made (all of it in {log}):\n{last}")
    os.sync()  # a tree cut short by a crash of this machine would look whole
    building.rename(place)
    with log.open("a") as output:
        output.write(f"made in {time.monotonic() - started:.1f} s\n")


def make_trees(releases: list[str], folder: Path | None = None) -> None:
    """Make those that are missing, all at once."""
    with ThreadPoolExecutor(len(releases)) as pool:
        list(pool.map(lambda release: tree(release, folder), releases))

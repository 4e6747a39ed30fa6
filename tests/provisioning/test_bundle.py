"""What nodes run is built once, from locked hashes, and always the same bytes."""

import hashlib
import os
import re
import subprocess
import sys
import tarfile

import pytest
import tomllib

from provisioning import bundle
from provisioning.errors import BundleError
from provisioning.lock import parse_lock, pip_requirements

LOCK = parse_lock(bundle.LOCK.read_text())

pytestmark = pytest.mark.slow


def test_the_steward_is_one_file_that_refuses_arguments(tmp_path):
    """It is the same bytes each time, and runs by itself, with nothing of the checkout in sight."""
    program = tmp_path / "steward"
    program.write_bytes(bundle.build_steward())
    program.chmod(0o755)
    assert bundle.build_steward() == program.read_bytes()
    told = subprocess.run(
        [sys.executable, "-IB", str(program), "--help"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={},
    )
    assert (told.returncode, b"takes no arguments" in told.stdout, told.stderr) == (1, True, b"")


@pytest.mark.parametrize(
    ("python", "arch", "numpy"),
    [("3.10", "x86_64", "2.2."), ("3.11", "x86_64", "2.4."), ("3.13", "aarch64", "2.5.")],
)
def test_the_lock_is_read_for_the_node_and_not_for_this_machine(python, arch, numpy):
    """Each Python has its own version of a package, every one with hashes and without markers."""
    lines = pip_requirements(LOCK, bundle.PACKAGES, python, arch).splitlines()
    names = [line.split("==")[0] for line in lines]
    assert sorted(names) == sorted(bundle.PACKAGES)
    assert all("--hash=sha256:" in line and ";" not in line for line in lines)
    assert any(line.startswith(f"numpy=={numpy}") for line in lines)


def test_releases_hold_all_that_agents_are_said_to_need():
    """What pyproject.toml names for agents is in a release, at the versions that the appliance runs."""
    project = tomllib.loads((bundle.CHECKOUT / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[<>=]", line)[0] for line in project["optional-dependencies"]["agent"]}
    assert named <= set(bundle.PACKAGES)
    own = parse_lock((bundle.CHECKOUT / "requirements-appliance.txt").read_text())
    for python in ("3.11", "3.13"):
        theirs = set(pip_requirements(LOCK, named, python, "x86_64").split())
        ours = set(pip_requirements(own, named, python, "x86_64").split())
        assert {one for one in theirs if "==" in one} == {one for one in ours if "==" in one}


def test_a_lock_that_is_not_understood_is_named():
    """A line that is none stops the build, with the line."""
    with pytest.raises(ValueError, match="numpy>=2"):
        parse_lock("numpy>=2\n")


def test_archives_of_the_same_tree_are_the_same_bytes(tmp_path):
    """Neither times nor the order of writing show; tests and links are left out."""
    digests = []
    for number, names in enumerate((("a/x.py", "b.py"), ("b.py", "a/x.py"))):
        tree = tmp_path / str(number)
        for name in (*names, "a/tests/y.py", "z.dist-info/RECORD"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name)
        (tree / "link").symlink_to("/etc/passwd")
        os.utime(tree / "b.py", (number * 1000, number * 1000))
        bundle.write_archive(tree, tmp_path / f"{number}.tar.gz")
        digests.append(hashlib.sha256((tmp_path / f"{number}.tar.gz").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    with tarfile.open(tmp_path / "0.tar.gz") as archive:
        assert archive.getnames() == ["a/x.py", "b.py"]


def play_pip(monkeypatch, calls):
    """Stand in for pip's download: a package of one file."""

    def install(tree, requirements, version, arch):
        calls.append((version, arch))
        tree.mkdir()
        (tree / "numpy.py").write_text("import nothing\n")

    monkeypatch.setattr(bundle, "_install", install)


def test_a_release_is_built_once_and_again_when_its_sources_change(tmp_path, monkeypatch):
    """The second time it is taken from disk; a lost or shortened file is built again."""
    calls = []
    play_pip(monkeypatch, calls)
    first = bundle.build_release(tmp_path, "3.11.2", "x86_64")
    assert bundle.build_release(tmp_path, "3.11.9", "x86_64") == first
    assert calls == [("3.11", "x86_64")]
    assert hashlib.sha256(first.path.read_bytes()).hexdigest() == first.sha256
    first.path.write_bytes(first.path.read_bytes()[:100])
    assert bundle.build_release(tmp_path, "3.11", "x86_64") == first
    monkeypatch.setattr(bundle, "_agent_sources", lambda: {"agents/__init__.py": b"# changed\n"})
    changed = bundle.build_release(tmp_path, "3.11", "x86_64")
    assert changed.sha256 != first.sha256
    assert len(calls) == 3
    assert bundle.prune_releases(tmp_path, {changed.sha256: 1}) == [first.sha256]
    assert changed.path.is_file()
    assert not first.path.exists()


def test_what_is_current_or_just_built_is_kept(tmp_path, monkeypatch):
    """What was collected ahead is there when it is needed, and no build loses its folder."""
    play_pip(monkeypatch, [])
    ahead = bundle.build_release(tmp_path, "3.11", "x86_64")
    (tmp_path / ".build-now").mkdir()
    (tmp_path / ".build-old").mkdir()
    os.utime(tmp_path / ".build-old", (0, 0))
    assert bundle.prune_releases(tmp_path, {}) == []
    assert ahead.path.is_file()
    assert [path.name for path in tmp_path.glob(".build-*")] == [".build-now"]


def test_what_cannot_be_built_is_said_in_one_line(tmp_path, monkeypatch):
    """An unknown processor, and pip without an index."""
    with pytest.raises(BundleError, match="riscv64"):
        bundle.build_release(tmp_path, "3.11", "riscv64")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BundleError, match="pip: ") as caught:
        bundle.build_release(tmp_path, "3.11", "x86_64")
    assert caught.value.code == "bundle_failed"
    assert not list(tmp_path.glob(".build-*"))

"""Builds what nodes run: the steward, and releases of the agents for a Python version and processor.

Both are the same bytes for the same sources, and are named by their SHA-256. A release is built on the
appliance and holds all that an agent imports, so that a node needs no internet, compiler or pip.
"""

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from provisioning.elf import keep_segments
from provisioning.errors import BundleError
from provisioning.file_lock import LockHeld, hold_lock
from provisioning.lock import parse_lock, pip_requirements

CHECKOUT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = CHECKOUT / "requirements-agent.txt"
#: Raised when what this file does to a release changes.
FORMAT: Final = 2
PIP_S: Final = 600
#: Another's build of the same release is waited for: pip's time, and as much again for the rest.
BUILD_S: Final = 2 * PIP_S
#: What an agent imports. The lock also holds what tokenizers and ctranslate2 need for downloads and
#: conversions, which agents never do.
PACKAGES: Final = (
    "click", "ctranslate2", "h11", "httptools", "msgspec", "numpy", "psutil", "tokenizers",
    "typing-extensions", "uvicorn", "uvloop",
)  # fmt: skip
_ARCH_TAGS: Final = {"x86_64": "x86_64", "aarch64": "aarch64"}
#: The oldest C library of nodes is 2.28 (`planning.MIN_LIBC`).
_LIBC_MINORS: Final = range(28, 16, -1)
#: In words that any Python 3 reads, since the node's may be older than it was at enrolment.
_STEWARD_MAIN: Final = b"""import sys

if sys.version_info < (3, 10):
    told = "the node has Python %d.%d" % sys.version_info[:2]
    print('{"error": {"code": "python_too_old", "message": "' + told + '", "hint": ""}}')
    sys.exit(1)

from steward.main import main

sys.exit(main())
"""
_LEFT_OUT: Final = {"tests", "bin", "converters", "_pyinstaller", "f2py"}
_LEFT_OUT_SUFFIXES: Final = (".pyi", ".pxd", ".a", ".h", ".pyx", ".md")
_LEFT_OUT_FILES: Final = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


@dataclass(frozen=True, slots=True)
class Release:
    """A release on the appliance's disk."""

    sha256: str
    path: Path
    size_bytes: int


def build_steward() -> bytes:
    """The steward as one executable file; the same bytes for the same sources."""
    packed = io.BytesIO(b"")
    packed.write(b"#!/usr/bin/python3 -ISB\n")
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
        _pack(archive, "__main__.py", _STEWARD_MAIN)
        for path in sorted((CHECKOUT / "provisioning" / "steward").glob("*.py")):
            _pack(archive, f"steward/{path.name}", path.read_bytes())
    return packed.getvalue()


def build_release(releases_dir: Path, python: str, arch: str) -> Release:
    """The release for nodes with this Python (`3.11` or `3.11.2`) and processor (`x86_64`, `aarch64`).

    One that was built from the same sources before is taken from `releases_dir`; several builders at once
    wait for the first. Raises BundleError.
    """
    version = ".".join(python.split(".")[:2])
    if arch not in _ARCH_TAGS:
        raise BundleError(f"there are no agents for {arch!r}; accepted: {', '.join(_ARCH_TAGS)}")
    key = _inputs(version, arch)
    try:
        with _turn(releases_dir, f"{version}-{arch}"):
            return _known(releases_dir, key) or _build(releases_dir, key, version, arch)
    except OSError as error:
        raise BundleError(f"a release could not be written: {error.strerror or error}") from error


def _pack(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)


def _inputs(version: str, arch: str) -> str:
    digest = hashlib.sha256(f"{FORMAT} {version} {arch} {PACKAGES}\n".encode())
    for name, content in sorted(_agent_sources().items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    digest.update(LOCK.read_bytes())
    return digest.hexdigest()


def _agent_sources() -> dict[str, bytes]:
    paths = (CHECKOUT / "agents").rglob("*.py")
    return {str(path.relative_to(CHECKOUT)): path.read_bytes() for path in paths}


@contextmanager
def _turn(releases_dir: Path, name: str) -> Iterator[None]:
    releases_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(releases_dir / f".{name}.lock", BUILD_S))
        except LockHeld as held:
            raise BundleError(str(held)) from None
        yield


def _known(releases_dir: Path, key: str) -> Release | None:
    try:
        told = json.loads((releases_dir / f"{key}.json").read_bytes())
        path = releases_dir / f"{told['sha256']}.tar.gz"
        size = path.stat().st_size
    except (OSError, ValueError, KeyError):
        return None
    return Release(told["sha256"], path, size) if size == told["bytes"] else None


def _build(releases_dir: Path, key: str, version: str, arch: str) -> Release:
    with tempfile.TemporaryDirectory(dir=releases_dir, prefix=".build-") as folder:
        tree = Path(folder) / "tree"
        _install(tree, Path(folder) / "requirements.txt", version, arch)
        for name, content in _agent_sources().items():
            place = tree / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        _compile(tree, version)
        packed = Path(folder) / "release.tar.gz"
        write_archive(tree, packed)
        with packed.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = packed.stat().st_size
        path = releases_dir / f"{sha256}.tar.gz"
        packed.replace(path)
    index = releases_dir / f"{key}.json"
    staged = index.with_suffix(".new")
    staged.write_text(json.dumps({"sha256": sha256, "bytes": size, "python": version, "arch": arch}))
    staged.replace(index)
    return Release(sha256, path, size)


def _install(tree: Path, requirements: Path, version: str, arch: str) -> None:
    """Have pip unpack the locked wheels for that target. Raises BundleError with pip's last words."""
    locked = parse_lock(LOCK.read_text())
    requirements.write_text(pip_requirements(locked, PACKAGES, version, arch))
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check",
        "--no-deps", "--ignore-requires-python", "--require-hashes", "--only-binary=:all:",
        "--no-compile", "--target", str(tree),
        "--implementation", "cp", "--python-version", version, *_platforms(arch),
        "--requirement", str(requirements),
    ]  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603 - our interpreter and arguments of ours, no shell
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=PIP_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise BundleError(f"pip did not end within {PIP_S} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        last = said[-1].strip()[:300] if said else f"exit code {done.returncode}"
        raise BundleError(f"no release for Python {version} on {arch}: pip: {last}")


def _compile(tree: Path, version: str) -> None:
    """Byte-compile the tree where this interpreter is of the nodes' version; they compile it otherwise.

    Bytecode names no time, and without a random seed it is the same bytes each time.
    """
    if version != f"{sys.version_info.major}.{sys.version_info.minor}":
        return
    command = [
        sys.executable, "-s", "-m", "compileall", "-q", "-q", "--invalidation-mode", "unchecked-hash",
        "-s", str(tree), str(tree),
    ]  # fmt: skip
    try:
        subprocess.run(  # noqa: S603 - our interpreter and arguments of ours, no shell
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=PIP_S, check=False, env={"PYTHONHASHSEED": "0"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BundleError(f"a release could not be compiled within {PIP_S} s") from None


def _platforms(arch: str) -> list[str]:
    tags = [f"manylinux_2_{minor}_{arch}" for minor in _LIBC_MINORS] + [f"manylinux2014_{arch}"]
    return [part for tag in tags for part in ("--platform", tag)]


def write_archive(tree: Path, target: Path) -> None:
    """Pack a tree: sorted, without times, owners and what agents never read; always the same bytes."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(tree.rglob("*")):
            relative = path.relative_to(tree)
            if not path.is_file() or path.is_symlink() or _is_left_out(relative):
                continue
            content = path.read_bytes()
            if ".so" in path.suffixes:
                content = keep_segments(content)
            info = tarfile.TarInfo(str(relative))
            info.size = len(content)
            info.mode = 0o644
            archive.addfile(info, io.BytesIO(content))


def _is_left_out(path: Path) -> bool:
    return (
        not _LEFT_OUT.isdisjoint(path.parts[:-1])
        or path.name in _LEFT_OUT_FILES
        or path.suffix in _LEFT_OUT_SUFFIXES
    )


def prune_releases(releases_dir: Path, keep: Mapping[str, object]) -> list[str]:
    """Remove releases on the appliance whose digests are not in `keep`; the digests that went.

    Those that would be built from the present sources stay: they were collected for nodes to come.
    """
    gone = []
    for index in sorted(releases_dir.glob("*.json")):
        told = json.loads(index.read_bytes())
        if told["sha256"] not in keep and index.stem != _inputs(told["python"], told["arch"]):
            index.unlink()
            (releases_dir / f"{told['sha256']}.tar.gz").unlink(missing_ok=True)
            gone.append(told["sha256"])
    for left in releases_dir.glob(".build-*"):
        if time.time() - left.stat().st_mtime > BUILD_S:  # a younger one may just be built
            shutil.rmtree(left, ignore_errors=True)
    return gone

"""The import law: which package may import which, and who may touch a heavy library."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agents", "provisioning", "appliance", "dashboard")

#: Each package, and those of ours that it may import.
LAW = {
    "agents": set(),
    "provisioning": {"agents.protocol"},
    "appliance": {"agents.protocol", "provisioning"},
    "dashboard": {"agents.protocol", "provisioning", "appliance"},
}
#: `asgi.py`, `urls.py` and `settings.py` wire everything together and may look up.
WIRING = {"appliance/asgi.py", "appliance/urls.py", "appliance/settings.py"}
#: Who may import what is heavy, or decides for all. A prefix that ends in / stands for a folder.
IMPORTERS = {
    "django": ("appliance/", "dashboard/", "manage.py"),
    "paramiko": ("provisioning/ssh.py",),
    "ctranslate2": ("agents/engines/ctranslate2.py", "appliance/catalog/"),
    "psutil": ("agents/sensors.py", "provisioning/local.py", "provisioning/processes.py"),
    "huey": ("appliance/settings.py", "appliance/tasks.py", "appliance/management/commands/worker.py"),
    "daphne": ("appliance/management/commands/control.py",),
    "ninja": ("appliance/api/",),
    "pydantic": ("appliance/api/",),
    "channels": ("dashboard/", "appliance/asgi.py"),
}
NO_DJANGO = (
    "appliance/policies/",
    "appliance/gateway/",
    "appliance/catalog/",
    "appliance/load_test/",
    "appliance/simulate/",
)
PURE = (
    "appliance/policies/",
    "appliance/simulate/plant.py",
    "appliance/simulate/policies/",
    "agents/protocol.py",
    "agents/config.py",
    "agents/errors.py",
    "agents/batching.py",
    "agents/admission.py",
    "agents/lifecycle.py",
    "agents/load.py",
)
#: It is shipped alone, and runs where nothing is installed.
STEWARD = "provisioning/steward/"
MAX_LINES = 400


def sources() -> list[str]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts)


@functools.cache  # a file is read for many tests
def imported(source: str) -> tuple[str, ...]:
    """Every module that a file names in an import, relative ones spelt out."""
    return tuple(find_imports(source))


def find_imports(source: str) -> Iterator[str]:
    folder = Path(source).parent.parts
    for node in ast.walk(ast.parse((ROOT / source).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join((*folder[: len(folder) - node.level + 1], node.module or ""))
                if node.level
                else node.module
            )
            yield base.rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def under(name: str, roots: set[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


@pytest.mark.parametrize("source", sources())
def test_imports_point_one_way(source):
    """A file imports only its own package and those below it."""
    own = source.split("/", 1)[0]
    if source in WIRING:
        return
    others = {name for name in imported(source) if name.split(".")[0] in PACKAGES and not under(name, {own})}
    # `from agents import protocol` names agents first; what counts is what is taken from it.
    wrong = {name for name in others if not under(name, LAW[own]) and f"{name}.protocol" not in others}
    assert not wrong, f"{source} may import {sorted(LAW[own]) or 'no other package of ours'}"


@pytest.mark.parametrize("library", IMPORTERS)
def test_heavy_libraries_have_few_importers(library):
    """Only the named files import the library."""
    importers = {
        source for source in sources() if library in {name.split(".")[0] for name in imported(source)}
    }
    assert {one for one in importers if not one.startswith(IMPORTERS[library])} == set()


@pytest.mark.parametrize("source", [source for source in sources() if source.startswith(NO_DJANGO)])
def test_data_plane_has_no_django(source):
    """The gateway, the policies and the catalog never name Django."""
    assert not {name for name in imported(source) if name.split(".")[0] == "django"}


def test_gateway_runs_with_django_absent():
    """The whole gateway imports where Django cannot be imported at all."""
    modules = [
        source.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for source in sources()
        if source.startswith(("appliance/gateway/", "appliance/policies/")) and "__main__" not in source
    ]
    program = (
        "import sys, importlib; sys.modules['django'] = None\n"
        "for name in sys.argv[1:]: importlib.import_module(name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *modules], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("source", [source for source in sources() if source.startswith(PURE)])
def test_pure_files_use_the_standard_library_alone(source):
    """Decisions and protocol need nothing that must be installed, and read no clock."""
    names = {name.split(".")[0] for name in imported(source)}
    assert names <= sys.stdlib_module_names | set(PACKAGES)
    assert not names & {"time", "random", "socket", "os", "asyncio", "threading"}


@pytest.mark.parametrize("source", [source for source in sources() if source.startswith(STEWARD)])
def test_the_steward_needs_nothing_but_itself(source):
    """Standard library and its own files alone."""
    names = {name for name in imported(source) if not under(name, {"provisioning.steward"})}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize("source", sources())
def test_files_stay_readable(source):
    """No file is longer than a person reads in one go."""
    if "/migrations/" not in source:
        assert len((ROOT / source).read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_have_a_readme(package):
    """Each package says what it owns."""
    assert (ROOT / package / "README.md").is_file()

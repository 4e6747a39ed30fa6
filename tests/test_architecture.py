"""The import law: which package may import which, and who may touch a heavy library."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
    "agents/shape.py",
)
CLOCKS_AND_SOCKETS = {"time", "random", "socket", "os", "asyncio", "threading"}
#: It is shipped alone, and runs where nothing is installed.
STEWARD = "provisioning/steward/"
MAX_LINES = 400


@functools.cache
def sources() -> list[str]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts)


def below(*prefixes: str) -> list[str]:
    return [source for source in sources() if source.startswith(prefixes)]


@functools.cache  # a file is read for many rules
def imported(source: str) -> tuple[str, ...]:
    """Every module that a file names in an import, relative ones spelt out."""
    return tuple(find_imports(source))


def find_imports(source: str) -> Iterator[str]:
    folder = Path(source).parent.parts
    for node in statements(ast.parse((ROOT / source).read_text())):
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


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All below this one, functions' own too. Expressions hold none, and are most of a file."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from statements(child)


def roots(source: str) -> set[str]:
    """The packages, ours and others', that a file imports from."""
    return {name.split(".")[0] for name in imported(source)}


def under(name: str, roots: set[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


# One test a rule, not one a file and rule: a thousand tests would cost more than what they look at.


def test_imports_point_one_way():
    """A file imports only its own package and those below it."""
    wrong = {}
    for source in set(sources()) - WIRING:
        own = source.split("/", 1)[0]
        others = {one for one in imported(source) if one.split(".")[0] in PACKAGES and not under(one, {own})}
        # `from agents import protocol` names agents first; what counts is what is taken from it.
        taken = {one for one in others if f"{one}.protocol" not in others}
        if not all(under(one, LAW[own]) for one in taken):
            wrong[source] = f"may import {sorted(LAW[own]) or 'no other package of ours'}"
    assert wrong == {}


def test_heavy_libraries_have_few_importers():
    """Only the named files import the library."""
    wrong = {
        source: library
        for library, allowed in IMPORTERS.items()
        for source in sources()
        if library in roots(source) and not source.startswith(allowed)
    }
    assert wrong == {}


def test_data_plane_has_no_django():
    """The gateway, the policies and the catalog never name Django."""
    assert [source for source in below(*NO_DJANGO) if "django" in roots(source)] == []


def test_gateway_runs_with_django_absent():
    """The whole gateway imports where Django cannot be imported at all."""
    modules = [
        source.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for source in below("appliance/gateway/", "appliance/policies/")
        if "__main__" not in source
    ]
    program = (
        "import sys, importlib; sys.modules['django'] = None\n"
        "for name in sys.argv[1:]: importlib.import_module(name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *modules], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_pure_files_use_the_standard_library_alone():
    """Decisions and protocol need nothing that must be installed, and read no clock."""
    accepted = (sys.stdlib_module_names | set(PACKAGES)) - CLOCKS_AND_SOCKETS
    wrong = {source: roots(source) - accepted for source in below(*PURE)}
    assert {source: names for source, names in wrong.items() if names} == {}


def test_the_steward_needs_nothing_but_itself():
    """Standard library and its own files alone."""
    wrong = {
        source: name
        for source in below(STEWARD)
        for name in imported(source)
        if not under(name, {"provisioning.steward"}) and name.split(".")[0] not in sys.stdlib_module_names
    }
    assert wrong == {}


def test_files_stay_readable():
    """No file is longer than a person reads in one go."""
    lines = {one: (ROOT / one).read_bytes().count(b"\n") for one in sources() if "/migrations/" not in one}
    assert {source: count for source, count in lines.items() if count > MAX_LINES} == {}


def test_each_rule_finds_files():
    """No prefix above has lost what it stood for."""
    named = {*NO_DJANGO, *PURE, STEWARD, *WIRING, *(one for files in IMPORTERS.values() for one in files)}
    assert {prefix for prefix in named - {"manage.py"} if not below(prefix)} == set()


def test_packages_have_a_readme():
    """Each package says what it owns."""
    assert [package for package in PACKAGES if not (ROOT / package / "README.md").is_file()] == []

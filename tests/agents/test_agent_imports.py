"""What ships to every node stays light, and its pure part needs nothing but Python."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "agents").rglob("*.py"))
PURE = [
    "protocol", "config", "errors", "lifecycle", "admission", "batching", "service_line", "turn", "load",
    "manifest", "shape",
]  # fmt: skip
ALLOWED = {
    "ctranslate2",
    "tokenizers",
    "numpy",
    "psutil",
    "uvicorn",
    "uvloop",
    "httptools",
    "msgspec",
    "agents",
}


def roots(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add((node.module or "").split(".")[0])
    return found


def test_nothing_beyond_the_agents_dependencies():
    """No file names a package that is not on a node, neither Django nor another of ours."""
    wrong = {path.name: roots(path) - sys.stdlib_module_names - ALLOWED for path in FILES}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_pure_files_are_standard_library_only():
    """Pure modules import with nothing installed."""
    modules = ", ".join(f"agents.{name}" for name in PURE)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {modules}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=30)


def test_running_agent_loads_nothing_heavy():
    """What `python -m agents` imports, all told, holds no Django, no cryptography, no SSH."""
    code = (
        "import sys; import agents.__main__, agents.process, agents.engines.ctranslate2;"
        "heavy = {'django', 'appliance', 'provisioning', 'dashboard', 'paramiko', 'cryptography', 'torch'};"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60)
    assert done.stdout == b"[]\n"

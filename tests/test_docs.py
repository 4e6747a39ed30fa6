"""The docs name everything that people hold on to: commands, settings, metrics, policies."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
INNER = {"control", "worker"}  # started by `up`, not by people


def commands():
    folder = ROOT / "appliance" / "management" / "commands"
    return sorted(path.stem for path in folder.glob("*.py") if path.stem not in INNER | {"__init__"})


@pytest.mark.parametrize("name", commands())
def test_command_is_in_the_readme(name):
    """Each command stands in the table."""
    assert re.search(rf"`{name}\b", README)


@pytest.mark.parametrize("name", commands())
def test_command_shows_an_example(name):
    """Each command's help holds an example of its use."""
    source = (ROOT / "appliance" / "management" / "commands" / f"{name}.py").read_text()
    assert f"manage.py {name}" in source.split("Example:")[1]


def test_settings_are_in_the_readme():
    """Each variable that the environment reads stands in the table."""
    source = (ROOT / "appliance" / "environment.py").read_text()
    names = set(re.findall(r'"([A-Z]+_[A-Z_]+)"', source)) - {"DATABASE_URL", "REDIS_URL"}
    assert names
    assert {name for name in names if f"`{name}`" not in README} == set()


def test_metrics_are_in_the_gateways_readme():
    """Each metric of the gateway is described."""
    sources = "".join(path.read_text() for path in (ROOT / "appliance" / "gateway").glob("*.py"))
    text = (ROOT / "appliance" / "gateway" / "README.md").read_text()
    names = set(re.findall(r'"(millwright_[a-z_]+)"', sources))
    assert len(names) >= 10
    assert {name for name in names if name not in text} == set()


def test_policies_are_in_their_readme():
    """Each balancing policy is described."""
    text = (ROOT / "appliance" / "policies" / "README.md").read_text()
    policies = (ROOT / "appliance" / "policies" / "balancing").glob("*.py")
    names = [path.stem for path in policies if path.stem not in ("__init__", "registry", "base", "targets")]
    assert len(names) >= 2
    assert [name for name in names if name not in text] == []


def test_links_in_the_docs_lead_somewhere():
    """Relative links and pictures of every README exist."""
    pages = [path for path in ROOT.glob("**/*.md") if not is_hidden(path.relative_to(ROOT).parts)]
    links = [
        (path, target) for path in pages for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text())
    ]
    assert links
    assert [(str(path), target) for path, target in links if not (path.parent / target).exists()] == []


def is_hidden(parts):
    return any(part.startswith(".") or part == "var" for part in parts)

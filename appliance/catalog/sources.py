"""How an operator names the place a model comes from."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.catalog.errors import BadSource

ACCEPTED: Final = "accepted are pypi:PACKAGE, pypi:PACKAGE==VERSION and the path of a directory"
_PYPI: Final = re.compile(
    r"(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,100}[A-Za-z0-9])?)(?:==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63}))?"
)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@dataclass(frozen=True, slots=True)
class PypiSource:
    """A wheel from the package index that pip is configured for. `package` is normalised."""

    package: str
    version: str | None = None

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return self.package if self.version is None else f"{self.package}=={self.version}"

    def __str__(self) -> str:
        return f"pypi:{self.requirement}"


@dataclass(frozen=True, slots=True)
class DirectorySource:
    """A directory on this machine; `path` is absolute."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Source = PypiSource | DirectorySource


def parse_source(text: str) -> Source:
    """Understand a source; `str()` of the result is its canonical spelling. Nothing is read.

    A directory is given by its path, best an absolute one; `~` stands for the home directory.
    Raises BadSource (a ValueError) naming the text and what is accepted.
    """
    given = text.strip()
    if not given or len(given) > 1000 or not given.isprintable():
        raise BadSource(f"source {given[:100]!r} is not understood: {ACCEPTED}")
    if given.startswith("pypi:"):
        match = _PYPI.fullmatch(given.removeprefix("pypi:"))
        if match is None:
            raise BadSource(f"source {given!r} names no package: {ACCEPTED}")
        package = re.sub(r"[-_.]+", "-", match["package"]).lower()
        return PypiSource(package, match["version"])
    scheme = _SCHEME.match(given)
    if scheme is not None:
        raise BadSource(f"source {given!r}: {scheme[1]!r} is no source of models: {ACCEPTED}")
    try:
        return DirectorySource(Path(given).expanduser().absolute())
    except RuntimeError as error:  # ~nobody-by-that-name
        raise BadSource(f"source {given!r} is not understood: {error}") from error

"""What can go wrong between a source and a model in the store."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path


class CatalogError(Exception):
    """An import or a look into the store failed. `message` says why, `hint` what to do; one line each.

    `permanent` says that the same import would fail again.
    """

    def __init__(self, message: str, hint: str = "", *, permanent: bool = True) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.permanent = permanent


class BadSource(CatalogError, ValueError):
    """A source that is not understood."""


class BadModel(CatalogError):
    """A model that cannot be converted, or whose files are not what they should be."""


@contextlib.contextmanager
def disk_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line that names the path."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever reads the progress is gone: no matter of the disk
    except OSError as error:
        named = error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CatalogError(
                f"{doing}: no space left at {named}",
                "free some space there and import again",
                permanent=False,
            ) from error
        raise CatalogError(
            f"{doing}: {error.strerror or error}: {named}",
            "check the path and its permissions",
            permanent=False,
        ) from error

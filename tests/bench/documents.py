"""Where the figures of a run are kept, as JSON."""

import datetime as dt
import json
import os
from pathlib import Path


def write_document(document: dict[str, object], prefix: str = "") -> Path:
    """Write a run's figures into `$APPLIANCE_HOME/bench/` (default `./var`); returns the file."""
    directory = Path(os.environ.get("APPLIANCE_HOME") or "var").expanduser().absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory /= "bench"
    directory.mkdir(exist_ok=True)
    path = directory / f"{prefix}{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path

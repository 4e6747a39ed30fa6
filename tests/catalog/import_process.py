"""Imports as the worker runs them, and wheels for them to find."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def write_wheel(folder, files, *, name="tiny_model", version="1.2", change_record=None, plain=()):
    """A wheel with a RECORD; `files` maps paths to bytes or files, `plain` has (ZipInfo, bytes)."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    contents = {
        **{
            file: content if isinstance(content, bytes) else content.read_bytes()
            for file, content in files.items()
        },
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{file},sha256={_record_hash(content)},{len(content)}" for file, content in contents.items()]
    lines += [f"{entry.filename},sha256={_record_hash(content)},{len(content)}" for entry, content in plain]
    record = "\n".join([*lines, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in contents.items():
            archive.writestr(file, content)
        for entry, content in plain:
            archive.writestr(entry, content)
        archive.writestr(f"{info}/RECORD", change_record(record) if change_record else record)
    return path


def _record_hash(content):
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def model_files(folder, inside="tiny_model/model"):
    """The files of a model directory by their path in a wheel, with some code beside them."""
    files = {f"{inside}/{path.relative_to(folder)}": path for path in folder.rglob("*") if path.is_file()}
    return {"tiny_model/__init__.py": b"raise SystemExit('never run')\n", **files}


def pip_environment(wheels):
    """Variables under which pip sees nothing but the wheels in a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**kept, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}


def start_import(home, source, *more, environment=None):
    """The import as the worker runs it: a child process with pipes."""
    command = [sys.executable, "-m", "appliance.catalog", "import", "--home", str(home), "--name", "m"]
    return subprocess.Popen(
        [*command, "--from", str(source), *more],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run_import(home, source, *more, environment=None):
    """Run an import; return its exit code and its lines."""
    with start_import(home, source, *more, environment=environment) as child:
        output, errors = child.communicate(timeout=120)
    assert errors == ""
    return child.returncode, [json.loads(line) for line in output.splitlines()]

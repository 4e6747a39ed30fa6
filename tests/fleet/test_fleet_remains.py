"""Nothing stays behind: not of a closed fleet, nor of a run that was killed, nor of a half-made tree."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fleet_network
import fleet_trees
import pytest
from fleet_groups import wait_until
from fleet_network import Network
from hosts import Fleet

pytestmark = pytest.mark.slow
RECIPE = """
test "$(ls -d "$(dirname "$2")"/*.building 2>/dev/null | wc -l)" = 0  # one builder at a time, and no remains
mkdir "$2"
mount -t tmpfs tmpfs "$2"
umount "$2"
echo "$1" >"$2/release"
echo built >>"$(dirname "$2")/count"
"""


@pytest.fixture
def recipe(fleet, tmp_path, monkeypatch):
    """`recipe(text)`: trees are made so, in a cache of the test's own (which is returned)."""

    def use(text):
        path = tmp_path / "recipe.sh"
        path.write_text(f"set -eu\n{text}")
        monkeypatch.setattr(fleet_trees, "RECIPE", path)
        monkeypatch.setenv("FLEET_MIRROR", "http://mirror.invalid/debian")
        return tmp_path / "cache"

    return use


def test_closed_fleet_leaves_nothing(fleet):
    """Two fleets live side by side; one that closes takes its own with it and nothing of the other's."""
    with Fleet() as other:
        assert other.network.number != fleet.network.number
        other.start("alpha", wait=False)
        other.start("beta").spoil_line(delay_ms=5, loss_percent=1, rate_mbit=50)
        held = other.network.leftovers()
        assert {line.split()[0] for line in held} == {"process", "control", "device", "loop", "folder"}
    assert other.network.leftovers() == []
    assert not (fleet_network.RUN / f"{other.network.number}.lock").exists()
    assert f"device {fleet.network.bridge}" in fleet.network.leftovers()


def test_killed_run(fleet, tmp_path, monkeypatch):
    """When a test run is killed its hosts die with it, and the next run removes the rest."""
    monkeypatch.setattr(fleet_network, "RUN", tmp_path)
    doomed = [sys.executable, str(Path(__file__).with_name("doomed_fleet.py")), str(tmp_path)]
    try:
        with subprocess.Popen(doomed, stdout=subprocess.PIPE, text=True) as run:
            said = run.stdout.readline().split()
            assert fleet_network.remove_leftovers() == []  # it lives
            run.kill()
        number, folder = int(said[0]), Path(said[1])
        left = Network(number, folder, None)
        wait_until(lambda: not left.group.pids(), 20.0, "the orphaned hosts to end")
        assert f"device {left.bridge}" in left.leftovers()
        assert fleet_network.remove_leftovers() == [number]
        assert left.leftovers() == []
    finally:
        fleet_network.remove_leftovers()  # of a run that did not die as it should
    assert f"device {fleet.network.bridge}" in fleet.network.leftovers()


def test_tree_is_made_once(recipe):
    """Those who ask at the same time get one tree, made once; what was left half-made is removed."""
    cache = recipe(RECIPE)
    half = cache / "trees" / "bookworm-0123456789ab.building"
    half.mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        places = set(pool.map(lambda _: fleet_trees.tree("bookworm", cache), range(4)))
    assert len(places) == 1
    assert (places.pop() / "release").read_text() == "bookworm\n"
    assert (cache / "trees" / "count").read_text() == "built\n"
    assert not half.exists()


def test_tree_that_fails(recipe):
    """A recipe that fails says why, and what it has made is not taken for a tree."""
    cache = recipe('mkdir "$2"; echo no such release; exit 1')
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no such release"):
            fleet_trees.tree("bookworm", cache)
    cache = recipe(RECIPE)
    assert (fleet_trees.tree("bookworm", cache) / "release").exists()

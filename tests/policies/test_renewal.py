"""What comes next for a certificate that is due, and what the routes go on listing."""

import pytest

from appliance.policies.renewal import LOAD_S, MAX_LISTED, WRITE_AGAIN_S, UnderWay, extend, next_step
from appliance.policies.snapshot import Generation

NOW = 1_800_000_000.0
LISTED = Generation("e", 7)


def under_way(**changes):
    return UnderWay(**{"sha256": "new", "generation": LISTED, **changes})


@pytest.mark.parametrize(
    ("listed", "begun", "installed", "served", "step"),
    [
        pytest.param([], None, "", False, "issue", id="never had one"),
        pytest.param(["old"], None, "old", False, "issue", id="due"),
        pytest.param(["old"], None, "", False, "issue", id="not known what is there"),
        pytest.param(["old", "lost"], None, "lost", True, "issue", id="another's renewal"),
        pytest.param(["a", "b", "c", "d"], None, "c", True, "issue", id="full, known what is there"),
        pytest.param(["a", "b", "c", "d"], None, "", True, "wait", id="full, not known"),
        pytest.param(["other"], under_way(), "other", True, "issue", id="installed anew meanwhile"),
        pytest.param(["old", "new"], under_way(), "old", False, "wait", id="not served yet"),
        pytest.param(["old", "new"], under_way(), "old", True, "write", id="served"),
        pytest.param(["old", "new"], under_way(), "", True, "write", id="served, nothing there"),
        pytest.param(["old", "new"], under_way(written_at=NOW - 1), "old", True, "wait", id="being written"),
        pytest.param(
            ["old", "new"], under_way(written_at=NOW - WRITE_AGAIN_S), "old", True, "write", id="failed"
        ),
        pytest.param(
            ["old", "new"], under_way(written_at=NOW + 5), "old", True, "write", id="clock put back"
        ),
        pytest.param(["old", "new"], under_way(seen_at=NOW - 1), "new", True, "wait", id="being loaded"),
        pytest.param(["old", "new"], under_way(seen_at=NOW - LOAD_S), "new", True, "confirm", id="loaded"),
    ],
)
def test_next_step(listed, begun, installed, served, step):
    """Listed before it is written, written before it is the only one."""
    assert next_step(listed, begun, installed, served=served, now=NOW) == step


def test_seen_without_a_gap():
    """The time to load counts from when the new files are seen, and anew where others were seen between."""
    begun = under_way()
    begun.see("old", NOW)
    assert begun.seen_at is None
    begun.see("new", NOW + 1)
    begun.see("new", NOW + 5)
    assert begun.seen_at == NOW + 1
    begun.see("", NOW + 6)
    begun.see("new", NOW + 7)
    assert begun.seen_at == NOW + 7
    begun.see("new", NOW - 100)
    assert begun.seen_at == NOW - 100


@pytest.mark.parametrize("installed", ["a", "b", "c", "d", ""])
def test_list_is_bounded_and_keeps_what_may_be_shown(installed):
    """A full list loses one that is neither the first nor the one on the node."""
    listed = extend(["a", "b", "c", "d"], "e", installed)
    assert len(listed) == MAX_LISTED
    assert listed[0] == "a"
    assert listed[-1] == "e"
    assert installed in {*listed, ""}


def test_list_that_is_not_full_keeps_all():
    """In the order in which they were issued."""
    assert extend(["a", "b"], "c", "a") == ["a", "b", "c"]
    assert extend([], "c", "") == ["c"]

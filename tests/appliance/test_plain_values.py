"""Dataclasses as JSON types and back, whole and as changes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from appliance.plain_values import apply_changes, changes_between, from_plain, to_plain


@dataclass(frozen=True)
class Part:
    """Within another."""

    name: str
    size: float = 1.0


@dataclass(frozen=True)
class Whole:
    """With every sort of field that facts have."""

    count: int
    parts: tuple[Part, ...] = ()
    best: Part | None = None
    pair: tuple[int, str] = (0, "")
    sizes: Mapping[str, Part] = field(default_factory=dict)


FIRST = Whole(1, (Part("a"), Part("b", 2.5)), Part("c"), (3, "x"), {"d": Part("d", 4.0)})
OTHERS = [
    FIRST,
    replace(FIRST, count=2),
    replace(FIRST, parts=(Part("a"), Part("b", 3.5))),
    replace(FIRST, parts=(Part("a"),)),
    replace(FIRST, parts=()),
    replace(FIRST, best=None),
    replace(FIRST, best=Part("c", 7.0), sizes={}),
    Whole(9),
]


def through_json(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("value", OTHERS)
def test_whole_and_back(value):
    """What was written as JSON is read as the same values."""
    assert from_plain(Whole, through_json(to_plain(value))) == value


@pytest.mark.parametrize("old", OTHERS)
@pytest.mark.parametrize("new", OTHERS)
def test_changes_and_back(old, new):
    """From the old values and the changes come the new ones; equal values have no changes."""
    changes = through_json(changes_between(old, new))
    assert apply_changes(old, changes) == new
    assert (changes == {}) == (old == new)


def test_only_what_changed_is_told():
    """In a tuple of as many parts only the field that is another stands in the changes."""
    new = replace(FIRST, parts=(Part("a"), Part("b", 3.5)))
    assert changes_between(FIRST, new) == {"parts": {"1": {"size": 3.5}}}


def test_a_number_of_another_type_is_a_change():
    """1 and 1.0 are told apart, as texts made of them differ."""
    assert changes_between(Part("a", 1.0), Part("a", 1)) == {"size": 1}


def test_other_versions_are_understood():
    """Fields that are not known are left out, missing ones have their default."""
    assert from_plain(Whole, {"count": 1, "colour": "red", "best": {"name": "x"}}) == Whole(1, (), Part("x"))
    assert apply_changes(Whole(1), {"colour": "red", "count": 2}) == Whole(2)


@pytest.mark.parametrize("plain", [{}, {"count": 1, "parts": 5}, {"count": 1, "best": {}}])
def test_nonsense_is_refused(plain):
    """A missing field without a default, and a number for a list, raise."""
    with pytest.raises((TypeError, ValueError, AttributeError)):
        from_plain(Whole, plain)

"""Rows read again and again: made anew where they changed, and only there."""

import pytest

from appliance.kept_rows import KeptRows
from appliance.models import Node

pytestmark = pytest.mark.django_db


@pytest.fixture
def kept():
    """Three nodes; what is made of one is a new list with its name and labels."""
    for name in ("a", "b", "c"):
        Node.objects.create(name=name, address=f"{name}.test")
    columns = ["name", "labels"]
    return KeptRows(Node.objects.order_by("name"), columns, lambda row: [row.name, dict(row.labels)])


def test_what_is_unchanged_stays_the_same_object(kept):
    """A change makes one row anew; the others are the very objects of before."""
    before = kept.read()
    Node.objects.filter(name="b").update(labels={"zone": "1"})
    after = kept.read()
    assert [one is other for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert after[1] == ["b", {"zone": "1"}]


def test_a_column_that_is_not_compared_is_no_change(kept):
    """Only the columns that were named count."""
    before = kept.read()
    Node.objects.update(region="north")
    assert all(one is other for one, other in zip(before, kept.read(), strict=True))


def test_rows_come_and_go_in_order(kept):
    """What is gone is left out, what is new comes in its place."""
    kept.read()
    Node.objects.filter(name="a").delete()
    Node.objects.create(name="bb", address="bb.test")
    assert [name for name, _ in kept.read()] == ["b", "bb", "c"]


def test_what_is_forgotten_is_made_anew(kept):
    """Also where its row is as it was."""
    first = kept.read()[0]
    kept.forget(Node.objects.get(name="a").pk)
    again = kept.read()[0]
    assert again == first
    assert again is not first


def test_nothing_is_read_twice(kept, django_assert_num_queries):
    """Unchanged rows take one query, changed ones one more."""
    kept.read()
    with django_assert_num_queries(1):
        kept.read()
    Node.objects.update(labels={"zone": "2"})
    with django_assert_num_queries(2):
        kept.read()

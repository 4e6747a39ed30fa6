"""JSON columns of rows that somebody else wrote: read safely, and never written over unasked."""

import pytest
from django.db import connection

from appliance.models import Agent, Node
from appliance.models.json_columns import Damaged

SHAPE = '"workers": 2, "threads": 1, "batch_size": 8'


def read(model, column, text):
    """As a row is read from the database."""
    return model._meta.get_field(column).from_db_value(text, None, connection)


@pytest.mark.parametrize(
    ("model", "column", "text"),
    [
        *((Node, "labels", text) for text in ("[1]", '"eu"', "null", "{half", '{"zone": ["a"]}')),
        *((Node, "hardware", text) for text in ("7", "{", '{"cores_physical": "4"}', '{"flags": 7}')),
        *((Node, "hardware", text) for text in ('{"ram_bytes": [1]}', '{"ram_bytes": NaN}')),
        *((Node, "problems", text) for text in ("{}", '["disk_full"]')),
        *((Agent, "profile", text) for text in ("[]", "{}", "{", '{"workers": "two", "batch_size": 8}')),
        *((Agent, "profile", text) for text in (f'{{{SHAPE}, "fixed_s": "1"}}', f"{{{SHAPE[:-1]}0}}")),
        *((Agent, "certificates", text) for text in ("5", "[5]", "null", "ab")),
    ],
)
def test_damage_counts_as_nothing(model, column, text):
    """What is not as expected is empty, or the smallest profile, and says so."""
    found = read(model, column, text)
    assert isinstance(found, Damaged)
    assert found in ({}, [], {"workers": 1, "threads": 1, "batch_size": 1})


@pytest.mark.parametrize(
    ("model", "column", "text"),
    [
        (Node, "labels", '{"zone": "a", "rack": 7}'), (Node, "labels", "{}"), (Node, "hardware", "{}"),
        (Node, "hardware", '{"cores_physical": null, "ram_bytes": 1.0, "flags": ["avx2"]}'),
        (Agent, "profile", f"{{{SHAPE}}}"), (Agent, "profile", f'{{{SHAPE}, "capacity_rps": null}}'),
        (Agent, "certificates", '["ab"]'), (Agent, "certificates", "[]"),
    ],
)  # fmt: skip
def test_what_is_whole_is_read_as_it_is(model, column, text):
    """Only what cannot be used is damaged."""
    assert not isinstance(read(model, column, text), Damaged)


def test_damage_is_saved_as_it_was():
    """A row that is saved whole keeps what stood there."""
    field = Node._meta.get_field("labels")
    assert field.get_prep_value(read(Node, "labels", "[1]")) == [1]


@pytest.mark.django_db
def test_a_part_of_a_column_is_no_damage():
    """A query may ask for one name of a mapping."""
    Node.objects.create(name="box", address="box", hardware={"cores_physical": 4, "flags": ["avx2"]})
    assert Node.objects.values_list("hardware__cores_physical", "hardware__flags").get() == (4, ["avx2"])

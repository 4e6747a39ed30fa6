"""Decisions are kept within bounds, also those on deployments that are gone."""

import datetime as dt

import pytest

from appliance.control.record import prune_all_decisions, prune_decisions
from appliance.models import Decision

pytestmark = pytest.mark.django_db


def decide(name, count):
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for second in range(count):
        Decision.objects.create(at=at + dt.timedelta(seconds=second), deployment=name, before=0, after=1)


def test_the_newest_of_each_and_of_all_are_kept():
    """Of each deployment so many; of all together the newest, whoever they are on."""
    decide("gone", 6)
    decide("mini", 6)
    prune_decisions("mini", keep=4)
    assert Decision.objects.filter(deployment="mini").count() == 4
    prune_all_decisions(keep=8)
    assert Decision.objects.filter(deployment="gone").count() == 2
    assert Decision.objects.filter(deployment="mini").count() == 4

"""What a gateway expects of an agent before it has answered anything."""

import pytest

from appliance.policies.service_time import NEWCOMER, ServiceTime


def test_a_newcomer_whose_speed_is_known_is_expected_to_have_it():
    """What was measured on its kind of box counts, not what its peers take."""
    service = ServiceTime()
    service.expect(0.002, 0.0001)
    service.assume(1.0)
    assert (service.fixed_s, service.per_work_s) == (0.002, 0.0001)


def test_a_newcomer_of_unknown_speed_is_a_little_slower_than_its_peers():
    """Both parts 0 say nothing."""
    service = ServiceTime()
    service.expect(0.0, 0.0)
    service.assume(0.04)
    assert service.fixed_s == pytest.approx(NEWCOMER * 0.04)


def test_answers_count_more_than_what_was_measured():
    """Once it has answered, its own answers are what is known; a new measurement changes nothing."""
    service = ServiceTime()
    service.expect(0.002, 0.0001)
    for number in range(50):
        service.answered(0.05, 20.0, float(number))
    service.expect(0.002, 0.0001)
    assert service.fixed_s + 20 * service.per_work_s == pytest.approx(0.05, rel=0.05)

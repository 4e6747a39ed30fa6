"""Bounds by the clock: what is read, when windows are under way, and what they do to decisions."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.policies.scaling import GatewayLoad, Load, ScalingPolicy, decide
from appliance.policies.schedules import BadSchedule, Schedule, bounds_at, is_within, parse_schedule

WORK = "mon-fri 08:00-18:00 Europe/Berlin min=3"


def moment(text, zone="Europe/Berlin", fold=0):
    """Unix seconds of a local time such as `2026-03-27 08:00`."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@pytest.mark.parametrize(
    ("given_text", "text"),
    [
        (WORK, WORK),
        ("MON,wed,tue 00:00-24:00 min=1 max=2", "mon-wed 00:00-24:00 UTC min=1 max=2"),
        ("fri-mon 22:00-06:00 Asia/Tokyo max=1", "mon,fri-sun 22:00-06:00 Asia/Tokyo min=0 max=1"),
        ("daily 12:00-13:00 UTC min=2", "daily 12:00-13:00 UTC min=2"),
        ("mon-sun 12:00-13:00 UTC min=2", "daily 12:00-13:00 UTC min=2"),
        ("sat,sun 09:00-10:30 min=0 max=4 UTC", "sat,sun 09:00-10:30 UTC min=0 max=4"),
    ],
)
def test_schedules_are_read_and_said(given_text, text):
    """One form of each, which reads as itself."""
    assert parse_schedule(given_text).text == text
    assert parse_schedule(text) == parse_schedule(given_text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "DAYS HH:MM-HH:MM"),
        ("x" * 300, "DAYS HH:MM-HH:MM"),
        ("mo-fr 08:00-18:00 UTC min=1", "days 'mo-fr' are not accepted: daily, mon-fri or sat,sun are"),
        ("mon- 08:00-18:00 UTC min=1", "days 'mon-'"),
        ("mon 8:00-18:00 UTC min=1", "times '8:00-18:00' are not accepted"),
        ("mon 08:00-25:00 UTC min=1", "times '08:00-25:00'"),
        ("mon 24:00-08:00 UTC min=1", "times '24:00-08:00'"),
        ("mon 08:60-09:00 UTC min=1", "times '08:60-09:00'"),
        ("mon 08:00-08:00 UTC min=1", "times '08:00-08:00'"),
        ("mon 08:00-18:00 Mars/Base min=1", "time zone 'Mars/Base' is not known"),
        ("mon 08:00-18:00 ../etc/passwd min=1", "time zone '../etc/passwd' is not known"),
        ("mon 08:00-18:00 Europe min=1", "time zone 'Europe' is not known"),
        ("mon 08:00-18:00 UTC CET min=1", "'CET' is one word too many"),
        ("mon 08:00-18:00 UTC", "neither min nor max"),
        ("mon 08:00-18:00 UTC min=-1", "'min=-1' is not accepted"),
        ("mon 08:00-18:00 UTC min=1001", "'min=1001' is not accepted"),
        ("mon 08:00-18:00 UTC min=1 min=2", "'min=2' is not accepted"),
        ("mon 08:00-18:00 UTC min=3 max=2", "max=2 is not accepted"),
        ("mon 08:00-18:00 UTC max=0", "max=0 is not accepted"),
    ],
)
def test_refusals_are_one_line(text, said):
    """What is wrong of it, and what is accepted."""
    with pytest.raises(BadSchedule) as refused:
        parse_schedule(text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("text", "at", "within"),
    [
        (WORK, "2026-03-27 07:59:59", False),  # a Friday
        (WORK, "2026-03-27 08:00", True),
        (WORK, "2026-03-27 17:59:59", True),
        (WORK, "2026-03-27 18:00", False),
        (WORK, "2026-03-28 12:00", False),
        (WORK, "2026-07-03 08:00", True),  # the same by the clock in summer
        ("fri 22:00-06:00 Europe/Berlin min=1", "2026-03-27 21:59", False),
        ("fri 22:00-06:00 Europe/Berlin min=1", "2026-03-28 05:59", True),
        ("fri 22:00-06:00 Europe/Berlin min=1", "2026-03-28 06:00", False),
        ("fri 22:00-06:00 Europe/Berlin min=1", "2026-03-28 23:00", False),
        ("daily 00:00-24:00 Europe/Berlin min=1", "2026-03-28 23:59:59", True),
        ("mon 00:00-24:00 Europe/Berlin min=1", "2026-03-31 00:00", False),
    ],
)
def test_windows(text, at, within):
    """By the clock of the place, over midnight too."""
    assert is_within(parse_schedule(text), moment(at)) is within


def test_a_time_that_the_clock_skips():
    """On the night of 29 March 2026 02:30 is not shown: the window begins, or ends, as the clock changes."""
    begins = parse_schedule("sun 02:30-05:00 Europe/Berlin min=1")
    ends = parse_schedule("sun 01:00-02:30 Europe/Berlin min=1")
    change = moment("2026-03-29 03:00")
    assert [is_within(begins, change + after) for after in (-1, 0)] == [False, True]
    assert [is_within(ends, change + after) for after in (-1, 0)] == [True, False]
    assert is_within(begins, moment("2026-03-29 04:59:59"))
    assert not is_within(begins, moment("2026-03-29 05:00"))


def test_a_time_that_the_clock_shows_twice():
    """On 25 October 2026 a window from 02:30 begins at the first 02:30; one until then ends at the second."""
    begins = parse_schedule("sun 02:30-05:00 Europe/Berlin min=1")
    ends = parse_schedule("sun 01:00-02:30 Europe/Berlin min=1")
    first, second = moment("2026-10-25 02:30"), moment("2026-10-25 02:30", fold=1)
    assert second - first == 3600
    assert [is_within(begins, first + after) for after in (-1, 0, 3000)] == [False, True, True]
    assert [is_within(ends, second + after) for after in (-1, 0)] == [True, False]


def test_bounds_of_several():
    """The largest min and the largest max of those under way; the min already before a window begins."""
    schedules = [parse_schedule(WORK), parse_schedule("fri 12:00-14:00 Europe/Berlin min=5 max=20")]
    morning, noon = moment("2026-03-27 09:00"), moment("2026-03-27 12:00")
    before = bounds_at(schedules, 1, 4, morning)
    assert (before.least, before.most, before.least_by) == (3, 4, WORK)
    assert bounds_at(schedules, 1, 4, noon - 4).least == 3
    early = bounds_at(schedules, 1, 4, noon - 4, lead_s=5.0)
    assert (early.least, early.most) == (5, 20)
    assert early.least_by == early.most_by == schedules[1].text
    night = bounds_at(schedules, 1, 4, moment("2026-03-27 20:00"), lead_s=5.0)
    assert (night.least, night.most, night.least_by) == (1, 4, "")
    capped = bounds_at([parse_schedule("daily 00:00-24:00 max=2")], 4, 8, noon)
    assert (capped.least, capped.most) == (2, 2)


def test_less_is_allowed_only_once_it_begins():
    """A window with a smaller max does not bind before its time."""
    night = [parse_schedule("daily 22:00-06:00 UTC max=1")]
    begins = moment("2026-03-27 22:00", "UTC")
    assert bounds_at(night, 0, 4, begins - 2, lead_s=5.0).most == 4
    assert bounds_at(night, 0, 4, begins, lead_s=5.0).most == 1


def test_a_decision_says_which_schedule_raised_it():
    """Three are wanted shortly before eight, for the time they take to start; and one again after six."""
    policy = ScalingPolicy(
        min_agents=0, max_agents=4, slots=1.0, start_s=30.0, schedules=(parse_schedule(WORK),)
    )
    state, current, seen = None, 0, {}
    begins = moment("2026-03-27 08:00")
    for now in (begins - 60, begins - 31, begins, begins + 36000):
        gateway = GatewayLoad("g@0", begins - 1000, now, 0.0, 0, 0, 0, 0, 0.0)
        decision = decide(policy, Load(current, current, (gateway,)), state, now)
        state, current = decision.state, decision.replicas
        seen[now - begins] = (current, decision.reason)
    assert [count for count, _ in seen.values()][:3] == [0, 3, 3]
    assert f"0 -> 3 (min 3 by schedule {WORK})" in seen[-31][1]
    assert "schedule" not in seen[36000][1]


def test_no_gateway_and_a_schedule():
    """Where nobody reports the clock is still known."""
    policy = ScalingPolicy(min_agents=0, max_agents=4, schedules=(parse_schedule(WORK),))
    decision = decide(policy, Load(0, 0, ()), None, moment("2026-03-27 09:00"))
    assert (decision.replicas, decision.kind) == (3, "cannot_tell")


schedules = st.builds(
    Schedule,
    days=st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    start=st.integers(0, 1439),
    end=st.integers(0, 1440),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata"]),
    min_agents=st.integers(0, 5),
    max_agents=st.none() | st.integers(5, 9),
).filter(lambda one: one.start != one.end)


@given(schedules, st.floats(1.7e9, 1.9e9))
def test_any_window(schedule, now):
    """What is said reads as the same; a window is under way just when the clock there is inside it."""
    assert parse_schedule(schedule.text) == schedule
    local = dt.datetime.fromtimestamp(now, ZoneInfo(schedule.zone))
    offsets = {
        dt.datetime.fromtimestamp(now + hours * 3600, local.tzinfo).utcoffset() for hours in range(-26, 27)
    }
    if len(offsets) > 1:
        return  # the nights of changes have tests of their own
    minute, today = local.hour * 60 + local.minute, local.weekday()
    if schedule.end > schedule.start:
        inside = today in schedule.days and schedule.start <= minute < schedule.end
    else:
        inside = today in schedule.days and minute >= schedule.start
        inside = inside or ((today - 1) % 7 in schedule.days and minute < schedule.end)
    assert is_within(schedule, now) is inside


@pytest.mark.slow
@given(st.lists(schedules, max_size=4), st.floats(1.7e9, 1.9e9), st.integers(0, 5), st.integers(5, 9))
def test_bounds_never_cross(some, now, least, most):
    """Whatever is scheduled, the least is not above the most, and schedules only raise the least."""
    bounds = bounds_at(some, least, most, now, lead_s=10.0)
    assert bounds.least <= bounds.most
    assert bounds.least >= min(least, bounds.most)

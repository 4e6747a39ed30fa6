"""Ejection for errors and silence, trial, return, and the floor: stories with their own clock."""

import pytest
from fleet_builders import NOW, agent_report, gateway_report
from hypothesis import given
from hypothesis import strategies as st

from appliance.policies.fleet import AgentFacts, FleetSnapshot
from appliance.policies.health import (
    FORGET_S,
    HEALTHY,
    LONGEST_S,
    Health,
    Phase,
    choose_usable,
    eject,
    is_well,
    may_eject,
    note_answer,
    note_error,
    note_heard,
    note_silence,
    note_time,
)

OUT = eject(HEALTHY, "errors", 0.0)
SILENT = note_silence(HEALTHY, 0.4)
TRIAL = note_time(OUT, 100.0)


def fail(health: Health, count: int, event="error", answered=0, now=0.0):
    """So many errors with no answer in between; the last verdict."""
    why = ""
    for _ in range(count):
        health, why = note_error(health, event, answered, now)
    return health, why


@pytest.mark.parametrize(("event", "count"), [("error", 5), ("busy", 5), ("broken", 2)])
def test_errors_in_a_row(event, count):
    """As many as it takes, and not one less."""
    health, why = fail(HEALTHY, count - 1, event)
    assert why == ""
    health, why = fail(health, 1, event)
    assert why.endswith("in a row")


def test_who_is_well():
    """Who never failed, or has answered since."""
    failed, _ = fail(HEALTHY, 1, answered=7)
    assert [is_well(HEALTHY, 0), is_well(failed, 7), is_well(failed, 8)] == [True, False, True]
    assert not is_well(TRIAL, 8)


def test_an_answer_in_between_begins_the_row_again():
    """Four errors, an answer, four errors are no reason."""
    health, why = fail(HEALTHY, 4)
    health, why = fail(health, 4, answered=1)
    assert why == ""


def test_every_second_answer_an_error():
    """Never five in a row, but half of twenty."""
    health, count = HEALTHY, 0
    why = ""
    while not why:
        health, why = note_error(health, "error", count, count * 0.1)
        count += 1
    assert (count, why) == (11, "it answered with errors, 11 of the last 21")


def test_a_tenth_of_errors_is_no_reason():
    """However long it goes on."""
    health = HEALTHY
    for count in range(500):
        health, why = note_error(health, "error", 9 * count, count * 0.1)
        assert why == ""


def test_rare_errors_are_no_reason():
    """An error every quarter of a minute, with little traffic, is forgotten before the next."""
    health = HEALTHY
    for count in range(50):
        health, why = note_error(health, "error", count, count * 15.0)
        assert why == ""


def test_each_ejection_is_longer_up_to_a_bound():
    """It fails each trial: 0.5, 1, 2, 4, 8, 10, 10 s."""
    health, now, times = HEALTHY, 0.0, []
    for _ in range(7):
        health = eject(health, "errors", now)
        times.append(health.until - now)
        assert note_time(health, health.until - 0.01).phase is Phase.EJECTED
        now = health.until
        health = note_time(health, now)
        assert health.phase is Phase.TRIAL
        health, why = note_error(health, "error", 0, now)
        assert why == "it answered with errors on trial"
    assert times == [0.5, 1, 2, 4, 8, LONGEST_S, LONGEST_S]


def test_a_trial_is_passed_by_one_answer():
    """And its errors are forgotten with it, but not its repetitions."""
    health = note_answer(TRIAL, 101.0)
    assert (health.phase, health.why, health.in_row, health.times) == (Phase.HEALTHY, "", 0, 1)
    assert eject(health, "errors", 102.0).until == 103.0


def test_being_well_is_remembered_too():
    """Well for long enough, the next ejection is short again."""
    health = note_answer(note_time(eject(TRIAL, "errors", 0.0), 9.0), 10.0)
    assert eject(health, "errors", 10.0 + 3 * FORGET_S).until == 10.5 + 3 * FORGET_S


def test_silence_ends_when_it_is_heard():
    """No time ends it; then it is on trial, with the reason still shown."""
    assert note_time(SILENT, 1e9) is SILENT
    heard = note_heard(SILENT)
    assert (heard.phase, heard.why) == (Phase.TRIAL, "nothing heard for 0.40 s")
    assert note_answer(heard, 1.0).phase is Phase.HEALTHY


def test_to_be_heard_does_not_end_an_ejection_for_errors():
    """Who answers with errors speaks all the time."""
    assert note_heard(OUT) is OUT


def test_an_ejected_agents_late_errors_are_not_held_against_it():
    """They belong to what it had before."""
    health, why = fail(OUT, 20)
    assert (why, health.until) == ("", OUT.until)


@pytest.mark.parametrize(
    ("others", "allowed"),
    [
        ([], False),
        ([HEALTHY], True),
        ([OUT], False),
        ([HEALTHY, HEALTHY], True),
        ([HEALTHY, OUT], False),
        ([HEALTHY, HEALTHY, OUT], True),
        ([HEALTHY, OUT, OUT], False),
        ([SILENT, SILENT], False),
    ],
)
def test_at_most_half_are_ejected_for_errors(others, allowed):
    """But always one, as long as another can take its work."""
    assert may_eject(others) is allowed


@pytest.mark.parametrize(
    ("members", "usable"),
    [
        ([HEALTHY, HEALTHY, OUT], [True, True, False]),
        ([HEALTHY, OUT], [True, False]),
        ([TRIAL, OUT], [True, False]),
        ([HEALTHY, OUT, OUT], [True, True, True]),
        ([HEALTHY, SILENT, SILENT], [True, False, False]),
        ([HEALTHY, SILENT, SILENT, OUT], [True, False, False, True]),
        ([OUT], [True]),
        ([SILENT], [False]),
        ([], []),
    ],
)
def test_below_half_errors_are_ignored(members, usable):
    """Silence is not: what is sent there is answered by nobody."""
    assert choose_usable(members) == usable


@pytest.mark.slow
@given(st.lists(st.sampled_from([HEALTHY, OUT, TRIAL, SILENT])))
def test_whoever_is_heard_is_used_where_none_is_healthy(members):
    """Health never leaves a pool empty of which one agent speaks."""
    usable = choose_usable(members)
    assert any(usable) is any(not health.silent for health in members)


def test_the_loop_leaves_ejected_agents_to_the_gateways():
    """It takes one for ready: being out for some seconds is no reason to start it anew."""
    report = gateway_report(agent_report(state="ejected"))
    link = FleetSnapshot(now=NOW, epoch="e", reports=(report,)).link(
        AgentFacts("mini-1", "mini", 1, "local", 0)
    )
    assert link is not None
    assert link.state == "ready"

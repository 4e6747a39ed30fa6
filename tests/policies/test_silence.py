"""After which silence an agent gets no more work, and how often agents beat."""

import pytest

from appliance.policies.silence import LEAST_S, MOST_S, Silence, beat_interval_ms

LOOK_S = 0.04


@pytest.mark.parametrize(
    ("agents", "interval_ms"), [(0, 100), (1, 100), (100, 100), (101, 200), (1000, 1000), (2500, 2500)]
)
def test_a_gateway_hears_about_a_thousand_beats_a_second(agents, interval_ms):
    """However many agents there are, and none beats more often than one with work."""
    assert beat_interval_ms(agents) == interval_ms
    assert agents * 1000 / interval_ms <= 1000


def watch(silence: Silence, gaps_s, beats=1) -> bool:
    """Look at an agent that is heard after each of these gaps; whether it ever counted as silent."""
    found = False
    for gap_s in list(gaps_s) * beats:
        quiet_s = 0.0
        while quiet_s < gap_s:
            found |= silence.look(quiet_s)
            quiet_s += LOOK_S
    return found


def until_silent(silence: Silence) -> float:
    """How long it may be quiet from now on."""
    quiet_s = 0.0
    while not silence.look(quiet_s):
        quiet_s += LOOK_S
    return quiet_s


def test_who_beats_in_time_is_found_within_400_ms():
    """With the last beat just before the stop and a look each 40 ms."""
    silence = Silence()
    assert not watch(silence, [0.1], beats=50)
    assert until_silent(silence) <= LEAST_S + LOOK_S <= 0.4


def test_who_beats_late_is_not_flapped():
    """A starved agent costs a few false alarms, and is then given the time it needs."""
    silence = Silence()
    watch(silence, [0.1], beats=20)
    assert watch(silence, [0.5, 0.1], beats=3)
    assert not watch(silence, [0.5, 0.1, 0.45, 0.3], beats=5)


def test_lateness_grows_without_any_alarm():
    """Each gap is allowed for before the next longer one comes."""
    silence = Silence()
    for gap_s in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        assert not watch(silence, [gap_s], beats=3)


def test_once_is_no_lateness():
    """Who was stopped for half a second is found as soon the next time."""
    silence = Silence()
    watch(silence, [0.1, 0.5, 0.1, 0.5, 0.1])
    assert silence.limit_s == LEAST_S


def test_lateness_is_forgotten():
    """Half a minute in time, and a silence is found as soon as ever."""
    silence = Silence()
    watch(silence, [0.3, 0.1], beats=3)
    assert silence.limit_s > 0.6
    watch(silence, [0.1], beats=300)
    assert silence.limit_s == LEAST_S


def test_no_lateness_allows_for_a_second():
    """A cut link costs less, however late its beats were."""
    silence = Silence()
    watch(silence, [1.0, 1.1, 0.9], beats=3)
    assert silence.limit_s == MOST_S < 1


def test_an_outage_is_not_lateness():
    """Who was stopped for seconds, however often, is found as soon the next time."""
    silence = Silence()
    watch(silence, [0.1, 2.0, 0.1], beats=4)
    assert silence.limit_s == LEAST_S


def test_rest_is_not_lateness():
    """An idle agent is allowed to be quiet."""
    silence = Silence()
    silence.look(0.3)
    silence.rest()
    silence.look(0.0)
    assert silence.limit_s == LEAST_S

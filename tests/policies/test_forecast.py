"""The seasonal forecast: it must prove itself, and stops when it no longer does."""

import json
import math

import pytest

from appliance.policies.forecast import Season, forecast_rate, observe_season

PERIOD = 600.0


def fed(rates, season=None, start=0.0, total=0):
    """After a rate for each second."""
    for number, rate in enumerate(rates):
        total += round(rate)
        season = observe_season(season, PERIOD, total, start + number + 1.0)
    return season, start + len(rates), total


def wave(now):
    return 50 + 40 * math.sin(2 * math.pi * now / PERIOD)


def test_periods_that_repeat_are_forecast():
    """After three like periods the rate of the next is known ahead, between parts, too."""
    season, now, _ = fed([wave(second) for second in range(1800)])
    assert season.used
    for ahead in (30.0, 155.0, 300.0):
        assert forecast_rate(season, now + ahead) == pytest.approx(wave(now + ahead), rel=0.15)


def test_first_period_says_nothing():
    """There is no forecast until there was something to be right about."""
    season, now, _ = fed([wave(second) for second in range(600)])
    assert forecast_rate(season, now + 30) is None


def test_it_switches_itself_off():
    """When the pattern is gone the forecast is worse than none, and is not used."""
    season, now, total = fed([wave(second) for second in range(1800)])
    season, now, _ = fed([10.0] * 400, season, now, total)
    assert not season.used
    assert forecast_rate(season, now + 30) is None


def test_a_gap_is_not_learned_as_quiet():
    """Parts that were not seen keep what they had."""
    season, now, total = fed([wave(second) for second in range(1800)])
    later = observe_season(season, PERIOD, total, now + 300)
    assert later.rates == season.rates


def test_other_period_starts_anew_and_json_keeps_all():
    """Changing the period forgets; writing and reading does not."""
    season, now, total = fed([wave(second) for second in range(700)])
    assert Season.from_json(json.loads(json.dumps(season.to_json()))) == season
    assert set(observe_season(season, 1200.0, total, now).rates) == {None}
    assert len(observe_season(None, 86_400.0, 0, now).rates) == 288

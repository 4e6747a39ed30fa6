"""Bounds by the clock: on these days, between these times of that place, so many agents.

`mon-fri 08:00-18:00 Europe/Berlin min=3 max=10`. A time that the clock skips is the moment at which it does;
of one that it shows twice a window begins at the first and ends at the second. Standard library only.
"""

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST_SCHEDULES: Final = 20
MOST_AGENTS: Final = 1000
EXAMPLE: Final = "mon-fri 08:00-18:00 Europe/Berlin min=3"
_DAILY: Final = "daily"
_TIMES = re.compile(r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+\-/]{0,63}")
_BOUND = re.compile(r"(min|max)=([0-9]{1,4})")
_DAY_MINUTES: Final = 24 * 60
_MAX_SHOWN: Final = 80


class BadSchedule(ValueError):
    """Not a schedule; the text says what of it, and what is accepted."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A window on some weekdays (0 is Monday) and its bounds. `start` and `end` are minutes of the day.

    One that does not end after it starts lasts into the next day.
    """

    days: tuple[int, ...]
    start: int
    end: int
    zone: str
    min_agents: int
    max_agents: int | None = None

    @property
    def text(self) -> str:
        """As people write it."""
        days = _DAILY if len(self.days) == len(DAYS) else _say_days(self.days)
        most = "" if self.max_agents is None else f" max={self.max_agents}"
        return f"{days} {_clock(self.start)}-{_clock(self.end)} {self.zone} min={self.min_agents}{most}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Least and most agents now, and which schedule says so; '' where none does."""

    least: int
    most: int
    least_by: str = ""
    most_by: str = ""


def parse_schedule(text: str) -> Schedule:
    """Days, times, time zone (UTC unless given), min and, where wanted, max. Raises BadSchedule."""
    words = text.split()
    if len(words) < 3 or len(text) > 200:
        raise BadSchedule(
            f"schedule {text[:_MAX_SHOWN]!r} is not accepted: DAYS HH:MM-HH:MM [ZONE] min=N [max=N] is, "
            f"as {EXAMPLE!r}"
        )
    bounds = [word for word in words[2:] if "=" in word]
    zones = [word for word in words[2:] if "=" not in word]
    if len(zones) > 1:
        raise BadSchedule(f"schedule: {zones[1][:_MAX_SHOWN]!r} is one word too many, as in {EXAMPLE!r}")
    start, end = _read_times(words[1])
    least, most = _read_bounds(bounds)
    return Schedule(_read_days(words[0]), start, end, _read_zone(zones[0] if zones else "UTC"), least, most)


def bounds_at(
    schedules: Iterable[Schedule], least: int, most: int, now: float, *, lead_s: float = 0.0
) -> Bounds:
    """The bounds that hold at `now`, of `least` and `most` and those of the windows under way.

    The largest min counts, also from `lead_s` before a window, so that agents are ready when it begins. Of
    the windows under way that have a max the largest takes the place of `most`.
    """
    least_by = most_by = ""
    highest: tuple[int, str] | None = None
    for one in schedules:
        begun, soon = is_within(one, now), is_within(one, now + lead_s)
        if (begun or soon) and one.min_agents > least:
            least, least_by = one.min_agents, one.text
        # One that is about to begin may only allow more.
        counts = begun or (soon and (one.max_agents or 0) > most)
        if one.max_agents is not None and counts and (highest is None or one.max_agents > highest[0]):
            highest = (one.max_agents, one.text)
    if highest is not None:
        most, most_by = highest
    if least > most:
        least, least_by = most, most_by
    return Bounds(least, most, least_by, most_by)


def is_within(schedule: Schedule, now: float) -> bool:
    """Whether a window of it is under way."""
    today = dt.datetime.fromtimestamp(now, _zone(schedule.zone)).date()
    for day in (today - dt.timedelta(days=1), today):
        if day.weekday() in schedule.days:
            start, end = _window(schedule, day)
            if start <= now < end:
                return True
    return False


@lru_cache(maxsize=4096)
def _window(schedule: Schedule, day: dt.date) -> tuple[float, float]:
    """Begin and end, in Unix seconds, of the window that begins on `day`."""
    last = day if schedule.end > schedule.start else day + dt.timedelta(days=1)
    zone = _zone(schedule.zone)
    return _moment(zone, day, schedule.start, fold=0), _moment(zone, last, schedule.end, fold=1)


def _moment(zone: ZoneInfo, day: dt.date, minute: int, *, fold: int) -> float:
    """When the clock there shows that time."""
    if minute == _DAY_MINUTES:
        day, minute = day + dt.timedelta(days=1), 0
    shown = dt.datetime.combine(day, dt.time(minute // 60, minute % 60), zone)
    first, second = shown.replace(fold=0).timestamp(), shown.replace(fold=1).timestamp()
    if second >= first:
        return second if fold else first
    # The clock skips it: by its old offset that is after the change, by its new one before.
    before, after = second, first
    offset = dt.datetime.fromtimestamp(before, zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if dt.datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _read_days(text: str) -> tuple[int, ...]:
    if text.lower() == _DAILY:
        return tuple(range(len(DAYS)))
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise BadSchedule(
                f"schedule: days {text[:_MAX_SHOWN]!r} are not accepted: daily, mon-fri or sat,sun are"
            )
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return tuple(sorted(days))


def _read_times(text: str) -> tuple[int, int]:
    found = _TIMES.fullmatch(text)
    if found is not None:
        hour, minute, last_hour, last_minute = map(int, found.groups())
        start, end = hour * 60 + minute, last_hour * 60 + last_minute
        if minute < 60 and last_minute < 60 and start < _DAY_MINUTES and end <= _DAY_MINUTES and start != end:
            return start, end
    raise BadSchedule(
        f"schedule: times {text[:_MAX_SHOWN]!r} are not accepted: HH:MM-HH:MM from 00:00 to 24:00 is, "
        "as 08:00-18:00"
    )


def _read_zone(text: str) -> str:
    try:
        if _ZONE.fullmatch(text):
            _zone(text)
            return text
    except (OSError, KeyError, ValueError):  # unknown, or a folder of zones
        pass
    raise BadSchedule(
        f"schedule: time zone {text[:_MAX_SHOWN]!r} is not known: a name such as Europe/Berlin or UTC is "
        "accepted"
    )


def _read_bounds(words: Sequence[str]) -> tuple[int, int | None]:
    bounds: dict[str, int] = {}
    for word in words:
        found = _BOUND.fullmatch(word)
        if found is None or found[1] in bounds or int(found[2]) > MOST_AGENTS:
            raise BadSchedule(
                f"schedule: {word[:_MAX_SHOWN]!r} is not accepted: min=N and max=N are, once each, up to "
                f"{MOST_AGENTS}"
            )
        bounds[found[1]] = int(found[2])
    if "min" not in bounds and "max" not in bounds:
        raise BadSchedule(f"schedule: it says neither min nor max: min=N is accepted, as in {EXAMPLE!r}")
    least, most = bounds.get("min", 0), bounds.get("max")
    if most is not None and (most < 1 or most < least):
        raise BadSchedule(f"schedule: max={most} is not accepted: at least 1 and at least min={least} is")
    return least, most


def _say_days(days: Sequence[int]) -> str:
    """Runs of three and more as a range: mon-wed,sat."""
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    said = [
        f"{DAYS[run[0]]}-{DAYS[run[-1]]}" if len(run) > 2 else ",".join(DAYS[day] for day in run)
        for run in runs
    ]
    return ",".join(said)


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"

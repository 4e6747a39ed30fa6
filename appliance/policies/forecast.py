"""What the same time of earlier periods says of the rate to come. Standard library only.

A period (a day) in equal parts, each with the mean rate seen in it. At the end of each part the forecast is
held against what came, and against the plain guess that all stays as it was: it is used only while its error
is clearly the smaller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

PARTS = 288
SHORTEST_PART_S = 10.0
#: A new period changes the mean of a part by so much.
RENEWAL = 0.5
#: Errors count less with each further part.
FADE = 0.95
#: Parts that must have been forecast before it is believed, and how much better than none it must be.
TRIALS, BETTER = 6, 0.8


@dataclass(frozen=True, slots=True)
class Season:
    """The memory: rates by part, the part under way (number since 0, its first time and total), and errors.

    `error` and `plain_error` are faded sums of absolute errors in requests a second, with and without it.
    """

    period_s: float
    rates: tuple[float | None, ...] = ()
    part: int | None = None
    since: float = 0.0
    total: int = 0
    last: float | None = None
    error: float = 0.0
    plain_error: float = 0.0
    trials: int = 0

    @property
    def part_s(self) -> float:
        """Seconds of one part."""
        return max(self.period_s / PARTS, SHORTEST_PART_S)

    @property
    def parts(self) -> int:
        """Parts of a period."""
        return max(1, round(self.period_s / self.part_s))

    @property
    def used(self) -> bool:
        """Whether it has shown that it is better than none."""
        return self.trials >= TRIALS and self.error < BETTER * self.plain_error

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "period_s": self.period_s, "rates": list(self.rates), "part": self.part, "since": self.since,
            "total": self.total, "last": self.last, "error": self.error, "plain_error": self.plain_error,
            "trials": self.trials,
        }  # fmt: skip

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "Season":
        """The opposite of `to_json`. Raises what conversions raise on anything else."""
        return cls(
            float(given["period_s"]), tuple(_number(rate) for rate in given["rates"]),
            None if given["part"] is None else int(given["part"]), float(given["since"]), int(given["total"]),
            _number(given["last"]), float(given["error"]), float(given["plain_error"]), int(given["trials"]),
        )  # fmt: skip


def observe_season(season: Season | None, period_s: float, total: int, now: float) -> Season:
    """Take in the requests counted so far; another period than before starts anew."""
    if season is None or season.period_s != period_s:
        season = Season(period_s)
        season = replace(season, rates=(None,) * season.parts)
    part = int(now // season.part_s)
    if season.part is None or part < season.part or total < season.total:
        return replace(season, part=part, since=now, total=total, last=None)
    if part == season.part:
        return season
    whole = now - season.since >= 0.5 * season.part_s
    rate = (total - season.total) / (now - season.since)
    ended = _end_part(season, rate) if whole and part == season.part + 1 else replace(season, last=None)
    return replace(ended, part=part, since=now, total=total)


def forecast_rate(season: Season | None, at: float) -> float | None:
    """Requests a second at a time to come; None where it is not used, or knows nothing of then."""
    if season is None or not season.used:
        return None
    place = at / season.part_s - 0.5
    first, weight = int(place // 1), place % 1
    before, after = _rate_of(season, first), _rate_of(season, first + 1)
    if before is None or after is None:
        return before if after is None else after
    return before * (1 - weight) + after * weight


def _end_part(season: Season, rate: float) -> Season:
    """The part under way is over: judge what was forecast for it, then learn."""
    part = season.part or 0
    known = _rate_of(season, part)
    if known is not None and season.last is not None:
        season = replace(
            season,
            error=season.error * FADE + abs(rate - known),
            plain_error=season.plain_error * FADE + abs(rate - season.last),
            trials=min(season.trials + 1, 1_000_000),
        )
    rates = list(season.rates)
    rates[part % season.parts] = round(rate if known is None else known + (rate - known) * RENEWAL, 4)
    return replace(season, rates=tuple(rates), last=rate)


def _rate_of(season: Season, part: int) -> float | None:
    rates: Sequence[float | None] = season.rates
    return rates[part % season.parts]


def _number(given: Any) -> float | None:
    return None if given is None else float(given)

"""When a request is slower than it ought to be: later than 95 % of those answered of late. Pure."""

from typing import Final

#: So many of the last answers count; the quantile is taken anew after each so many, and not before.
KEPT: Final = 256
ANEW: Final = 32
QUANTILE: Final = 0.95
#: Sooner than this the answer is as likely under way as lost.
LEAST_S: Final = 0.005


class RecentTimes:
    """The times from sent to answered of the last requests."""

    __slots__ = ("_next", "_times", "slow_s")

    def __init__(self) -> None:
        self._times: list[float] = []
        self._next = 0
        self.slow_s: float | None = None

    def note(self, took_s: float) -> None:
        """A request was answered; one that was hedged counts from its first attempt.

        So a twentieth stays a twentieth: hedging does not shorten the times that it goes by.
        """
        if len(self._times) < KEPT:
            self._times.append(took_s)
        else:
            self._times[self._next % KEPT] = took_s
        self._next += 1
        if self._next % ANEW == 0:
            ordered = sorted(self._times)
            self.slow_s = max(LEAST_S, ordered[int(QUANTILE * len(ordered))])

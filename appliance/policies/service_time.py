"""How long an agent takes for a request: fixed_s + per_work_s x work, learned from its answers. Pure.

The mean follows slowly and is not upset by one bad answer. What is worse than it shows at once as
doubt, which fades in a time of its own size: 90 ms late is 45 ms of mistrust 90 ms later, and none
after 180. So a slower answer counts at once, faster ones bring the estimate down bit by bit.
"""

from typing import Final

from appliance.policies.balancing.seam import DOUBT_SHARE

#: What is assumed where nothing was measured yet, in seconds.
UNKNOWN_S: Final = 0.1
#: A newcomer is thought so many times as slow as its peers. More would leave it idle while work waits.
NEWCOMER: Final = 1.25
#: The first answers count more: what a cold start costs is soon forgotten.
FIRST_ANSWERS: Final = 10
FIRST_WEIGHT: Final = 0.3
WEIGHT: Final = 0.05
#: An answer within this many times the expectation is as usual.
USUAL: Final = 2.0
#: The mistrust after one failure, doubled by each that follows, in seconds.
FAILURE_S: Final = 0.25
LONGEST_DOUBT_S: Final = 8.0
LEAST_S: Final = 1e-6


class ServiceTime:
    """What is known of one agent's speed. `doubt_until` is on the caller's clock."""

    __slots__ = (
        "_cov",
        "_mean_s",
        "_mean_work",
        "_var",
        "answers",
        "doubt_until",
        "expected",
        "failures",
        "fixed_s",
        "per_work_s",
    )

    def __init__(self) -> None:
        self.answers = self.failures = 0
        self.expected = False
        self.fixed_s, self.per_work_s, self.doubt_until = UNKNOWN_S, 0.0, 0.0
        self._mean_s, self._mean_work, self._var, self._cov = UNKNOWN_S, 0.0, 0.0, 0.0

    def expect(self, fixed_s: float, per_work_s: float) -> None:
        """Before its first answer: what was measured or learned on a box of its kind; both 0, nothing was."""
        self.expected = fixed_s + per_work_s > 0
        if self.expected and not self.answers:
            self.fixed_s, self.per_work_s = fixed_s, per_work_s

    def assume(self, typical_s: float) -> None:
        """Before its first answer it is thought a little slower than its peers, which take `typical_s`."""
        if not self.answers and not self.expected:
            self.fixed_s = self._mean_s = NEWCOMER * typical_s

    def answered(self, took_s: float, work: float, now: float) -> None:
        """It took so long for a request of `work`, not counting what was before it."""
        took_s = max(took_s, LEAST_S)
        expected_s = self.fixed_s + self.per_work_s * work
        self.failures = 0
        if not self.answers:
            self._mean_s, self._mean_work = took_s, work
        else:
            late_s = took_s - USUAL * expected_s
            if late_s > 0:
                self._doubt(late_s, now)
            elif self.doubt_until > now:
                self.doubt_until = (self.doubt_until + now) / 2
            self._learn(min(took_s, 2 * expected_s), work)
        self.answers += 1
        self._fit()

    def failed(self, now: float) -> None:
        """It answered with an error: however fast that was, it counts as slow."""
        self.failures += 1
        self._doubt(min(FAILURE_S * 2 ** min(self.failures - 1, 10), LONGEST_DOUBT_S), now)

    def forget(self, bound_s: float) -> None:
        """Without answers for a while: what was slower than `bound_s` may be as fast again, and is tried."""
        if self._mean_s > bound_s:
            share = max(bound_s / self._mean_s, 0.8)
            self._mean_s *= share
            self._cov *= share
            self._fit()

    def _doubt(self, seconds: float, now: float) -> None:
        until = now + min(seconds, LONGEST_DOUBT_S) / DOUBT_SHARE
        self.doubt_until = max(self.doubt_until, until)

    def _learn(self, took_s: float, work: float) -> None:
        weight = FIRST_WEIGHT if self.answers < FIRST_ANSWERS else WEIGHT
        over_work, over_s = work - self._mean_work, took_s - self._mean_s
        self._mean_work += weight * over_work
        self._mean_s += weight * over_s
        self._var = (1 - weight) * (self._var + weight * over_work * over_work)
        self._cov = (1 - weight) * (self._cov + weight * over_work * over_s)

    def _fit(self) -> None:
        """The line through the mean with the slope of the regression, neither part of it below zero."""
        slope = 0.0
        if self._mean_work > 0 and self._cov > 0 and self._var > 1e-3 * self._mean_work * self._mean_work:
            slope = min(self._cov / self._var, self._mean_s / self._mean_work)
        self.per_work_s = slope
        self.fixed_s = max(self._mean_s - slope * self._mean_work, LEAST_S)

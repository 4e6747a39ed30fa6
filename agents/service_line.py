"""How long a batch takes: fixed_s + per_token_s x tokens, fitted to batches that were computed. Pure.

Tokens are those of the batch's rectangle, sequences x longest: engines leave out part of the padding,
so what is expected of a ragged batch is rather too much than too little.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: Tokens of the sentence by which shapes and batch sizes are compared, special ones included.
REFERENCE_TOKENS: Final = 32
#: Each batch counts this much less than the one after it: about the last 500 say how fast it is.
KEEP: Final = 0.998
#: Batches without which nothing is said.
EVIDENCE: Final = 20
#: A batch counts at most so many times what was expected: a machine that stood still says nothing.
WORST: Final = 4.0
#: Token counts that are closer together than this share of their mean tell no slope.
_LEAST_SPREAD: Final = 0.05


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds that a batch takes, and each of its tokens more."""

    fixed_s: float
    per_token_s: float

    def at(self, tokens: float) -> float:
        """Seconds expected of a batch of so many tokens."""
        return self.fixed_s + self.per_token_s * tokens


@dataclass(slots=True)
class Moments:
    """Weighted sums over (tokens, seconds), which is all that a line needs.

    A batch weighs by its tokens to the power of -2: an error of a tenth counts alike in small and large ones.
    """

    weight: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    products: float = 0.0

    def add(self, tokens: float, seconds: float, keep: float = 1.0) -> None:
        """One batch more; all before it count `keep` times as much as they did."""
        tokens = max(tokens, 1.0)
        self.weight = self.weight * keep + tokens**-2
        self.tokens = self.tokens * keep + 1 / tokens
        self.seconds = self.seconds * keep + seconds * tokens**-2
        self.squares = self.squares * keep + 1.0
        self.products = self.products * keep + seconds / tokens

    @property
    def has_slope(self) -> bool:
        """Whether batches of clearly different sizes were seen."""
        return self.tokens > 0 and self._spread() >= (_LEAST_SPREAD * self.tokens / self.weight) ** 2

    def line(self) -> Line | None:
        """Least squares, neither part below zero; all by the token where sizes hardly differ."""
        if self.tokens <= 0:
            return None
        mean_tokens, mean_s = self.tokens / self.weight, self.seconds / self.weight
        spread = self._spread()
        through_zero = Line(0.0, mean_s / mean_tokens)
        if not self.has_slope:
            return through_zero
        slope = (self.products / self.weight - mean_tokens * mean_s) / spread
        if slope <= 0:
            return Line(mean_s, 0.0)
        if slope * mean_tokens >= mean_s:
            return through_zero
        return Line(mean_s - slope * mean_tokens, slope)

    def _spread(self) -> float:
        return self.squares / self.weight - (self.tokens / self.weight) ** 2


def allowed_s(budget_s: float, alone_s: float) -> float:
    """How long a batch may take within a latency budget: also twice what one of its sequences takes alone.

    Where that is most of it, as with an engine that takes 80 ms for whatever it is given, a batch costs
    hardly more, and without it everybody waits longer.
    """
    return max(budget_s, 2 * alone_s)


def capacity_of(
    line: Line,
    *,
    workers: int,
    batch_size: int,
    sequence_tokens: float,
    budget_s: float,
    free_tokens: int = 0,
) -> tuple[float, float]:
    """Sequences and tokens per second at most, in full batches within the latency budget.

    Two workers with batches of 8 x 20 tokens that take 40 ms: 400 sequences and 8,000 tokens. Batches of
    `free_tokens` and less may take longer than the budget.
    """
    size = batch_size
    most_s = allowed_s(budget_s, line.at(sequence_tokens))
    while size > 1 and size * sequence_tokens > free_tokens and line.at(size * sequence_tokens) > most_s:
        size -= 1
    batch_s = line.at(size * sequence_tokens)
    if batch_s <= 0:
        return 0.0, 0.0
    rate = workers * size / batch_s
    return rate, rate * sequence_tokens


def fit_line(points: Iterable[tuple[float, float]]) -> Line | None:
    """The line through (tokens, seconds), all alike; None where there are none."""
    moments = Moments()
    for tokens, seconds in points:
        moments.add(tokens, seconds)
    return moments.line()


class RunningLine:
    """Learns from every batch that is served.

    There is an `estimate` once batches of different sizes were seen: what larger ones would take is not
    told by small ones alone. There is a `line` once there is evidence.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.estimate: Line | None = None
        self._moments = Moments()

    @property
    def line(self) -> Line | None:
        """What may be told to others; None of too few batches."""
        return self._moments.line() if self.batches >= EVIDENCE else None

    def add(self, tokens: int, seconds: float) -> None:
        """A batch of `tokens` took so long."""
        if self.estimate is not None and self.batches >= EVIDENCE:
            seconds = min(seconds, WORST * self.estimate.at(tokens))
        self.batches += 1
        self._moments.add(tokens, seconds, KEEP)
        self.estimate = self._moments.line() if self._moments.has_slope else None

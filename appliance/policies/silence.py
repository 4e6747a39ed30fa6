"""How often agents beat, and after which silence one of them gets no more work. Pure.

Beats of an agent with work come each 100 ms. Three that are missing are a silence, unless the agent has been
late before: a box that is short of processor time beats late, and must not lose its work each time.
"""

from collections import deque
from typing import Final

from agents.protocol import BUSY_BEAT_MS

#: So many beats of idle agents a gateway hears each second at most, about.
BEATS_PER_S: Final = 1000

#: Without known lateness a silence is this long. A look each 40 ms finds it before 500 ms are over.
LEAST_S: Final = 0.35
#: An agent was late where it was not heard for longer than this. Once is a fault; what has happened thrice
#: within the last 250 looks (10 s) is how its box is: then a silence is twice that gap and one beat. It is
#: never longer than a cut link may cost a request, which is less than a second.
LATE_S: Final = 0.125
TIMES: Final = 3
LOOKS: Final = 250
GAPS: Final = 2.0
MORE_S: Final = 0.1
MOST_S: Final = 0.8


def beat_interval_ms(agents: int) -> int:
    """How often each of so many agents beats while it has no work. Worked number: 1,000 agents, 1,000 ms."""
    hundreds = -(-agents * 1000 // (BEATS_PER_S * BUSY_BEAT_MS))
    return BUSY_BEAT_MS * max(1, hundreds)


class Silence:
    """Learns how late one agent's beats are, from looks at it a few hundredths of a second apart."""

    __slots__ = ("_late", "_looks", "_quiet_s", "limit_s")

    def __init__(self) -> None:
        #: The silence after which the agent gets no more work. Worked numbers: three gaps of 0.2 s
        #: allow 0.5 s, of 0.35 s and more 0.8 s.
        self.limit_s = LEAST_S
        self._looks = 0
        self._quiet_s = 0.0
        self._late: deque[tuple[int, float]] = deque(maxlen=16)

    def look(self, quiet_s: float) -> bool:
        """Whether an agent is silent that ought to have beaten and was last heard `quiet_s` ago."""
        self._looks += 1
        late = self._late
        if late and late[0][0] < self._looks - LOOKS:
            late.popleft()
            self._learn()
        # Heard meanwhile: that was no silence, but lateness; or an outage, which is no lateness either.
        if quiet_s < self._quiet_s and LATE_S < self._quiet_s <= MOST_S + LEAST_S:
            late.append((self._looks, self._quiet_s))
            self._learn()
        self._quiet_s = quiet_s
        return quiet_s > self.limit_s

    def rest(self) -> None:
        """It need not beat now."""
        self._quiet_s = 0.0

    def _learn(self) -> None:
        if len(self._late) < TIMES:
            self.limit_s = LEAST_S
        else:
            usual_s = sorted((gap_s for _, gap_s in self._late), reverse=True)[TIMES - 1]
            self.limit_s = min(MOST_S, max(LEAST_S, GAPS * usual_s + MORE_S))

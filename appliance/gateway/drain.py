"""How fast a deployment's queue empties: what waiting times and Retry-After are computed from. Pure."""

from typing import Final

from agents.protocol import LoadReport
from appliance.gateway.wait_queue import PRIORITIES

#: Tokens per body byte until an agent has reported its own: English prose in JSON has about this.
DEFAULT_TOKENS_PER_BYTE: Final = 0.25

#: A measurement ends after this many answers and this long, or after the patience with any answer.
_ENOUGH_ANSWERS: Final = 16
_ENOUGH_S: Final = 0.5
_PATIENCE_S: Final = 10.0

_RATE_WEIGHT: Final = 0.3
_QUICK_WEIGHT: Final = 0.01

#: What higher classes do at most to a lower one's share of the rate: else nothing would be let in again.
_LEAST_SHARE: Final = 0.05
_RATIO_WEIGHT: Final = 0.3
_SERVICE_WEIGHT: Final = 0.05


class Drain:
    """Measures the work done per second and slot while work waits, and what a body's work is.

    Only time with a queue counts: else it is what clients ask for that is measured, not what
    agents can do. `service_s` is the usual time from sent to answered, `quick_s` that of the
    quickest of late. Times are monotonic seconds.
    """

    __slots__ = (
        "_answers", "_at", "_backlogged", "_done", "_per_slot", "_slot_s", "_slots", "_took_s",
        "quick_s", "service_s", "tokens_per_byte",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.tokens_per_byte = DEFAULT_TOKENS_PER_BYTE
        self.service_s = self.quick_s = 0.0
        self._per_slot: list[float] | None = None
        self._slots = 0
        self._at = now
        self._backlogged = False
        self._begin()

    def estimate(self, body_bytes: int) -> float:
        """The work of a request in tokens, at least 1. Worked number: 400 bytes of prose are 100."""
        return max(1.0, body_bytes * self.tokens_per_byte)

    def hear(self, load: LoadReport) -> None:
        """An agent told what it has computed so far."""
        if load.body_bytes_total > 0 and load.tokens_total > 0:
            told = load.tokens_total / load.body_bytes_total
            self.tokens_per_byte += _RATIO_WEIGHT * (told - self.tokens_per_byte)

    def finish(self, work: float, service_s: float, priority: int) -> None:
        """An agent has answered a request; `service_s` is from sent to answered."""
        self._answers += 1
        self._done[priority] += work
        if self.service_s:
            self.service_s += (service_s - self.service_s) * _SERVICE_WEIGHT
            quick_s = self.quick_s
            self.quick_s = min(service_s, quick_s + (service_s - quick_s) * _QUICK_WEIGHT)
        else:
            self.service_s = self.quick_s = service_s

    def tick(self, now: float, slots: int, *, waiting: bool) -> None:
        """Take the time since the last tick into account; to be called several times a second.

        `slots` are those of the agents that may take work now: a new agent counts from its first
        moment. Without any, nothing is measured.
        """
        passed_s = now - self._at
        if waiting and self._backlogged and slots and self._slots:
            self._took_s += passed_s
            self._slot_s += passed_s * slots
            if self._is_enough():
                self._learn()
        else:
            self._begin()
        self._at, self._slots, self._backlogged = now, slots, waiting

    def wait_s(self, work: float, priority: int) -> float | None:
        """How long this much work of a class takes to leave the queue, None where that is not known.

        Worked number: of 1,000 tokens a second 400 are high; 300 normal ones take 0.5 s.
        """
        if self._per_slot is None or not self._slots:
            return None
        whole = sum(self._per_slot)
        left = max(whole - sum(self._per_slot[:priority]), whole * _LEAST_SHARE)
        return work / (left * self._slots)

    def _begin(self) -> None:
        self._answers = 0
        self._done = [0.0 for _ in PRIORITIES]
        self._slot_s = self._took_s = 0.0

    def _is_enough(self) -> bool:
        if self._took_s >= _PATIENCE_S:
            return self._answers > 0
        return self._took_s >= _ENOUGH_S and self._answers >= _ENOUGH_ANSWERS

    def _learn(self) -> None:
        samples = [done / self._slot_s for done in self._done]
        if self._per_slot is None:
            self._per_slot = samples
        else:
            old = self._per_slot
            self._per_slot = [o + _RATE_WEIGHT * (s - o) for o, s in zip(old, samples, strict=True)]
        self._begin()

"""Who may come in: a permit at once, or a refusal at once. Pure."""

from agents.lifecycle import refusal_in
from agents.protocol import AgentState, Refusal


class Admission:
    """Counts the requests an agent holds and bounds them.

    Every permit is given back exactly once with `release`.
    """

    def __init__(self, admits: int) -> None:
        self.admits = admits
        self.in_hand = 0
        self.accepted_total = 0
        self.refused_totals = dict.fromkeys(Refusal, 0)

    @property
    def refused_total(self) -> int:
        """Refusals of every cause."""
        return sum(self.refused_totals.values())

    def admit(self, state: AgentState) -> Refusal | None:
        """Take a permit and return None, or say why there is none."""
        refusal = refusal_in(state)
        if refusal is None and self.in_hand >= self.admits:
            refusal = Refusal.FULL
        if refusal is not None:
            self.refused_totals[refusal] += 1
            return refusal
        self.in_hand += 1
        self.accepted_total += 1
        return None

    def release(self) -> None:
        """Give a permit back. Raises RuntimeError where none is out: a fault of the caller."""
        if self.in_hand <= 0:
            raise RuntimeError("a permit was given back twice")
        self.in_hand -= 1

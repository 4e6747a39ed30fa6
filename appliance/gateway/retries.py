"""How many requests may be tried again at once after a living agent answered with an error. Pure."""

BUDGET_SHARE = 0.2
BUDGET_FLOOR = 3


class RetryBudget:
    """Retries under way at once: at most 20 % of the active requests, and always 3.

    It keeps retries from multiplying the load of agents that fail because they are overloaded.
    Requests whose connection broke, or that were refused, are not counted here.
    """

    __slots__ = ("under_way",)

    def __init__(self) -> None:
        self.under_way = 0

    def take(self, active: int) -> bool:
        """Begin a retry where the budget allows it. Worked number: 40 active allow 8."""
        if self.under_way >= max(BUDGET_FLOOR, int(active * BUDGET_SHARE)):
            return False
        self.under_way += 1
        return True

    def give_back(self) -> None:
        """The retried request has ended."""
        self.under_way -= 1

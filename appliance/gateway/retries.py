"""What is tried again: calls whose attempt came to nothing go back to the queue, within bounds."""

from collections.abc import Callable
from time import monotonic

from appliance.gateway import errors
from appliance.gateway.calls import Call, Outcome
from appliance.gateway.fleet import Agent, Fleet
from appliance.gateway.slots import AgentSlots
from appliance.policies.health import is_well

BUDGET_SHARE = 0.2
BUDGET_FLOOR = 3
MAX_BREAKS = 3
MAX_ERROR_RETRIES = 2
#: An agent that has answered within this is known to be well.
WELL_S = 1.0
STATUS_DEADLINE = 504
STATUS_TOO_MANY = 429


class RetryBudget:
    """Retries and hedges under way at once: at most 20 % of the active requests, and always 3.

    It keeps them from multiplying the load of agents that fail because they are overloaded.
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

    def give_back(self, count: int = 1) -> None:
        """So many of them have ended."""
        self.under_way -= count


class Retries:
    """Puts calls back. `finish` is called with those that may not go on. Nothing awaits."""

    def __init__(
        self, fleet: Fleet, budget: RetryBudget, finish: Callable[[Call, str, Outcome], None]
    ) -> None:
        self._fleet = fleet
        self._budget = budget
        self._finish = finish

    def put_back(self, call: Call) -> None:
        """To the head of the queue, unless the deployment is gone meanwhile."""
        if call.deployment.gone:
            self._finish(call, "failed", errors.unknown_model(call.deployment.route.name))
        else:
            call.deployment.queue.put_back(call)

    def return_broken(self, call: Call) -> None:
        """Its agent's connection broke."""
        call.breaks += 1
        if call.breaks > MAX_BREAKS:
            self._finish(call, "failed", errors.agents_broke(call.breaks))
        else:
            self.put_back(call)

    def retry(self, call: Call, agent: Agent, status: int) -> bool:
        """Whether a call that an agent answered with an error is put back."""
        if status != STATUS_DEADLINE:
            return self._retry_elsewhere(call, agent)
        if call.adopted and not call.deployment.gone and monotonic() < call.deadline_at:
            call.adopted = False  # it was the deadline of the one whose place it got
            self.put_back(call)
            return True
        return False

    def _retry_elsewhere(self, call: Call, agent: Agent) -> bool:
        """Put a call back whose agent answered with an error, where another agent and the budget allow it."""
        avoid = (call.avoid or frozenset()) | {agent.slots}
        if call.error_retries >= MAX_ERROR_RETRIES or all(t in avoid for t in call.deployment.pool.targets):
            return False
        if not call.borrowed and (call.error_retries or not self._is_its_own(call, avoid)):
            if not self._budget.take(self._fleet.active()):
                return False
            call.borrowed += 1
        call.error_retries += 1
        call.avoid = avoid
        self.put_back(call)
        return True

    def _is_its_own(self, call: Call, avoid: frozenset[AgentSlots]) -> bool:
        """Whether the error is that agent's own: another answers well at this time.

        Then the first retry is as free as after a broken connection. All that an agent has when it begins
        to fail comes back at once, and is more than the budget of a small pool.
        """
        since = monotonic() - WELL_S
        return any(
            target.measured_at > since and is_well(target.health, target.answered)
            for target in call.deployment.pool.targets
            if target not in avoid
        )

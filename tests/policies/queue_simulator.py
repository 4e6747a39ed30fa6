"""Requests in simulated time: the gateway's own pool and queue discipline over agents of known speed.

Nothing here waits or reads a clock. The same seed gives the same arrivals for all that are compared.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agents.protocol import AgentState
from appliance.gateway.tracker import AgentSlots, Pool, Reservation
from appliance.policies.balancing import Wait, find_policy
from appliance.policies.snapshot import AgentRoute

NO_BOUND = 1_000_000


@dataclass(eq=False)
class Simulated:
    """Executes `slots` at once; `takes` gives each request's seconds, `fails` says who gets a 500."""

    takes: Callable[[], float]
    slots: int = 1
    ahead: int = 0
    fails: Callable[[], bool] = lambda: False
    book: AgentSlots = field(init=False)
    inside: deque["Request"] = field(default_factory=deque)
    executing: int = 0
    served: int = 0


@dataclass(eq=False)
class Request:
    """One arrival; `answered_at` is set once."""

    at: float
    work: float = 1.0
    avoid: frozenset[AgentSlots] | None = None
    answered_at: float | None = None
    failed: bool = False
    reservation: Reservation | None = None


def poisson(rate: float, count: int, seed: int) -> list[float]:
    """Arrival times of `count` requests at `rate` a second."""
    draw = random.Random(seed)
    return list(itertools.accumulate(draw.expovariate(rate) for _ in range(count)))


def book(name: str, slots: int, ahead: int) -> AgentSlots:
    """The gateway's view of a warm agent."""
    agent = AgentSlots(AgentRoute(name, "d", "n", "h", 1, (), "warm", slots, ahead))
    agent.state = AgentState.READY
    return agent


class Simulation:
    """Serve arrivals with a policy. Without late binding every request goes to an agent at once."""

    def __init__(self, policy: str, agents: Sequence[Simulated], *, late_binding: bool = True) -> None:
        self.agents = agents
        self.queue: list[Request] = []
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._pool = Pool(find_policy(policy))
        for number, agent in enumerate(agents):
            agent.book = book(f"a{number}", agent.slots, agent.ahead if late_binding else NO_BOUND)
        self._by_book = {agent.book: agent for agent in agents}
        self._pool.agents = [agent.book for agent in agents]
        self._pool.refresh()
        self._look_at = float("inf")

    def run(self, arrivals: Sequence[float], work: Callable[[], float] = lambda: 1.0) -> list[Request]:
        """All requests, once each is answered."""
        requests = [Request(at, work()) for at in arrivals]
        for request in requests:
            self.at(request.at, lambda now, request=request: self._arrive(request, now))
        while self._events:
            now, _, act = heapq.heappop(self._events)
            act(now)
        return requests

    def at(self, when: float, act: Callable[[float], None]) -> None:
        """Let something happen."""
        heapq.heappush(self._events, (when, next(self._order), act))

    def _arrive(self, request: Request, now: float) -> None:
        self.queue.append(request)
        self._pump(now)

    def _pump(self, now: float) -> None:
        while self.queue:
            request = self.queue[0]
            found = self._pool.reserve(request.avoid, now, request.work, len(self.queue) - 1)
            if isinstance(found, Wait):
                self._look_again(now + found.for_s)
            if not isinstance(found, Reservation):
                return
            del self.queue[0]
            request.reservation = found
            agent = self._by_book[found.agent]
            agent.inside.append(request)
            self._begin(agent, now)

    def _look_again(self, when: float) -> None:
        if when < self._look_at:
            self._look_at = when
            self.at(when, self._looked)

    def _looked(self, now: float) -> None:
        self._look_at = float("inf")
        self._pump(now)

    def _begin(self, agent: Simulated, now: float) -> None:
        while agent.inside and agent.executing < agent.slots:
            request = agent.inside.popleft()
            agent.executing += 1
            self.at(now + agent.takes(), lambda then, request=request: self._end(agent, request, then))

    def _end(self, agent: Simulated, request: Request, now: float) -> None:
        agent.executing -= 1
        agent.served += 1
        reservation = request.reservation
        if agent.fails():
            request.failed = True
            reservation.failed(now)
        else:
            reservation.answered(now)
        reservation.release()
        agent.book.reopen()
        request.answered_at = now
        self._begin(agent, now)
        self._pump(now)


def latencies_ms(requests: Sequence[Request]) -> list[float]:
    """Sorted, of those that were answered."""
    return sorted((r.answered_at - r.at) * 1000 for r in requests if r.answered_at is not None)


def percentile(values: Sequence[float], share: float) -> float:
    """Of sorted values, the one below which this share lies."""
    return values[min(len(values) - 1, int(len(values) * share))]


def central_queue_ms(
    arrivals: Sequence[float], services_s: Sequence[float], *, first_free: bool = False
) -> list[float]:
    """What an ideal queue gives that knows each agent's fixed time: sorted latencies.

    Each request goes to the agent that ends it earliest, or with `first_free` to the one that is
    free first, the fastest of several.
    """
    free = [0.0] * len(services_s)
    found = []
    for at in arrivals:
        if first_free:
            best = min(range(len(free)), key=lambda i: (max(free[i], at), services_s[i]))
        else:
            best = min(range(len(free)), key=lambda i: (max(free[i], at) + services_s[i], services_s[i]))
        free[best] = max(free[best], at) + services_s[best]
        found.append((free[best] - at) * 1000)
    return sorted(found)

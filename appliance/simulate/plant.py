"""The plant that every policy is replayed on: one queue, agents of some slots, a loop that ticks.

Requests wait in one queue and go to the first agent with a free slot. Ordered agents serve after
`start_s`; one that leaves finishes what it executes. Nothing here is random.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

#: An order to start more agents so soon after one to stop some is a flap.
FLAP_S = 60.0
#: Of held requests the loop is told so often.
HELD_AGAIN_S = 0.5
#: What waits is given up so long after the traffic's end.
LONGEST_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Plant:
    """What agents there are. A request that waits longer than `slo_wait_s` for a slot is a miss."""

    slots: int = 1
    start_s: float = 3.0
    tick_s: float = 2.0
    max_agents: int = 64
    min_agents: int = 0
    slo_wait_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Arrival times, ascending from 0, and how long each request executes; both in seconds."""

    name: str
    arrivals: Sequence[float]
    services: Sequence[float]
    duration_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What a policy is shown at a tick. What ends in `_s` is a total since the start, as a gateway counts.

    `concurrency_s` is the area under queued + in flight, `busy_s` that under in flight, `service_s` the
    time that finished requests executed. `held` says that a request waits and no agent is wanted.
    """

    now: float
    current: int
    ready: int
    in_flight: int
    queued: int
    accepted: int
    finished: int
    concurrency_s: float
    busy_s: float
    service_s: float
    held: bool = False


class Policy(Protocol):
    """How many agents to want. One object serves one replay and may keep its own memory.

    `initial` is what stands ready when the replay begins.
    """

    name: str
    initial: int

    def want(self, seen: Seen) -> int:
        """The number of agents, before the plant's own bound."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy cost and missed. `series` are (second, wanted, ready, in flight + queued) at ticks."""

    name: str
    requests: int
    misses: int
    agent_seconds: float
    busy_seconds: float
    cold_starts: int
    changes: int
    flaps: int
    waits_s: tuple[float, ...]
    series: tuple[tuple[float, int, int, int], ...]
    slots: int = 1

    @property
    def slo_misses_percent(self) -> float:
        """Requests that waited too long, in percent of all."""
        return 100.0 * self.misses / self.requests if self.requests else 0.0


class _Agent:
    __slots__ = ("busy", "leaving", "number", "ordered_at", "ready_at")

    def __init__(self, number: int, ordered_at: float, ready_at: float) -> None:
        self.number = number
        self.ordered_at = ordered_at
        self.ready_at = ready_at
        self.busy = 0
        self.leaving = False


class _Fleet:
    """The agents of a run. Of those with a free slot the oldest takes a request, so that the newest idle."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._ordered = 0
        self.agents: dict[int, _Agent] = {}
        self.starting: deque[_Agent] = deque()
        self.free: list[int] = []
        self.completions: list[tuple[float, int, float]] = []
        self.agent_seconds = 0.0
        self.cold_starts = 0

    def order(self, count: int, now: float, start_s: float) -> None:
        for _ in range(count):
            self._ordered += 1
            agent = _Agent(self._ordered, now, now + start_s)
            self.agents[agent.number] = agent
            self.starting.append(agent)

    def wake(self, now: float) -> None:
        """Agents whose start is over serve from now on."""
        while self.starting and self.starting[0].ready_at <= now:
            heapq.heappush(self.free, self.starting.popleft().number)

    def take(self, now: float, service_s: float) -> bool:
        """Execute a request on the oldest agent with a free slot, where there is one."""
        while self.free:
            agent = self.agents.get(self.free[0])
            if agent is None or agent.leaving or agent.busy >= self._plant.slots:
                heapq.heappop(self.free)
                continue
            agent.busy += 1
            heapq.heappush(self.completions, (now + service_s, agent.number, service_s))
            return True
        return False

    def finish(self) -> float:
        """The next completion happens; the time the request executed."""
        now, number, service_s = heapq.heappop(self.completions)
        agent = self.agents[number]
        agent.busy -= 1
        if agent.leaving and not agent.busy:
            self._stop(agent, now)
        elif not agent.leaving and agent.busy == self._plant.slots - 1:
            heapq.heappush(self.free, number)
        return service_s

    def resize(self, current: int, wanted: int, now: float) -> None:
        """Order what is missing; or stop those that start, then idle, then the least busy, newest first."""
        if wanted > current:
            self.cold_starts += wanted - current
            self.order(wanted - current, now, self._plant.start_s)
            return
        for _ in range(min(current - wanted, len(self.starting))):
            self._stop(self.starting.pop(), now)
        surplus = len(self.starting) + self.ready() - wanted
        if surplus <= 0:
            return
        serving = [one for one in self.agents.values() if not one.leaving and one.ready_at <= now]
        serving.sort(key=lambda one: (one.busy, -one.number))
        for agent in serving[:surplus]:
            agent.leaving = True
            if not agent.busy:
                self._stop(agent, now)

    def ready(self) -> int:
        return sum(not one.leaving for one in self.agents.values()) - len(self.starting)

    def end(self, now: float) -> None:
        for agent in list(self.agents.values()):
            self._stop(agent, now)

    def _stop(self, agent: _Agent, now: float) -> None:
        self.agent_seconds += now - agent.ordered_at
        del self.agents[agent.number]


class _Replay:
    """One policy on one plant under one traffic."""

    def __init__(self, traffic: Traffic, policy: Policy, plant: Plant) -> None:
        self.traffic, self.policy, self.plant = traffic, policy, plant
        self.fleet = _Fleet(plant)
        self.queue: deque[int] = deque()
        self.waits: list[float] = []
        self.series: list[tuple[float, int, int, int]] = []
        self.now = self.concurrency_s = self.busy_s = self.service_s = 0.0
        self.in_flight = self.arrived = self.finished = self.changes = self.flaps = 0
        self.lowered_at = self.held_at = -inf
        self.current = self._bound(policy.initial)
        self.fleet.order(self.current, 0.0, 0.0)
        self.fleet.wake(0.0)

    def run(self) -> Outcome:
        """Ticks until all has come and all is answered, or nobody does that for too long."""
        tick, total, duration_s = 0, len(self.traffic.arrivals), self.traffic.duration_s
        while self.now < duration_s or (self.finished < total and self.now < duration_s + LONGEST_AFTER_S):
            self._tick()
            tick += 1
            until = tick * self.plant.tick_s
            self._advance(until)
        self.fleet.end(self.now)
        self.waits.extend(self.now - self.traffic.arrivals[number] for number in self.queue)
        misses = sum(wait > self.plant.slo_wait_s for wait in self.waits)
        return Outcome(
            self.policy.name, total, misses, self.fleet.agent_seconds, self.busy_s, self.fleet.cold_starts,
            self.changes, self.flaps, tuple(self.waits), tuple(self.series), self.plant.slots,
        )  # fmt: skip

    def _bound(self, wanted: int) -> int:
        return min(max(wanted, self.plant.min_agents), self.plant.max_agents)

    def _tick(self, *, held: bool = False) -> None:
        ready = self.fleet.ready()
        seen = Seen(
            self.now, self.current, ready, self.in_flight, len(self.queue), self.arrived, self.finished,
            self.concurrency_s, self.busy_s, self.service_s, held,
        )  # fmt: skip
        wanted = self._bound(self.policy.want(seen))
        if wanted != self.current:
            self.changes += 1
            if wanted > self.current:
                self.flaps += self.now - self.lowered_at < FLAP_S
            else:
                self.lowered_at = self.now
            self.fleet.resize(self.current, wanted, self.now)
            self.current = wanted
        self.series.append((self.now, wanted, ready, self.in_flight + len(self.queue)))

    def _advance(self, until: float) -> None:
        arrivals, fleet = self.traffic.arrivals, self.fleet
        total = len(arrivals)
        while True:
            arrival = arrivals[self.arrived] if self.arrived < total else inf
            done = fleet.completions[0][0] if fleet.completions else inf
            awake = fleet.starting[0].ready_at if fleet.starting else inf
            at = min(arrival, done, awake)
            if at > until:
                break
            self._pass_time(at)
            if at == done:
                self.service_s += fleet.finish()
                self.in_flight -= 1
                self.finished += 1
            elif at == awake:
                fleet.wake(at)
            else:
                self.queue.append(self.arrived)
                self.arrived += 1
                if self.current == 0 and self.now - self.held_at >= HELD_AGAIN_S:
                    self.held_at = self.now
                    self._tick(held=True)
            self._serve()
        self._pass_time(until)

    def _serve(self) -> None:
        while self.queue and self.fleet.take(self.now, self.traffic.services[self.queue[0]]):
            self.waits.append(self.now - self.traffic.arrivals[self.queue.popleft()])
            self.in_flight += 1

    def _pass_time(self, at: float) -> None:
        passed = at - self.now
        self.busy_s += self.in_flight * passed
        self.concurrency_s += (self.in_flight + len(self.queue)) * passed
        self.now = at


def replay(traffic: Traffic, policy: Policy, plant: Plant) -> Outcome:
    """Run one policy. The replay ends when all the traffic has come and all of it is answered.

    What nobody has served an hour after the last came has waited until then.
    """
    return _Replay(traffic, policy, plant).run()

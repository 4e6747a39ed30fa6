"""How many agents keep requests from waiting too long. Standard library only.

Four rules, from the rate at which requests come, the time each executes, and what is there now:
`wait` weighs the chance of a miss against an agent's cost, `peak` keeps what bursts of the last half minute
needed, `lasting` keeps what a load that is new needs, `backlog` works off a queue that has formed.
"""

import math
from dataclasses import dataclass, replace

from appliance.policies.demand import Demand, estimate_rate

#: From a decision to the next one; an agent ordered now serves what comes half of it and its start later.
TICK_S = 2.0
#: Bursts are looked for in spans of these lengths.
SPANS_S = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 60.0)
#: A burst that just begins is seen in the shortest, as far back as there was a look.
BURST_SPANS_S = (0.5, 1.0, *SPANS_S[:2])
#: What comes for so long is no burst.
LASTS_S = 12.0
#: A backlog is worked off in so many seconds, once agents are there.
DRAIN_S = 1.0
#: It counts as one from this part of the acceptable wait on.
BACKLOG_AT = 0.7
#: Planned is with this part of the acceptable wait; the rest is for what no estimate sees.
PLANNED_PART = 0.9
#: However little comes, that every request misses is as bad as so many agents more.
LEAST_WORTH = 2.5
#: A request that finds no agent at all misses for sure, and waits the longest: as bad as so many misses.
COLD_MISSES = 1.5
#: Executing times are unknown until the first answer.
UNKNOWN_SERVICE_S = 0.5
#: Above it the Poisson distribution is as good as normal.
_NORMAL_FROM = 200.0


@dataclass(frozen=True, slots=True)
class Queueing:
    """What the rules look at. A server is a slot; `lead_s` is how long a new agent is in coming.

    `rate_rps` is expected `lead_s` from now, `mean_rps` is of the past; `service_s` of one request;
    `wait_s` is what a request may wait.
    """

    rate_rps: float
    mean_rps: float
    service_s: float
    in_system: int
    slots: float
    wait_s: float
    lead_s: float
    miss_cost_s: float


def observe_queueing(
    demand: Demand,
    now: float,
    *,
    in_system: int,
    slots: float,
    slo_wait_s: float,
    start_s: float,
    miss_cost_s: float,
) -> Queueing | None:
    """The picture at `now`; None where too little is known."""
    known = estimate_rate(demand, now)
    if known is None:
        return None
    mean_rps, slope, length_s = known
    lead_s = start_s + TICK_S / 2
    # The mean is that of the window's middle; a trend carries it on to when a new agent serves.
    rate_rps = max(0.0, mean_rps + slope * (length_s / 2 + lead_s))
    service_s = max(demand.service_s or UNKNOWN_SERVICE_S, 1e-3)
    return Queueing(
        rate_rps, mean_rps, service_s, in_system, slots, PLANNED_PART * slo_wait_s, lead_s, miss_cost_s
    )


def agents_for_wait(seen: Queueing, most: int) -> int:
    """So many that they and the misses that are left cost the least.

    With 10 requests a second of 0.5 s, a miss after 2 s, and 70 agent-seconds a miss: 5 slots are busy in the
    mean; a seventh saves misses worth 7 agents, an eighth such worth an eighth of one: seven.
    """
    load = seen.rate_rps * seen.service_s
    if not seen.in_system and COLD_MISSES * seen.miss_cost_s * seen.rate_rps <= 1:
        return 0
    chance = MissChance(seen)
    # A wait weighs less on a request that takes long anyway.
    weight = min(1.0, seen.wait_s / seen.service_s)
    worth = LEAST_WORTH + weight * seen.miss_cost_s * seen.rate_rps
    # Agents that execute what will still be there cost nothing more: they could not stop sooner.
    best = agents = min(most, max(1, int(load / seen.slots), int(chance.staying / seen.slots)))
    best_cost = agents + worth * chance.of(agents * seen.slots)
    # More cannot save more than all misses that are left.
    while agents < most and worth * chance.of(agents * seen.slots) > 1:
        agents += 1
        cost = agents + worth * chance.of(agents * seen.slots)
        if cost < best_cost:
            best, best_cost = agents, cost
    return best


def servers_for_peak(demand: Demand, now: float, seen: Queueing) -> float:
    """So many slots that what came in no span of the last minute would have waited too long.

    Ten requests of one second within two seconds, 2 s of waiting allowed: 10 / (2 + 2 + 1) = 2.
    """
    needs = (
        count * seen.service_s / (length_s + seen.wait_s + seen.service_s)
        for count, length_s in (demand.arrived(now, span_s) for span_s in SPANS_S)
        if length_s > 0
    )
    return max(needs, default=0.0)


def servers_for_backlog(demand: Demand, now: float, seen: Queueing, *, queued: int, ready: int) -> float:
    """So many slots that a queue, and what will have joined it before agents come, is soon worked off.

    0.0 where nothing waits for long, or where it goes away sooner than an agent comes.
    """
    ready_slots = max(1.0, ready * seen.slots)
    if queued * seen.service_s / ready_slots <= BACKLOG_AT * seen.wait_s:
        return 0.0
    rate_rps = seen.mean_rps
    for span_s in BURST_SPANS_S:
        count, length_s = demand.arrived(now, span_s)
        if length_s > 0:  # what is surely more than chance
            rate_rps = max(rate_rps, (count - math.sqrt(count)) / length_s)
    lead_s = seen.lead_s + TICK_S / 2
    backlog_s = queued * seen.service_s + lead_s * (rate_rps * seen.service_s - ready * seen.slots)
    if backlog_s <= 0:
        return 0.0
    wanted = rate_rps * seen.service_s + backlog_s / (DRAIN_S + seen.service_s)
    return min(wanted, seen.in_system + rate_rps * lead_s)


def agents_for_lasting(demand: Demand, now: float, seen: Queueing, current: int) -> int:
    """So many of the present ones that they carry what has come of late, as far as that is no chance.

    The mean of a minute in which 64 a second came for the last twenty seconds, and nothing before, is 21.
    0 where that mean says as much. More than there are is for the rules that look ahead.
    """
    count, length_s = demand.arrived(now, LASTS_S)
    lately_rps = (count - math.sqrt(count)) / length_s if length_s > 0 else 0.0
    if lately_rps <= seen.rate_rps:
        return 0
    return agents_for_wait(replace(seen, rate_rps=lately_rps, in_system=0), current)


class MissChance:
    """The chance that a request waits too long, by number of slots.

    What is there now stays with the chance of an exponential time, what comes is Poisson: their sum at
    `lead_s` is taken as a Poisson number shifted to have the same mean and variance.
    """

    def __init__(self, seen: Queueing) -> None:
        self._seen = seen
        self._load = seen.rate_rps * seen.service_s
        stays = math.exp(-seen.lead_s / seen.service_s)
        self._piles_up = self._load * (1 - stays)
        self._variance = seen.in_system * stays * (1 - stays) + self._piles_up
        self.staying = seen.in_system * stays
        self._shift = seen.in_system * stays + self._piles_up - self._variance
        self._below = [0.0]
        self._term = math.exp(-self._variance) if self._variance <= _NORMAL_FROM else 0.0

    def of(self, slots: float) -> float:
        """All are busy, and no slot comes free in time; 1.0 where they cannot keep up at all."""
        if slots <= self._load:
            return 1.0
        over = max(0.0, slots - self._piles_up)
        return self._all_busy(slots) * math.exp(-over * self._seen.wait_s / self._seen.service_s)

    def _all_busy(self, slots: float) -> float:
        number = slots - self._shift
        if self._variance > _NORMAL_FROM:
            deviations = (number - 0.5 - self._variance) / math.sqrt(self._variance)
            return 0.5 * math.erfc(deviations / math.sqrt(2))
        whole = math.floor(number)
        part = number - whole
        return (1 - part) * self._at_least(whole) + part * self._at_least(whole + 1)

    def _at_least(self, number: int) -> float:
        if number <= 0:
            return 1.0
        while len(self._below) <= number:
            self._below.append(self._below[-1] + self._term)
            self._term *= self._variance / (len(self._below) - 1)
        return max(0.0, 1.0 - self._below[number])

"""Queue, drain rate and admission together, in virtual time: what is left of capacity under overload."""

import heapq
import random
from collections import Counter
from dataclasses import dataclass

import pytest

from appliance.gateway.drain import Drain
from appliance.gateway.overload import find_hopeless
from appliance.gateway.wait_queue import HIGH, LOW, NORMAL, WaitQueue

SLOTS = 4
SERVICE_S = 0.02
CAPACITY = SLOTS / SERVICE_S
TICK_S = 0.1


@dataclass(eq=False)
class Item:
    """A request."""

    key: str
    priority: int
    at: float
    deadline_at: float
    work: float = 10.0


class Gateway:
    """Slots that take the same time for each request, behind the gateway's own queue."""

    def __init__(self, limit):
        self.queue, self.drain = WaitQueue(limit), Drain(0.0)
        self.busy = []
        self.ends = Counter()
        self.ticked = 0.0

    def come(self, item):
        self.advance(item.at)
        if not self.queue and len(self.busy) < SLOTS:
            self.send(item, item.at)
        elif find_hopeless(self.queue, self.drain, item, item.deadline_at - item.at):
            self.ends[item.key, "refused"] += 1
        else:
            pushed_out = self.queue.offer(item)
            for loser in [item] if pushed_out is None else pushed_out:
                self.ends[loser.key, "refused"] += 1

    def send(self, item, now):
        heapq.heappush(self.busy, (now + SERVICE_S, id(item), item, now))

    def advance(self, now):
        while self.busy and self.busy[0][0] <= now:
            done_at, _, item, sent_at = heapq.heappop(self.busy)
            self.tick(done_at)
            self.drain.finish(item.work, done_at - sent_at, item.priority)
            self.ends[item.key, "in time" if done_at <= item.deadline_at else "late"] += 1
            while self.queue and len(self.busy) < SLOTS:
                following = self.queue.head()
                if following.deadline_at <= done_at + self.drain.quick_s:
                    self.queue.remove(following)
                    self.ends[following.key, "expired"] += 1
                else:
                    self.queue.take(following)
                    self.send(following, done_at)
        self.tick(now)

    def tick(self, now):
        while now - self.ticked >= TICK_S:
            self.ticked += TICK_S
            self.drain.tick(self.ticked, SLOTS, waiting=bool(self.queue))


def run(rates, *, deadline_s, limit=1000, for_s=20.0):
    """Poisson arrivals of `{(key, priority): per second}`; how those of each key ended, per second."""
    chance, arrivals = random.Random(7), []
    for (name, priority), rate in rates.items():
        at = chance.expovariate(rate)
        while at < for_s:
            arrivals.append(Item(name, priority, at, at + deadline_s))
            at += chance.expovariate(rate)
    gateway = Gateway(limit)
    for item in sorted(arrivals, key=lambda item: item.at):
        gateway.come(item)
    gateway.advance(for_s + 100)
    assert sum(gateway.ends.values()) == len(arrivals)
    return {key: count / for_s for key, count in gateway.ends.items()}


def total(ends, how):
    return sum(count for (_, end), count in ends.items() if end == how)


@pytest.mark.parametrize("deadline_s", [0.2, 1.0, 5.0])
def test_goodput_at_three_times_the_capacity(deadline_s):
    """At least 95 % of capacity is answered in time, nothing is computed for nobody, few wait in vain."""
    ends = run({("a", NORMAL): 3 * CAPACITY}, deadline_s=deadline_s)
    assert total(ends, "in time") >= 0.95 * CAPACITY
    assert total(ends, "late") == 0
    assert total(ends, "expired") <= 0.1 * CAPACITY


@pytest.mark.slow
def test_a_greedy_key_gets_its_share_and_what_others_leave():
    """Equal to one that asks for more than half; all but the rest where another asks for little."""
    ends = run({("greedy", NORMAL): 3 * CAPACITY, ("other", NORMAL): 0.8 * CAPACITY}, deadline_s=1.0)
    assert ends["greedy", "in time"] == pytest.approx(CAPACITY / 2, rel=0.1)
    assert ends["other", "in time"] == pytest.approx(CAPACITY / 2, rel=0.1)
    ends = run({("greedy", NORMAL): 3 * CAPACITY, ("other", NORMAL): 0.2 * CAPACITY}, deadline_s=1.0)
    assert ends["other", "in time"] >= 0.19 * CAPACITY
    assert ends.get(("other", "refused"), 0) == 0


@pytest.mark.parametrize("limit", [10, 1000])
def test_high_priority_is_untouched(limit):
    """However long the queue may be, and whatever the others ask."""
    rates = {("h", HIGH): 0.3 * CAPACITY, ("n", NORMAL): 2 * CAPACITY, ("l", LOW): CAPACITY}
    ends = run(rates, deadline_s=1.0, limit=limit)
    assert {end for key, end in ends if key == "h"} == {"in time"}
    assert total(ends, "in time") >= 0.9 * CAPACITY
    assert ends.get(("l", "in time"), 0) < 0.1 * CAPACITY


def test_nobody_is_refused_below_capacity():
    """At 80 % all are answered in time."""
    ends = run({("a", NORMAL): 0.8 * CAPACITY}, deadline_s=1.0)
    assert {end for _, end in ends} == {"in time"}

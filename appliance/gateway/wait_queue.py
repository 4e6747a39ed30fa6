"""Requests that wait for an agent: by priority, then fairly among keys, then by deadline. Pure.

Each class of priority is served before the next one. Within a class the keys take turns by work
(start-time fair queueing): a key's next turn comes after as much virtual time as its last one
had work, so that of two keys which both wait none is ever ahead by more than one request of each.
Within a key the earliest deadline is first. All steps take O(log n); what leaves from the middle
is skipped later.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from heapq import heappop, heappush, heapreplace
from typing import Final, Generic, Protocol, TypeVar

HIGH: Final = 0
NORMAL: Final = 1
LOW: Final = 2
PRIORITIES: Final = (HIGH, NORMAL, LOW)

#: Lists and tables may hold this many entries of what is gone, and as many again as of what is there.
_SLACK: Final = 32

#: What is known of a key's share of the turns: its last turn makes up so much of it.
_TURN_WEIGHT: Final = 0.05


class Waiting(Hashable, Protocol):
    """What may wait. None of these changes while it does; `work` is over 0, in tokens."""

    @property
    def priority(self) -> int: ...

    @property
    def key(self) -> str: ...

    @property
    def work(self) -> float: ...

    @property
    def deadline_at(self) -> float: ...


Item = TypeVar("Item", bound=Waiting)


class _Flow(Generic[Item]):
    """What waits of one key in one class; `start` is the virtual time of its next turn.

    `seen` is how much its class had been served when it began to wait, or had its last turn.
    `by_deadline` is sorted from `head` on and may name items that are gone. Deadlines mostly
    come in order, so that an addition is an append.
    """

    __slots__ = ("by_deadline", "head", "items", "lined_up", "meanwhile", "seen", "start", "turns", "work")

    def __init__(self, start: float) -> None:
        self.items: OrderedDict[Item, int] = OrderedDict()
        self.by_deadline: list[tuple[float, int, Item]] = []
        self.head = 0
        self.work = 0.0
        self.start = start
        self.lined_up = False
        self.seen = self.turns = self.meanwhile = 0.0

    def have_turn(self, work: float, served: float) -> None:
        """It is served `work`; `served` is all that its class was, this included."""
        self.start += work
        self.turns += _TURN_WEIGHT * (work - self.turns)
        self.meanwhile += _TURN_WEIGHT * (served - self.seen - self.meanwhile)
        self.seen = served

    def spread(self) -> float:
        """So many times its own work its class is served while it waits, by its last turns; at least 1."""
        return max(1.0, self.meanwhile / self.turns) if self.turns else 1.0

    def add(self, item: Item, number: int) -> None:
        self.items[item] = number
        self.work += item.work
        entry = (item.deadline_at, number, item)
        entries = self.by_deadline
        if not entries or entries[-1] < entry:
            entries.append(entry)
        else:
            insort(entries, entry, self.head)

    def drop(self, item: Item) -> None:
        items, entries = self.items, self.by_deadline
        del items[item]
        if not items:
            entries.clear()
            self.head = 0
            self.work = 0.0
            return
        self.work -= item.work
        if entries[self.head][2] is item:
            self.head += 1
        if len(entries) > 2 * len(items) + _SLACK:
            self.by_deadline = [entry for entry in entries[self.head :] if items.get(entry[2]) == entry[1]]
            self.head = 0

    def first(self) -> Item:
        """The one with the earliest deadline. There must be one."""
        entries, items = self.by_deadline, self.items
        while items.get(entries[self.head][2]) != entries[self.head][1]:
            self.head += 1
        return entries[self.head][2]


class _Lane(Generic[Item]):
    """One class of priority: what came back, and the keys' turns.

    A key's place in `line` may be by a turn that it has had since; `next_flow` puts that right.
    """

    __slots__ = (
        "count", "flows", "line", "most_flows", "now", "returned", "served", "waiting_flows", "work",
    )  # fmt: skip

    def __init__(self) -> None:
        self.returned: OrderedDict[Item, None] = OrderedDict()
        self.flows: dict[str, _Flow[Item]] = {}
        self.line: list[tuple[float, int, _Flow[Item]]] = []
        self.now = 0.0
        self.count = self.waiting_flows = 0
        self.most_flows = _SLACK
        self.work = self.served = 0.0

    def add(self, item: Item, number: int) -> None:
        flow = self.flows.get(item.key)
        if flow is None:
            flow = self.flows[item.key] = _Flow(0.0)
        if not flow.items:
            self.waiting_flows += 1
            flow.seen = self.served
            if not flow.lined_up:
                flow.lined_up = True
                self.next_flow()  # the time is that of the next turn
                flow.start = max(flow.start, self.now)
                heappush(self.line, (flow.start, number, flow))
        flow.add(item, number)
        self.count += 1
        self.work += item.work

    def next_flow(self) -> _Flow[Item] | None:
        """The key whose turn it is, None where none waits."""
        line = self.line
        while line:
            start, number, flow = line[0]
            if not flow.items:
                heappop(line)
                flow.lined_up = False
            elif flow.start != start:
                heapreplace(line, (flow.start, number, flow))
            else:
                self.now = start
                return flow
        return None

    def drop(self, item: Item) -> None:
        flow = self.flows[item.key]
        flow.drop(item)
        self.count -= 1
        self.work -= item.work
        if not flow.items:
            self.waiting_flows -= 1
            if not self.count:  # nobody waits: nobody is ahead of anybody
                self.flows.clear()
                self.line.clear()
                self.work = self.now = self.served = 0.0

    def charge(self, item: Item) -> None:
        """The key of an item that is here has its turn with it."""
        self.served += item.work
        self.flows[item.key].have_turn(item.work, self.served)
        if len(self.flows) > self.most_flows:
            self._forget()

    def _forget(self) -> None:
        """Let go of keys that do not wait and owe nothing any more."""
        owing = {k: f for k, f in self.flows.items() if f.items or f.lined_up or f.start > self.now}
        self.flows = owing
        self.most_flows = 2 * len(owing) + _SLACK

    def holds(self, item: Item) -> bool:
        flow = self.flows.get(item.key)
        return flow is not None and item in flow.items


class WaitQueue(Generic[Item]):
    """A queue bounded by count and by work. What was let in once comes back whatever the bounds.

    It holds at least one item, however large its work. When it is full, an item of higher
    priority takes the place of the newest of lower ones, and an item of a key that has less
    than its share in the queue takes the place of the newest of the key that has most.
    """

    __slots__ = ("_back", "_lanes", "_number", "_returned_work", "_size", "limit", "limit_work")

    def __init__(self, limit: int, limit_work: float = float("inf")) -> None:
        self.limit = limit
        self.limit_work = limit_work
        self._lanes: tuple[_Lane[Item], ...] = tuple(_Lane() for _ in PRIORITIES)
        self._number = self._size = self._back = 0
        self._returned_work = 0.0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Item]:
        """All items in no order. The queue must not change while it is walked."""
        for lane in self._lanes:
            yield from lane.returned
            for flow in lane.flows.values():
                yield from flow.items

    def __contains__(self, item: Item) -> bool:
        lane = self._lanes[item.priority]
        return item in lane.returned or lane.holds(item)

    @property
    def work(self) -> float:
        """The work of all that waits, in tokens."""
        high, normal, low = self._lanes
        return high.work + normal.work + low.work + self._returned_work

    def offer(self, item: Item) -> Sequence[Item] | None:
        """Let an item in; None where there is no place for it, else those that lost theirs to it."""
        pushed_out: Sequence[Item] = ()
        count, work = self._size, self.work
        if count and (count >= self.limit or work + item.work > self.limit_work):
            found = self._find_room(item, work)
            if found is None:
                return None
            pushed_out = found
            for loser in pushed_out:
                self.remove(loser)
        elif self.limit <= 0:
            return None
        self._number += 1
        self._size += 1
        self._lanes[item.priority].add(item, self._number)
        return pushed_out

    def put_back(self, item: Item) -> None:
        """Put an item at the head of its class."""
        self._size += 1
        self._back += 1
        returned = self._lanes[item.priority].returned
        returned[item] = None
        returned.move_to_end(item, last=False)
        self._returned_work += item.work

    @property
    def only_returned(self) -> bool:
        """Whether all that waits came back: what is new may pass those that must avoid an agent."""
        return self._size == self._back

    def head(self) -> Item:
        """The first of the candidates. Raises IndexError where nothing waits."""
        for lane in self._lanes:
            if lane.returned:
                return next(iter(lane.returned))
            if lane.count:
                flow = lane.next_flow()
                assert flow is not None
                return flow.first()
        raise IndexError("nothing waits")

    def candidates(self) -> Iterator[Item]:
        """What may be taken next, the best first: all that came back, and the next one of each class.

        The queue must not change while it is walked.
        """
        for lane in self._lanes:
            if lane.returned:
                yield from lane.returned
            if lane.count:
                flow = lane.next_flow()
                assert flow is not None
                yield flow.first()

    def take(self, item: Item) -> None:
        """Take an item out to serve it, wherever it stands: its key has had a turn."""
        lane = self._lanes[item.priority]
        if lane.returned and item in lane.returned:
            self.remove(item)
        else:
            lane.charge(item)
            lane.drop(item)
            self._size -= 1

    def remove(self, item: Item) -> None:
        """Take an item out, wherever it stands. Raises KeyError where it is not here."""
        lane = self._lanes[item.priority]
        if lane.returned and item in lane.returned:
            del lane.returned[item]
            self._back -= 1
            self._returned_work = self._returned_work - item.work if self._back else 0.0
        else:
            lane.drop(item)
        self._size -= 1

    def work_ahead(self, item: Item) -> float:
        """The work that will be taken before an item that is not here yet.

        That is what is here and goes first; and where a key waits behind its own, what others bring
        meanwhile, if they go on as they did between its last turns. Worked numbers: a key with nothing
        here asks for 10 tokens; of nine keys that wait with 1,000 each, no more than 90 tokens go
        first. One that had every fourth turn, and has 300 tokens here, waits for 1,230.
        """
        ahead = self._returned_work
        for lane in self._lanes[: item.priority]:
            ahead += lane.work
        lane = self._lanes[item.priority]
        flow = lane.flows.get(item.key)
        if flow is None or not flow.items:
            return ahead + min(lane.work, lane.waiting_flows * item.work)
        own = 0.0 if item.deadline_at < flow.first().deadline_at else flow.work
        others = min(lane.work - flow.work, (lane.waiting_flows - 1) * (own + item.work))
        return ahead + max(own + others, (own + item.work) * flow.spread() - item.work)

    def work_until(self, priority: int) -> float:
        """The work of what waits in this class and those before it, in tokens."""
        return self._returned_work + sum(lane.work for lane in self._lanes[: priority + 1])

    def _find_room(self, item: Item, work: float) -> list[Item] | None:
        """Whose places an item may take in the full queue: as few as needed, None where it may not."""
        places = 1 if self._size >= self.limit else 0  # not more, though what came back may be over the bound
        tokens = min(item.work, work + item.work - self.limit_work)
        losers: list[Item] = []
        for lane in reversed(self._lanes[item.priority + 1 :]):
            if lane.count and (places > 0 or tokens > 0):
                for loser in _newest(lane):
                    losers.append(loser)
                    places, tokens = places - 1, tokens - loser.work
                    if places <= 0 and tokens <= 0:
                        return losers
        greedy = self._find_greedy(item)
        if greedy is not None and places <= 1 and tokens <= greedy.work:
            return [*losers, greedy]
        return None

    def _find_greedy(self, item: Item) -> Item | None:
        """The newest of the key with most work, where that key then still has as much as the item's key."""
        lane = self._lanes[item.priority]
        own = lane.flows.get(item.key)
        own_work = item.work + (own.work if own is not None else 0.0)
        if own_work > lane.work / max(1, lane.waiting_flows):
            return None  # it has its share: spares the search, for refusing must be cheap
        flow = max(lane.flows.values(), key=lambda flow: flow.work)
        loser = next(reversed(flow.items))
        return loser if flow.work - loser.work >= own_work else None


def _newest(lane: _Lane[Item]) -> Iterator[Item]:
    """The newest of the key with most work, then the rest of that key's, then the other keys'."""
    flows = list(lane.flows.values())
    while flows:
        flow = max(flows, key=lambda flow: flow.work)
        yield from reversed(flow.items)
        flows.remove(flow)

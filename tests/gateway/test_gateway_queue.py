"""The queue's order, bounds and fairness, and how fast it is told to drain: no loop, no socket."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.protocol import AgentState, LoadReport
from appliance.gateway.drain import DEFAULT_TOKENS_PER_BYTE, Drain
from appliance.gateway.overload import bound_retry, describe_full, find_hopeless
from appliance.gateway.wait_queue import HIGH, LOW, NORMAL, WaitQueue


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """What waits."""

    name: str
    key: str = "k"
    priority: int = NORMAL
    work: float = 1.0
    deadline_at: float = 100.0

    def __repr__(self):
        return self.name


def first(queue):
    head = queue.head()
    assert next(queue.candidates()) is head
    return head


def drain_all(queue):
    """Everything in the order in which it is taken."""
    taken = []
    while queue:
        taken.append(first(queue))
        queue.take(taken[-1])
    return taken


def names(items):
    return [item.name for item in items]


def filled(*items, limit=1000, limit_work=float("inf")):
    queue = WaitQueue(limit, limit_work)
    for item in items:
        assert queue.offer(item) == ()
    return queue


def test_order_bound_and_removal():
    """First in, first out among equals; back at the head whatever the bound; out from anywhere."""
    a, b, c, d, y, z = (Item(name) for name in "abcdyz")
    queue = filled(a, b, c, limit=3)
    assert queue.offer(d) is None
    queue.remove(b)
    queue.put_back(z)
    queue.put_back(y)
    assert (first(queue), len(queue), b in queue, c in queue, z in queue) == (y, 4, False, True, True)
    assert names(drain_all(queue)) == ["y", "z", "a", "c"]
    assert (len(queue), queue.work, list(queue)) == (0, 0.0, [])
    with pytest.raises(KeyError):
        queue.remove(a)
    with pytest.raises(IndexError, match="nothing waits"):
        queue.head()


def test_classes_are_served_one_after_the_other():
    """High before normal before low; what came back is the first of its class, not of all."""
    queue = filled(Item("l", priority=LOW), Item("n"), Item("h", priority=HIGH))
    queue.put_back(Item("back", priority=LOW))
    assert names(queue.candidates()) == ["h", "n", "back", "l"]
    assert names(drain_all(queue)) == ["h", "n", "back", "l"]


def test_deadlines_order_what_a_key_has_waiting():
    """The earliest first, whatever the order of arrival; leavers are passed over."""
    items = [Item(f"{at}", deadline_at=at) for at in (5, 3, 9, 1, 7)]
    queue = filled(*items)
    queue.remove(items[3])
    assert names(drain_all(queue)) == ["3", "5", "7", "9"]


def test_a_greedy_key_does_not_delay_another():
    """A key that comes to a long queue of one other is served at every second turn."""
    queue = filled(*(Item(f"g{n}", key="greedy") for n in range(100)))
    queue.take(first(queue))
    for n in range(3):
        queue.offer(Item(f"m{n}", key="modest"))
    order = names(drain_all(queue))
    assert [order.index(f"m{n}") for n in range(3)] <= [2, 4, 6]


def test_turns_are_by_work_not_by_count():
    """A key of large requests gets as many tokens as one of small ones."""
    queue = filled(
        *(Item("big", key="a", work=10.0) for _ in range(10)), *(Item("s", key="b") for _ in range(100))
    )
    taken = [queue_take(queue) for _ in range(55)]
    assert sum(item.work for item in taken if item.key == "a") == pytest.approx(50, abs=10)


def queue_take(queue):
    item = first(queue)
    queue.take(item)
    return item


OFFERS = st.tuples(
    st.just("offer"), st.sampled_from("abcd"), st.sampled_from([HIGH, NORMAL, LOW]),
    st.integers(1, 20), st.integers(0, 30),
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        OFFERS,
        OFFERS,
        st.tuples(st.just("take")),
        st.tuples(st.just("leave"), st.integers(0, 100)),
        st.tuples(st.just("back"), st.integers(0, 100)),
    ),
    max_size=150,
)


@pytest.mark.slow
@settings(max_examples=150)
@given(STEPS)
def test_nothing_is_lost_or_doubled(steps):
    """Offered = taken + left + pushed out + here, at each step; counts, work and bounds are true."""
    queue, here, taken = WaitQueue(12, 120.0), [], []
    for number, (kind, *rest) in enumerate(steps):
        if kind == "offer":
            key, priority, work, deadline_at = rest
            item = Item(str(number), key, priority, float(work), float(deadline_at))
            back = sum(1 for one in here if one in taken)
            pushed_out = queue.offer(item)
            if pushed_out is not None:
                here = [one for one in here if one not in pushed_out] + [item]
                assert all(one.priority >= priority and one not in taken for one in pushed_out)
                assert len(queue) <= max(12, back + 1)
        elif kind == "take" and here:
            item = first(queue)
            assert item.priority == min(one.priority for one in here)
            queue.take(item)
            here.remove(item)
            taken.append(item)
        elif kind == "leave" and here:
            queue.remove(here.pop(rest[0] % len(here)))
        elif kind == "back" and taken and taken[rest[0] % len(taken)] not in here:
            here.append(taken[rest[0] % len(taken)])
            queue.put_back(here[-1])
        assert len(queue) == len(here)
        assert bool(queue) == bool(here)
        assert set(queue) == set(here)
        assert queue.only_returned == all(item in taken for item in here)
        assert queue.work == pytest.approx(sum(item.work for item in here))
        assert all(item in queue for item in here)
    assert len(drain_all(queue)) == len(here)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 20)), min_size=1, max_size=120),
    st.integers(0, 60),
)
def test_no_key_gets_ahead_of_another_that_waits(requests, newcomers_after):
    """While two keys both wait, their work taken differs by no more than the largest request of each."""
    queue = WaitQueue(1000)
    for number, (key, work) in enumerate(requests):
        queue.offer(Item(str(number), key, work=float(work)))
    waits = {key: [] for key in "abc"}
    step = 0
    while queue:
        waiting = {one.key for one in queue}
        item = queue_take(queue)
        for key in "abc":
            waits[key].append((item.work if item.key == key else 0.0, key in waiting))
        step += 1
        if step == newcomers_after:
            queue.offer(Item("new", "a", work=5.0))
    largest = {key: max([work for k, work in requests if k == key] + [5.0]) for key in "abc"}
    for one, other in ("ab", "bc", "ac"):
        apart = 0.0
        low = high = 0.0
        for (mine, here), (theirs, there) in zip(waits[one], waits[other], strict=True):
            if not (here and there):
                apart = low = high = 0.0
                continue
            apart += mine - theirs
            low, high = min(low, apart), max(high, apart)
            assert high - low <= largest[one] + largest[other] + 1e-6


def test_a_full_queue_gives_the_place_of_the_newest_low_one_to_a_higher():
    """Never that of an equal or a higher one, nor of one that came back."""
    low = [Item(f"l{n}", priority=LOW) for n in range(2)]
    queue = filled(Item("n"), *low, limit=3)
    assert queue.offer(Item("l2", priority=LOW)) is None
    assert names(queue.offer(Item("h", priority=HIGH))) == ["l1"]
    assert names(queue.offer(Item("n2"))) == ["l0"]
    assert queue.offer(Item("n3")) is None
    queue.put_back(Item("back", priority=LOW))
    assert names(queue.offer(Item("h2", priority=HIGH))) == ["n2"]


def test_work_bounds_the_queue_too():
    """A large request needs the place of several small ones, or finds none; alone it always fits."""
    queue = filled(*(Item(f"l{n}", priority=LOW, work=30.0) for n in range(3)), limit_work=100.0)
    assert queue.offer(Item("l3", priority=LOW, work=30.0)) is None
    assert names(queue.offer(Item("h", priority=HIGH, work=60.0))) == ["l2", "l1"]
    assert queue.offer(Item("h2", priority=HIGH, work=80.0)) is None
    assert len(queue) == 2
    assert WaitQueue(10, 1.0).offer(Item("huge", work=1e6)) == ()
    assert WaitQueue(0).offer(Item("a")) is None


def test_a_full_queue_has_room_for_a_key_with_less_than_its_share():
    """The greedy key's newest goes; a key that has its share gets no more."""
    queue = filled(*(Item(f"g{n}", key="greedy") for n in range(10)), limit=10)
    pushed_out = [queue.offer(Item(f"m{n}", key="modest")) for n in range(6)]
    assert [names(p) if p is not None else None for p in pushed_out] == [
        ["g9"], ["g8"], ["g7"], ["g6"], ["g5"], None,
    ]  # fmt: skip
    assert queue.offer(Item("g", key="greedy")) is None


def test_keys_that_do_not_wait_are_forgotten():
    """However many keys come by, what is kept is bounded by those that wait."""
    queue = filled(*(Item(f"stay{n}", key="stay") for n in range(3000)), limit=9000)
    for number in range(2000):
        queue.offer(Item(f"{number}", key=f"k{number}"))
        queue.take(first(queue))
        queue.take(first(queue))
    [lane] = [lane for lane in queue._lanes if lane.flows]
    assert len(lane.flows) < 100
    for number in range(5000):
        item = Item(f"again{number}", key="stay")
        queue.offer(item)
        queue.remove(item)
    assert len(lane.flows["stay"].by_deadline) < 5000


def test_work_ahead_of_a_modest_key_is_bounded_by_its_own():
    """Higher classes wholly, its own class by turns; an early deadline passes its key's others."""
    queue = filled(*(Item(f"{k}{n}", key=k, work=100.0) for k in "abc" for n in range(10)))
    assert queue.work_ahead(Item("x", key="new", work=10.0)) == 30.0
    assert queue.work_ahead(Item("x", key="a", work=100.0)) == 3000.0
    assert queue.work_ahead(Item("x", key="a", work=100.0, deadline_at=1.0)) == 200.0
    assert queue.work_ahead(Item("x", priority=HIGH)) == 0.0
    assert queue.work_ahead(Item("x", priority=LOW)) == 3000.0
    assert queue.work_until(HIGH) == 0.0


def test_work_ahead_of_a_greedy_key_counts_what_others_will_bring():
    """One that had every fourth turn waits for four times its own, though nothing else is here now."""
    queue = filled(*(Item(f"g{n}", key="greedy", work=10.0) for n in range(200)))
    for number in range(100):
        for key in "abc":
            queue.offer(Item(f"{key}{number}", key=key, work=10.0))
        for _ in "abcg":
            queue.take(first(queue))
    item = Item("x", key="greedy", work=10.0)
    assert queue.work_ahead(item) == pytest.approx(4 * 1010 - 10, rel=0.02)
    for _ in range(99):
        queue.take(first(queue))
    assert queue.work_ahead(item) == pytest.approx(10, rel=0.2)


def load(**changes):
    zeros = {field.name: 0 for field in dataclasses.fields(LoadReport)}
    return LoadReport(**{**zeros, "agent": "a", "deployment": "mini", "state": AgentState.READY, **changes})


def run_drain(drain, *, until_s, work=10.0, every_s=0.01, slots=2, waiting=True, begin_s=0.0):
    """Answers at an even pace with a tick each 100 ms."""
    now, answered, ticked = begin_s, begin_s, begin_s
    while now < until_s:
        now = round(now + 0.001, 6)
        if now - answered >= every_s - 1e-9:
            answered = now
            drain.finish(work, 0.02, NORMAL)
        if now - ticked >= 0.1 - 1e-9:
            ticked = now
            drain.tick(now, slots, waiting=waiting)


def test_drain_is_measured_while_work_waits():
    """1,000 tokens a second with two slots; a third slot is counted from its first tick."""
    drain = Drain(0.0)
    assert drain.wait_s(1000.0, NORMAL) is None
    run_drain(drain, until_s=2.0)
    assert drain.wait_s(1000.0, NORMAL) == pytest.approx(1.0, rel=0.1)
    assert drain.service_s == pytest.approx(0.02)
    drain.tick(2.1, 4, waiting=True)
    assert drain.wait_s(1000.0, NORMAL) == pytest.approx(0.5, rel=0.15)
    drain.tick(2.2, 0, waiting=True)
    assert drain.wait_s(1000.0, NORMAL) is None


def test_drain_does_not_take_little_demand_for_little_speed():
    """Without a queue nothing is learnt; what was learnt stays."""
    drain = Drain(0.0)
    run_drain(drain, until_s=2.0, waiting=False)
    assert drain.wait_s(1.0, NORMAL) is None
    run_drain(drain, until_s=4.0, begin_s=2.0)
    before = drain.wait_s(1000.0, NORMAL)
    run_drain(drain, until_s=8.0, begin_s=4.0, every_s=0.5, waiting=False)
    assert drain.wait_s(1000.0, NORMAL) == before


def test_drain_of_slow_agents_is_measured_over_longer():
    """One answer in two seconds is no zero in between."""
    drain = Drain(0.0)
    run_drain(drain, until_s=12.0, every_s=2.0, work=100.0)
    assert drain.wait_s(100.0, NORMAL) == pytest.approx(2.0, rel=0.3)


def test_work_is_estimated_by_what_agents_report():
    """A default until one has computed something; then tokens per byte as told."""
    drain = Drain(0.0)
    drain.hear(load())
    assert drain.estimate(400) == 400 * DEFAULT_TOKENS_PER_BYTE
    for _ in range(30):
        drain.hear(load(tokens_total=100, body_bytes_total=1000))
    assert drain.estimate(400) == pytest.approx(40, rel=0.01)
    assert drain.estimate(1) == 1.0


def test_who_would_miss_the_deadline_is_told_when_to_come_back():
    """By the rate measured; where none is, everybody may wait."""
    drain = Drain(0.0)
    queue = filled(*(Item(f"{n}", work=100.0) for n in range(100)))
    item = Item("x", work=100.0)
    assert find_hopeless(queue, drain, item, 0.001) is None
    run_drain(drain, until_s=2.0)
    refused = find_hopeless(queue, drain, item, 2.0)
    headers = dict(refused.headers())
    assert (refused.status, refused.code) == (429, "overloaded")
    assert int(headers[b"retry-after-ms"]) == pytest.approx(8200, rel=0.15)
    assert 8 <= int(headers[b"retry-after"]) <= 10
    assert headers[b"x-should-retry"] == b"true"
    assert find_hopeless(queue, drain, item, 60.0) is None
    assert find_hopeless(queue, drain, Item("h", priority=HIGH), 2.0) is None
    queue.limit = 100
    full = describe_full("mini", queue, drain, NORMAL)
    assert json.loads(full.body())["error"]["message"] == "as much waits for 'mini' as may: 100 requests"
    assert dict(full.headers())[b"retry-after"] in (b"9", b"10", b"11")


@pytest.mark.parametrize(("wait_s", "told_s"), [(None, 1.0), (0.0, 1.0), (12.5, 12.5), (1e9, 60.0)])
def test_retry_after_is_bounded(wait_s, told_s):
    """From 1 to 60 seconds."""
    assert bound_retry(wait_s) == told_s

"""Consistent hashing with bounded loads: who gets a session, and what a change of the agents moves."""

from collections import Counter
from dataclasses import dataclass
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.policies.stickiness import LOAD_FACTOR, Ring

SESSIONS = [b"session-%d" % number for number in range(400)]


@dataclass(eq=False)
class Agent:
    """As much of an agent as the ring looks at."""

    slots: int = 4
    limit: int = 1000
    in_flight: int = 0
    busy_until: float = 0.0
    fixed_s: float = 0.0
    per_work_s: float = 0.0
    doubt_until: float = 0.0


def place(ids, agents=None, **settings):
    """The agent's id for each session."""
    agents = agents or [Agent() for _ in ids]
    slots = sum(agent.slots for agent in agents)
    ring = Ring(ids)
    picked = [ring.pick(session, agents, 0, slots, **settings) for session in SESSIONS]
    return [None if index is None else ids[index] for index in picked]


ids_of = st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=30, unique=True)


@pytest.mark.slow
@given(ids_of, st.randoms(use_true_random=False))
def test_order_makes_no_difference(ids, random):
    """The same agents in another order: every session has the same one."""
    mixed = random.sample(ids, len(ids))
    assert place(ids) == place(mixed)


@pytest.mark.slow
@given(ids_of, st.data())
def test_one_that_goes_moves_its_own_sessions_alone(ids, data):
    """And, seen the other way, one that comes takes sessions from others but moves none between them."""
    gone = data.draw(st.sampled_from(ids))
    before, after = place(ids), place([name for name in ids if name != gone])
    assert [old for old, new in zip(before, after, strict=True) if old != new] == [gone] * before.count(gone)


@pytest.mark.parametrize("count", [3, 10, 100])
def test_a_change_moves_about_one_in_n(count):
    """Each agent has a share of the sessions that is near the mean, so that is what its change moves."""
    shares = Counter(place([f"minilm-{number:06x}" for number in range(count)]))
    mean = len(SESSIONS) / count
    assert max(shares.values()) <= 1.6 * mean + 4 * mean**0.5
    assert len(shares) >= 0.9 * count


def test_who_is_at_its_bound_passes_to_the_next_on_the_ring():
    """It is always the same next one, and the session comes back once there is room."""
    agents, ring = [Agent() for _ in range(5)], Ring("abcde")
    first = ring.pick(b"s", agents, 0, 20)
    agents[first].in_flight = ceil(LOAD_FACTOR * 11 * 4 / 20)
    seconds = {ring.pick(b"s", agents, 10, 20) for _ in range(3)}
    assert len(seconds) == 1
    assert first not in seconds
    agents[first].in_flight -= 1
    assert ring.pick(b"s", agents, 10, 20) == first


@given(
    st.lists(st.integers(1, 16), min_size=1, max_size=12),
    st.lists(st.integers(0, 3), max_size=200),
)
def test_no_agent_is_given_more_than_its_bound(slots, sessions):
    """However few sessions all requests are of: 1.25 times its share by slots, rounded up."""
    agents = [Agent(slots=size) for size in slots]
    ring, total = Ring([str(number) for number in range(len(slots))]), sum(slots)
    for held, session in enumerate(sessions):
        index = ring.pick(b"%d" % session, agents, held, total)
        if index is None:  # those that were looked at are full; another policy says who
            index = min(range(len(slots)), key=lambda i: agents[i].in_flight / slots[i])
        else:
            assert agents[index].in_flight < ceil(LOAD_FACTOR * (held + 1) * slots[index] / total)
        agents[index].in_flight += 1


@pytest.mark.parametrize("state", ["refuses", "is full", "is avoided"])
def test_who_takes_no_work_gets_no_session(state):
    """The others share what would have been its."""
    agents, ids = [Agent(), Agent(), Agent()], ["a", "b", "c"]
    if state == "refuses":
        agents[1].limit = 0
    elif state == "is full":
        agents[1].limit = agents[1].in_flight = 2
    avoid = frozenset(agents[1:2]) if state == "is avoided" else None
    assert set(place(ids, agents, avoid=avoid)) == {"a", "c"}


def test_where_none_has_room_there_is_no_agent():
    """Also where there are none at all."""
    assert set(place(["a", "b"], [Agent(limit=0), Agent(limit=0)])) == {None}
    assert Ring([]).pick(b"s", [], 0, 0) is None

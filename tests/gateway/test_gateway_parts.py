"""The gateway's pure parts: keys, buckets, budgets, the queue and the slots."""

import gc
import hashlib
import json
import logging
from dataclasses import replace

import pytest
from gateway_harness import KEY, key
from hypothesis import given
from hypothesis import strategies as st

from agents.protocol import AgentState, Refusal
from appliance.gateway.errors import ApiError
from appliance.gateway.limits import Keyring, MemoryBudget, TokenBucket
from appliance.gateway.logs import JsonLines, Throttle
from appliance.gateway.requests import read_model
from appliance.gateway.retries import RetryBudget
from appliance.gateway.tracker import AgentSlots, Pool, Reservation
from appliance.policies.balancing import Nothing, find_policy
from appliance.policies.snapshot import AgentRoute


def keys(*routes):
    return {bytes.fromhex(route.sha256): route for route in routes}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (f"Bearer {KEY}", True),
        (f"bearer {KEY}", True),
        (f"Bearer  {KEY} ", True),
        (f"Basic {KEY}", False),
        (KEY, False),
        ("Bearer ", False),
        ("", False),
        (f"Bearer {hashlib.sha256(KEY.encode()).hexdigest()}", False),
    ],
)
def test_keyring(header, found):
    """A key opens by its text, in a Bearer header only; its digest opens nothing."""
    ring = Keyring()
    ring.replace(keys(key()), 0.0)
    assert (ring.find(header.encode()) is not None) == found


def test_a_bucket_outlives_snapshots_until_its_rate_changes():
    """Publishing does not refill anybody's minute."""
    ring = Keyring()
    header = f"Bearer {KEY}".encode()
    ring.replace(keys(key(rpm=1)), 0.0)
    assert ring.find(header).bucket.take(0.0).allowed
    ring.replace(keys(key(rpm=1)), 0.0)
    assert not ring.find(header).bucket.take(0.0).allowed
    ring.replace(keys(key(rpm=2)), 0.0)
    assert ring.find(header).bucket.take(0.0).allowed


def test_token_bucket():
    """60 a minute: a burst of 60, then one each second."""
    bucket = TokenBucket(60, 0.0)
    assert sum(bucket.take(0.0).allowed for _ in range(100)) == 60
    refused = bucket.take(0.5)
    assert (refused.allowed, refused.wait_s, refused.remaining) == (False, 0.5, 0)
    assert bucket.take(1.0).allowed
    assert not bucket.take(1.0).allowed
    assert bucket.take(1000.0).remaining == 59


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 100))
def test_token_bucket_never_gives_more_than_its_rate(gaps, rpm):
    """In any run of requests: at most the burst and what the time between gives back."""
    bucket, now, allowed = TokenBucket(rpm, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        allowed += bucket.take(now).allowed
    assert allowed <= rpm + now * rpm / 60 + 1e-6


def test_memory_budget():
    """What does not fit is not taken; what is given back may be taken again."""
    budget = MemoryBudget(10)
    assert budget.take(6)
    assert not budget.take(5)
    budget.give_back(6)
    assert budget.take(10)


@pytest.mark.parametrize(("active", "allowed"), [(0, 3), (15, 3), (40, 8)])
def test_retry_budget(active, allowed):
    """20 % of the active requests, at least 3."""
    budget = RetryBudget()
    assert sum(budget.take(active) for _ in range(50)) == allowed
    budget.give_back()
    assert budget.take(active)


def slots(name, state=AgentState.READY, **changes):
    route = {
        "id": name,
        "deployment": "mini",
        "node": "box",
        "host": "h",
        "port": 1,
        "certificates": (),
        "wanted": "warm",
        "slots": 2,
        "ahead": 1,
        **changes,
    }
    agent = AgentSlots(AgentRoute(**route))
    agent.state = state
    return agent


def pool(*agents):
    made = Pool(find_policy("least_in_flight"))
    made.agents = list(agents)
    made.refresh()
    return made


def test_reserving_takes_a_slot_and_releasing_gives_it_back_once():
    """Pick and count are one step; slots + ahead is the most."""
    agent = slots("a")
    one = pool(agent)
    held = [one.reserve() for _ in range(3)]
    assert all(isinstance(r, Reservation) for r in held)
    assert one.reserve() is Nothing.ALL_FULL
    held[0].release()
    held[0].release()
    assert agent.in_flight == 2
    assert isinstance(one.reserve(), Reservation)


@pytest.mark.parametrize(
    ("state", "wanted", "takes_work"),
    [
        (AgentState.READY, "warm", True),
        (AgentState.READY, "parked", True),
        (AgentState.READY, "draining", False),
        (AgentState.LOADING, "warm", False),
        (AgentState.PARKED, "warm", False),
        (AgentState.DRAINING, "warm", False),
        (None, "warm", False),
    ],
)
def test_who_takes_work(state, wanted, takes_work):
    """Ready and not wanted draining."""
    found = pool(slots("a", state, wanted=wanted)).reserve()
    assert isinstance(found, Reservation) == takes_work


def test_one_about_to_be_parked_takes_work_only_where_no_other_can():
    """Else parking would meet requests that another could have had."""
    leaving, warm = slots("a", wanted="parked"), slots("b")
    assert pool(leaving, warm).targets == [warm]
    leaving.resumed = True
    assert pool(leaving, warm).targets == [leaving, warm]


@pytest.mark.parametrize(
    ("others", "max_warm", "resumed"),
    [
        ([], 1, True),
        ([("warm", AgentState.READY)], 1, False),
        ([("warm", AgentState.READY)], 2, True),
        ([("warm", None)], 1, False),
        ([("draining", AgentState.READY)], 1, True),
        ([("parked", AgentState.LOADING)], 1, False),
        ([("parked", AgentState.PARKED)], 1, True),
    ],
)
def test_who_may_be_resumed(others, max_warm, resumed):
    """Never more warm than the deployment may have, those that are about to be included."""
    parked = slots("p", AgentState.PARKED, wanted="parked")
    rest = [slots(f"o{n}", state, wanted=wanted) for n, (wanted, state) in enumerate(others)]
    assert (pool(parked, *rest).find_resumable(max_warm) is not None) == resumed


def test_all_gateways_resume_the_same_one():
    """By id, but first one that is wanted warm: several gateways with one need wake one agent."""
    many = [slots(name, AgentState.PARKED, wanted="parked") for name in ("c", "a", "b")]
    assert pool(*many).find_resumable(3) is many[1]
    assert pool(*reversed(many)).find_resumable(3) is many[1]
    wanted = slots("z", AgentState.PARKED)
    assert pool(*many, wanted).find_resumable(4) is wanted


def test_what_was_resumed_here_counts_until_the_control_plane_decides_anew():
    """Adopted, and parked again later, it gets no more work by the old need."""
    agent = slots("a", wanted="parked")
    agent.resumed = True
    agent.take_route(replace(agent.route, certificates=("another",)))
    assert agent.resumed
    agent.take_route(replace(agent.route, wanted="warm"))
    assert not agent.resumed


def test_log_is_throttled(caplog):
    """Over the bound records are dropped and counted; the next second says how many."""
    throttle = Throttle(2)
    records = [logging.LogRecord("g", logging.INFO, "f", 1, "event %d", (n,), None) for n in range(6)]
    for record, created in zip(records, [10.0, 10.1, 10.2, 10.3, 11.0, 11.5], strict=True):
        record.created = created
    assert [throttle.filter(record) for record in records] == [True, True, False, False, True, True]
    assert records[4].getMessage() == "event 4 (and 2 more records before, not written)"
    line = json.loads(JsonLines("gateway-1").format(records[5]))
    assert (line["event"], line["gateway"], line["level"]) == ("event 5", "gateway-1", "info")


def test_an_agent_that_refused_is_probed_with_one_request():
    """Not with as many as it could hold; a word or an answer of its opens it wholly."""
    agent = slots("a")
    agent.refuse(Refusal.FULL)
    assert agent.limit == 0
    agent.probe()
    assert agent.limit == 1
    agent.reopen()
    agent.probe()
    assert agent.limit == 3


@pytest.mark.parametrize("field", ["model", "stream", "input"])
def test_a_large_body_makes_no_objects(field):
    """16 MB of empty lists in any field would stand still the loop, and with it everybody, for a second."""
    body = b'{"%b":[%b[]]}' % (field.encode(), b"[]," * 1_000_000)
    before = sum(stage["collections"] for stage in gc.get_stats())
    with pytest.raises(ApiError, match="'model'"):
        read_model(body)
    assert sum(stage["collections"] for stage in gc.get_stats()) - before < 10

"""Answers given again, and one answer for all that ask the same at once."""

import asyncio
import json

import pytest
from gateway_harness import KEY, build_http, deployment, embed_body, key, until
from hypothesis import given
from hypothesis import strategies as st
from scripted_agent import HANG, echo, fault

from agents.protocol import Answer
from appliance.gateway.cache import ENTRY_BYTES, MAX_BODY_BYTES, AnswerCache, build_key, is_of

OTHER = "mw-other-team"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ('{"model":"a","input":"x"}', '{ "input" : "x", "model": "a" }', True),
        ('{"model":"a","input":"x","user":"u"}', '{"model":"a","input":"x"}', True),
        ('{"model":"a","input":"x"}', '{"model":"a","input":"y"}', False),
        ('{"model":"a","input":["x"]}', '{"model":"a","input":"x"}', False),
        (
            '{"model":"a","input":"x"}',
            '{"model":"a","input":"x","encoding_format":"base64"}',
            False,
        ),
        (
            '{"model":"a","input":"x","dimensions":8}',
            '{"model":"a","input":"x","dimensions":16}',
            False,
        ),
    ],
)
def test_what_makes_two_requests_the_same(first, second, same):
    """What changes the answer, not how it is written down."""
    keys = {build_key("r1", "/v1/embeddings", "t", text.encode()) for text in (first, second)}
    assert (len(keys) == 1) == same


def test_keys_keep_revisions_paths_and_teams_apart():
    """The same body under another of them is another request; what is not read is not cached."""
    body = b'{"model":"a","input":"x"}'
    asked = [("r1", "/p", "t"), ("r2", "/p", "t"), ("r1", "/q", "t"), ("r1", "/p", "u"), ("r1", "/pt", "")]
    keys = [build_key(*parts, body) for parts in asked]
    assert len(set(keys)) == len(keys)
    assert [is_of(one, "r1") for one in keys] == [True, False, True, True, True]
    assert build_key("r1", "/p", "t", b"[1]") is None
    assert build_key("r1", "/p", "t", b"x" * (MAX_BODY_BYTES + 1)) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2000)), max_size=60))
def test_the_cache_is_bounded_in_bytes(puts):
    """What it holds is what it counts, never over the bound, and the last one put is there."""
    cache = AnswerCache(5000)
    for number, size in puts:
        cache.put(b"%d" % number, size, size)
        assert cache.get(b"%d" % number) == size
        held = [cache.get(b"%d" % n) for n in range(10)]
        kept = [size for size in held if size is not None]
        assert cache.held_bytes == sum(kept) + ENTRY_BYTES * len(kept) <= 5000
        assert len(cache) == len(kept)
    cache.resize(0)
    assert (cache.held_bytes, len(cache)) == (0, 0)


def test_what_was_not_asked_for_the_longest_goes_first():
    """Asking counts, not only putting; what is larger than the bound is not kept."""
    cache = AnswerCache(2 * (ENTRY_BYTES + 10))
    for name in (b"a", b"b"):
        cache.put(name, name, 10)
    cache.get(b"a")
    cache.put(b"c", b"c", 10)
    assert [cache.get(name) for name in (b"a", b"b", b"c")] == [b"a", None, b"c"]
    cache.put(b"d", b"d", 10_000)
    assert cache.get(b"d") is None


@pytest.fixture
async def start(gateway, make_agent):
    """A gateway with one agent of one slot, and a cache."""

    async def make(script=echo, *, agents=1, **changes):
        made = [await make_agent(script=script) for _ in range(agents)]
        await gateway.serve_by(
            *(agent.route(slots=1, ahead=0) for agent in made),
            deployments=[deployment(**{"cache_bytes": 1_000_000, **changes})],
            keys=[key(), key(OTHER, team="other")],
        )
        await gateway.ready(*made)
        return made if agents > 1 else made[0]

    return make


async def ask(gateway, accepted, **settings):
    """One more request that is under way."""
    task = asyncio.create_task(gateway.embed(**settings))
    await gateway.until_accepted(accepted)
    return task


async def test_an_answer_is_given_again(gateway, start):
    """From the cache, as it was; both are answered, one was sent, the agent's tokens count once."""
    agent = await start()
    first = await gateway.embed()
    body = json.dumps({"input": "hello", "user": "me", "model": "mini"}).encode()
    again = await gateway.ask(body=body)
    assert (again.status, again.body) == (200, first.body)
    assert again.headers["x-served-by"] == first.headers["x-served-by"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(agent.requests) == 1
    samples = await gateway.metrics()
    counted = {name: samples[f"millwright_cache_total{{mini,{name}}}"] for name in ("hit", "miss", "shared")}
    assert counted == {"hit": 1, "miss": 1, "shared": 0}
    [report] = gateway.gateway.report().deployments
    assert (report.cache_hits, report.cache_misses, report.cache_shared) == (1, 1, 0)
    assert report.cache_bytes == len(first.body) + ENTRY_BYTES
    assert sum(report.first_token.counts) == 1  # only of what an agent answered
    assert samples["millwright_finished_total{answered}"] == samples["millwright_accepted_total"] == 2
    assert samples["millwright_tokens_total{prompt}"] == 3


async def test_what_one_that_is_gone_has_counted_stays(gateway, start):
    """Under an empty name, so that the sum never falls; those that are there have their own."""
    await start()
    for _ in range(3):
        await gateway.embed()
    await gateway.serve_by(deployments=[deployment(name="other", cache_bytes=1000)], keys=[key()])
    samples = await gateway.metrics()
    cached = {name: value for name, value in samples.items() if name.startswith("millwright_cache_total")}
    assert {name: value for name, value in cached.items() if value} == {
        "millwright_cache_total{,hit}": 2, "millwright_cache_total{,miss}": 1,
    }  # fmt: skip
    assert cached["millwright_cache_total{other,hit}"] == 0
    assert samples["millwright_time_to_first_token_seconds_count"] == 1


@pytest.mark.parametrize(
    ("changes", "headers"),
    [
        ({"cache_bytes": 0}, {}),
        ({}, {"x_no_cache": "1"}),
        ({"revision": "r2"}, {}),
    ],
    ids=["off", "not wanted", "another revision's agent"],
)
async def test_what_is_not_kept(gateway, start, changes, headers):
    """Each is sent."""
    agent = await start(**changes)
    for _ in range(2):
        assert (await gateway.embed(**headers)).status == 200
    assert len(agent.requests) == 2


@pytest.mark.parametrize("shared", [False, True])
async def test_teams_share_only_where_it_is_allowed(gateway, start, shared):
    """Another team's answer is a miss unless the deployment says otherwise."""
    agent = await start(cache_shared=shared)
    for text_key in (KEY, OTHER):
        assert (await gateway.embed(text_key=text_key)).status == 200
    assert len(agent.requests) == (1 if shared else 2)


async def test_keys_without_a_team_share_nothing(gateway, start):
    """Each is a team of its own; what was kept while all shared is not theirs once they do not."""
    agent = await start()
    keys = [key(team=""), key(OTHER, team="")]
    for shared, sent in ((False, 2), (True, 3), (False, 3)):
        changed = deployment(cache_bytes=1_000_000, cache_shared=shared)
        await gateway.serve_by(agent.route(slots=1, ahead=0), deployments=[changed], keys=keys)
        for text_key in (KEY, OTHER):
            assert (await gateway.embed(text_key=text_key)).status == 200
        assert len(agent.requests) == sent


async def test_an_error_is_not_kept(gateway, start):
    """The next one is sent again."""
    refusal = Answer(400, 0, 0, 5, "application/json", b'{"error":{}}')
    agent = await start(script=lambda _: refusal)
    assert [(await gateway.embed()).status for _ in range(2)] == [400, 400]
    assert len(agent.requests) == 2


async def test_who_asks_the_same_at_once_gets_one_answer(gateway, start):
    """One is in flight, the others count as queued, in the scrape and in the report; all are answered."""
    agent = await start(script=lambda _: HANG)
    tasks = [await ask(gateway, number + 1) for number in range(5)]
    samples = await gateway.metrics()
    assert (samples["millwright_in_flight"], samples["millwright_queue_depth"]) == (1, 4)
    [report] = gateway.gateway.report().deployments
    assert (report.in_flight, report.queued) == (1, 4)
    agent.answer_hung()
    assert {(r.status, r.body) for r in await asyncio.gather(*tasks)} == {(200, embed_body())}
    assert len(agent.requests) == 1
    assert gateway.stats().cache == {"hit": 0, "miss": 1, "shared": 4}
    assert gateway.gateway.fleet.calls_shared() == []


@pytest.mark.parametrize("sent", [True, False], ids=["in flight", "queued"])
async def test_a_leaving_leader_takes_nothing_from_its_followers(gateway, start, sent):
    """Its attempt goes on for the next one, which is not begun anew."""
    agent = await start(script=lambda _: HANG)
    accepted, tasks = 0, []
    if not sent:
        tasks.append(await ask(gateway, 1, text="before"))
        accepted = 1
    wire = await gateway.connect()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    await wire.send(build_http("POST", "/v1/embeddings", headers, embed_body()))
    await gateway.until_accepted(accepted + 1)
    tasks += [await ask(gateway, accepted + 2 + number) for number in range(3)]
    wire.close()
    await until(lambda: gateway.stats().cancelled == 1)
    agent.script = echo
    agent.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert agent.cancelled == []
    assert len(agent.requests) == (1 if sent else 2)


async def test_the_deadline_of_one_that_left_is_not_its_heirs(gateway, start):
    """The agent gives the attempt up; the heir is sent again, within its own deadline."""
    agent = await start(script=lambda _: HANG)
    wire = await gateway.connect()
    headers = {"authorization": f"Bearer {KEY}", "x-deadline-ms": "5000"}
    await wire.send(build_http("POST", "/v1/embeddings", headers, embed_body()))
    await gateway.until_accepted(1)
    task = await ask(gateway, 2)
    wire.close()
    await until(lambda: gateway.stats().cancelled == 1)
    agent.script = echo
    agent.answer_hung_with(lambda _: Answer(504, 0, 0, 0, "application/json", b"{}"))
    assert (await task).status == 200
    assert len(agent.requests) == 2


async def test_a_leader_that_fails_is_followed_by_the_next(gateway, start):
    """Only the leader gets the error; the others get the next attempt's answer."""
    agent = await start(script=lambda _: HANG)
    tasks = [await ask(gateway, number + 1) for number in range(4)]
    agent.script = lambda _: HANG
    agent.answer_hung_with(fault)
    assert (await tasks[0]).status == 500
    await until(lambda: len(agent.requests) == 2)
    agent.answer_hung()
    assert [(await task).status for task in tasks[1:]] == [200] * 3


async def test_a_followers_deadline_is_its_own(gateway, start):
    """It is answered 504 while the flight goes on."""
    agent = await start(script=lambda _: HANG)
    leader = await ask(gateway, 1)
    follower = await gateway.embed(x_deadline_ms="100")
    assert (follower.status, follower.error["code"]) == (504, "deadline_exceeded")
    agent.answer_hung()
    assert (await leader).status == 200


async def test_nobody_waits_behind_a_leader_that_is_served_later(gateway, start):
    """A high request does not follow a low one that is still in the queue."""
    agent = await start(script=lambda _: HANG)
    tasks = [await ask(gateway, 1, text="before"), await ask(gateway, 2, x_priority="low")]
    tasks.append(await ask(gateway, 3, text="between"))
    tasks.append(await ask(gateway, 4, x_priority="high"))
    agent.script = echo
    agent.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert [json.loads(r.body)["input"] for r in agent.requests][:2] == ["before", "hello"]


async def test_followers_are_answered_when_the_gateway_stops(gateway, start):
    """503 for all of a flight, at once."""
    await start(script=lambda _: HANG)
    tasks = [await ask(gateway, number + 1) for number in range(3)]
    gateway.gateway.dispatcher.abandon_all()
    assert {(await task).status for task in tasks} == {503}


async def test_flights_survive_the_death_of_their_agent(gateway, start, make_agent):
    """The leader goes elsewhere, and all get its answer."""
    first, second = await start(script=lambda _: HANG, agents=2)
    tasks = [await ask(gateway, number + 1) for number in range(4)]
    [busy] = [agent for agent in (first, second) if agent.requests]
    for agent in (first, second):
        agent.script = echo
    busy.kill()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}

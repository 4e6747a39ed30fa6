"""Whole runs against a server in the same event loop."""

import asyncio
import datetime as dt
import ssl
from collections import Counter

import pytest
from scripted_server import OK, ScriptedServer, build_answer

from appliance.load_test import LoadPlan, Summary, Target
from appliance.load_test.run import run_load_async
from provisioning.certificates import create_authority

BODIES = (b'{"input":"a"}', b'{"input":"bb"}', b'{"input":"ccc"}')
BOUND_S = 20.0


async def run(server: ScriptedServer, **plan) -> Summary:
    given = {"target": server.target, "bodies": BODIES, "connections": 4} | plan
    async with asyncio.timeout(BOUND_S):
        return await run_load_async(LoadPlan(**given))


async def test_a_closed_loop_counts_exactly(server):
    """What was sent, received and reported is the same number; bodies come in turn."""
    summary = await run(server, count=300)
    assert summary.mode == "closed"
    assert (summary.requests, summary.answered, summary.failed, summary.not_ok) == (300, 300, 0, 0)
    assert summary.statuses == {"200": 300}
    assert len(server.heads) == 300
    assert Counter(server.bodies) == dict.fromkeys(BODIES, 100)
    assert server.connections == 4
    assert summary.reconnects == 0
    assert sum(row.answered for row in summary.seconds) == sum(row.sent for row in summary.seconds) == 300
    assert b"Authorization: Bearer secret" in server.heads[0]


async def test_a_closed_loop_ends_with_its_duration(server):
    """No request is begun after the duration, each one begun is answered."""
    summary = await run(server, duration_s=0.3)
    assert summary.answered == summary.requests == len(server.heads) > 0
    assert summary.window_s == pytest.approx(0.3)
    assert summary.throughput_rps <= summary.answered / 0.3


async def test_latency_is_at_least_what_the_server_takes(server):
    """A server that answers late is reported as slow, and quantiles ascend."""
    server.delay_s = lambda _: 0.05
    summary = await run(server, connections=2, count=10)
    latency = summary.latency
    assert summary.answered == 10
    assert latency.p50_ms >= 49
    assert latency.p50_ms <= latency.p95_ms <= latency.p99_ms <= latency.max_ms


async def test_statuses_are_told_apart(server):
    """Answers other than 2xx are answered, not ok, and lend no latency."""
    server.answer = lambda n: build_answer(503) if n % 3 == 0 else OK
    summary = await run(server, count=30, connections=1)
    assert summary.statuses == {"200": 20, "503": 10}
    assert (summary.failed, summary.not_ok) == (0, 10)


async def test_a_server_that_closes_after_an_answer_fails_nothing(server):
    """`Connection: close` costs a new connection, no request."""
    server.answer = lambda n: build_answer(200, close=n % 5 == 4)
    summary = await run(server, count=50, connections=1)
    assert summary.statuses == {"200": 50}
    assert summary.reconnects in (9, 10)  # the last close may meet the end of the run


async def test_a_broken_connection_is_a_failed_request(server):
    """A connection closed before its answer fails that request alone, and is made again."""
    server.answer = lambda n: b"" if n == 10 else OK
    summary = await run(server, count=40, connections=2)
    assert summary.failures == {"closed": 1}
    assert (summary.answered, summary.reconnects) == (39, 1)


async def test_what_is_no_http_is_named(server):
    """An answer that cannot be parsed fails its request as such."""
    server.answer = lambda n: b"SSH-2.0-OpenSSH\r\n\r\n" if n == 3 else OK
    summary = await run(server, count=10, connections=1)
    assert summary.failures == {"bad_answer": 1}
    assert summary.answered == 9


async def test_a_dead_server_is_refused(server):
    """With nobody listening each attempt fails as refused, and the run still ends in time."""
    target = server.target
    await server.stop()
    summary = await run(server, target=target, duration_s=0.3)
    assert summary.answered == 0
    assert set(summary.failures) == {"refused"}
    assert 4 <= summary.failed < 60  # the pauses grow


async def test_a_server_that_dies_and_comes_back(server):
    """Requests under way fail once each; the run goes on when the server is back."""
    died = asyncio.Event()

    def answer(n: int) -> bytes:
        if n == 20:
            died.set()
        return OK

    server.answer = answer

    async def restart() -> None:
        await died.wait()
        await server.stop()
        await server.start()

    restarting = asyncio.create_task(restart())
    summary = await run(server, count=200)
    await restarting
    assert summary.requests == 200
    assert summary.answered + summary.failed == 200
    assert 0 < summary.failed < 100
    assert set(summary.failures) <= {"closed", "refused"}
    assert len(server.heads) >= summary.answered > 20


async def test_a_stalled_server_times_out(server):
    """A request without answer fails as timeout; its lane goes on over a new connection."""
    server.answer = lambda n: None if n == 5 else OK
    summary = await run(server, count=12, connections=1, timeout_s=0.2)
    assert summary.failures == {"timeout": 1}
    assert summary.answered == 11
    assert server.connections == 2


@pytest.mark.parametrize("arrivals", ["even", "poisson"])
async def test_an_open_loop_keeps_its_schedule(server, arrivals):
    """Every arrival of the schedule is sent, none before it is due."""
    plan = LoadPlan(
        target=server.target, bodies=BODIES, connections=4, duration_s=0.5, rps=200, arrivals=arrivals, seed=3
    )
    due = list(plan.arrival_times())
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(BOUND_S):
        summary = await run_load_async(plan)
    assert summary.mode == "open"
    assert summary.answered == summary.requests == len(due) == len(server.heads)
    received = sorted(at - began for at in server.received_at)
    assert all(at >= planned - 0.002 for at, planned in zip(received, due, strict=True))
    assert summary.lag is not None
    assert server.connections <= 4


async def test_an_open_loop_counts_the_wait_for_a_connection(server):
    """While the only connection is held up the schedule goes on, and the wait is part of the latency."""
    server.delay_s = lambda n: 0.5 if n == 0 else 0.0
    summary = await run(server, connections=1, rps=100, arrivals="even", duration_s=0.2)
    assert summary.statuses == {"200": 20}
    assert summary.latency.p50_ms >= 300  # the last arrives at 190 ms, none is sent before 500 ms
    assert summary.lag.p50_ms >= 300


async def test_an_open_loop_times_out_what_waits(server):
    """A request that never got a connection times out as one that never got an answer."""
    server.answer = lambda _: None
    summary = await run(server, connections=1, rps=100, arrivals="even", duration_s=0.1, timeout_s=0.3)
    assert summary.failures == {"timeout": 10}


@pytest.mark.slow
async def test_an_open_loop_reports_overflow(server):
    """What arrives above the bound of outstanding requests fails as overflow, at once."""
    server.answer = lambda _: None
    summary = await run(
        server, connections=2, rps=200, arrivals="even", duration_s=0.2, timeout_s=1.0, outstanding=5
    )
    assert summary.failures == {"overflow": 35, "timeout": 5}
    assert summary.requests == 40


async def test_an_open_loop_against_a_dead_server_ends(server):
    """With nobody listening every arrival fails as refused."""
    target = server.target
    await server.stop()
    summary = await run(server, target=target, rps=100, arrivals="even", duration_s=0.2)
    assert summary.failures == {"refused": 20}


async def test_tls_is_verified(server, tmp_path):
    """Over https requests are answered where the authority is known, else no connection is made."""
    now = dt.datetime.now(dt.UTC)
    authority = create_authority(now)
    issued = authority.issue_server("server", ["127.0.0.1"], now)
    files = {"ca": authority.certificate_pem, "cert": issued.certificate_pem, "key": issued.key_pem}
    for name, pem in files.items():
        (tmp_path / name).write_bytes(pem)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    async with await asyncio.start_server(server._serve, "127.0.0.1", 0, ssl=own) as secure:
        port = secure.sockets[0].getsockname()[1]
        trusting = ssl.create_default_context(cafile=str(tmp_path / "ca"))
        good = await run(server, target=Target("127.0.0.1", port, "/", trusting), count=20)
        stranger = Target("127.0.0.1", port, "/", ssl.create_default_context())
        bad = await run(server, target=stranger, count=3, connections=1)
    assert good.statuses == {"200": 20}
    assert bad.failures == {"connect_failed": 3}


@pytest.mark.parametrize("mode", [{}, {"rps": 100.0}])
async def test_cancelling_leaves_no_connection(server, mode):
    """A cancelled run closes all it opened."""
    server.answer = lambda _: None
    running = asyncio.create_task(run(server, duration_s=60.0, **mode))
    async with asyncio.timeout(BOUND_S):
        while not server.heads:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        while server.live_connections:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)

"""A line for each request, and headers of its own."""

import asyncio
import json

import pytest
from scripted_server import OK

from appliance.load_test import BadPlan, LoadPlan, RecordFile, Target
from appliance.load_test.run import run_load_async

SERVED = b"HTTP/1.1 200 OK\r\nX-Served-By: agent-%d\r\nContent-Length: 2\r\n\r\nok"


async def run(server, path, **plan):
    given = {"target": server.target, "bodies": (b"{}",), "connections": 2} | plan
    with RecordFile(path) as records:
        async with asyncio.timeout(20):
            summary = await run_load_async(LoadPlan(**given), records=records)
    return summary, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("rps", [None, 200])
async def test_every_request_has_its_line(server, tmp_path, rps):
    """Answered or failed, in both loops, with its number, its time and who served it."""
    server.answer = lambda n: b"" if n == 3 else SERVED % (n % 2)
    summary, rows = await run(server, tmp_path / "records", rps=rps, count=40)
    assert sorted(row["n"] for row in rows) == list(range(40))
    assert summary.failures == {"closed": 1}
    assert [row["cause"] for row in rows if "cause" in row] == ["closed"]
    answered = [row for row in rows if "status" in row]
    assert {row["status"] for row in answered} == {200}
    assert {row["by"] for row in answered} == {"agent-0", "agent-1"}
    assert all(row["ms"] > 0 and row["t"] >= 0 for row in rows)


async def test_a_line_counts_from_when_the_request_was_due(server, tmp_path):
    """What waits for a connection is late: times are the schedule's, whatever the server does."""
    server.delay_s = lambda _: 0.05
    plan = {"rps": 100.0, "count": 10, "arrivals": "even", "connections": 1}
    _, rows = await run(server, tmp_path / "records", **plan)
    rows.sort(key=lambda row: row["n"])
    assert [row["t"] for row in rows] == pytest.approx([n / 100 for n in range(10)], abs=1e-5)
    assert rows[-1]["ms"] >= 10 * 50 - 90


async def test_the_same_seed_is_the_same_schedule(server, tmp_path):
    """Two servers can be given the same arrivals."""
    plan = {"rps": 500.0, "count": 50, "seed": 7}
    _, first = await run(server, tmp_path / "first", **plan)
    server.delay_s = lambda _: 0.01
    _, second = await run(server, tmp_path / "second", **plan)
    times = [sorted((row["n"], row["t"]) for row in rows) for rows in (first, second)]
    assert times[0] == times[1]


async def test_an_answer_without_the_header_names_nobody(server, tmp_path):
    """The header of an earlier answer does not stick to the connection."""
    server.answer = lambda n: OK if n else SERVED % 1
    _, rows = await run(server, tmp_path / "records", count=2, connections=1)
    assert [row["by"] for row in rows] == ["agent-1", ""]


async def test_headers_come_in_turn(server, tmp_path):
    """Each set belongs to one request; the same name as one of the target's replaces it."""
    sets = ((("X-Priority", "high"),), (), (("authorization", "Bearer other"),))
    await run(server, tmp_path / "records", headers=sets, count=6, connections=1)
    assert [b"X-Priority: high" in head for head in server.heads] == [True, False, False] * 2
    assert [b"Bearer other" in head for head in server.heads] == [False, False, True] * 2
    assert [b"Bearer secret" in head for head in server.heads] == [True, True, False] * 2


@pytest.mark.parametrize("headers", [(), ((("x-a", "b\r\nx-c: d"),),)])
def test_bad_headers_are_refused(headers):
    """No set at all, or one with a line break."""
    with pytest.raises(BadPlan, match=r"header"):
        LoadPlan(Target("h", 1, "/"), (b"{}",), count=1, headers=headers)

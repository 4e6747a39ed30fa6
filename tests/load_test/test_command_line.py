"""`python -m appliance.load_test` as its own process."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest
from scripted_server import build_answer

ROOT = Path(__file__).parents[2]
BOUND_S = 30.0


async def start(*arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appliance.load_test", *map(str, arguments),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def finish(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(BOUND_S):
        output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


@pytest.fixture
def given(server, tmp_path) -> list[object]:
    (tmp_path / "bodies").write_text('{"input":"a"}\n\n{"input":"b"}\n')
    (tmp_path / "key").write_text("mw-secret\n")
    url = f"http://127.0.0.1:{server.port}/v1/embeddings"
    return ["--url", url, "--body-file", tmp_path / "bodies", "--key-file", tmp_path / "key"]


async def test_one_json_document_on_stdout(server, given):
    """Each line of the body file is one body, the key is sent, the figures are JSON."""
    code, output, _ = await finish(await start(*given, "--count", 20, "--connections", 2, "--json"))
    assert code == 0
    assert json.loads(output)["statuses"] == {"200": 20}
    assert set(server.bodies) == {b'{"input":"a"}', b'{"input":"b"}'}
    assert b"Authorization: Bearer mw-secret" in server.heads[0]


async def test_a_bad_answer_is_a_bad_exit(server, given):
    """Any answer other than 2xx makes the exit code 1, after the table."""
    server.answer = lambda n: build_answer(500 if n == 3 else 200)
    code, output, _ = await finish(await start(*given, "--count", 5, "--connections", 1))
    assert code == 1
    assert "500: 1" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", [["--connections", 2], ["--rps", 50]])
async def test_a_signal_ends_the_run_with_what_was_measured(server, given, number, mode):
    """Interrupted runs still print their figures."""
    process = await start(*given, *mode, "--duration", 600, "--json")
    async with asyncio.timeout(BOUND_S):
        while not server.heads:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
    process.send_signal(number)
    code, output, _ = await finish(process)
    summary = json.loads(output)
    assert code == 1
    assert summary["interrupted"] is True
    assert summary["requests"] > 0
    assert summary["window_s"] < BOUND_S


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--duration", 4000], "duration 4000"),
        (["--rps", 10**6, "--duration", 1], "rps 1000000"),
        ([], "end"),
    ],
)
async def test_bad_arguments_exit_2(given, arguments, named):
    """A value out of bounds is named, with exit code 2."""
    code, _, errors = await finish(await start(*given, *arguments))
    assert code == 2
    assert named in errors


async def test_headers_and_records_are_files(server, given, tmp_path):
    """One object of headers per line is sent in turn; one object per request is written."""
    (tmp_path / "headers").write_text('{"x-priority": "high"}\n{}\n')
    files = ["--headers-file", tmp_path / "headers", "--record", tmp_path / "records"]
    code, _, errors = await finish(await start(*given, *files, "--count", 4, "--connections", 1, "--quiet"))
    assert code == 0, errors
    assert [b"x-priority: high" in head for head in server.heads] == [True, False] * 2
    rows = [json.loads(line) for line in (tmp_path / "records").read_text().splitlines()]
    assert [(row["n"], row["status"]) for row in rows] == [(n, 200) for n in range(4)]


async def test_a_bad_headers_file_is_named(given, tmp_path):
    """The line and what is accepted, with exit code 2."""
    (tmp_path / "headers").write_text('{"x-priority": 3}\n')
    code, _, errors = await finish(await start(*given, "--headers-file", tmp_path / "headers", "--count", 1))
    assert code == 2
    assert "line 1: an object of strings is accepted" in errors

"""The gateway as a process of its own: how it starts, how it refuses to, and how it ends."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from gateway_harness import RunningGateway, deployment, until
from scripted_agent import HANG, echo

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def spawn(home, port, *arguments, ignore_sigint=False, **variables):
    """A gateway process; `ignore_sigint` as a shell's background job would have it."""

    def before():
        if ignore_sigint:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return subprocess.Popen(
        [sys.executable, "-m", "appliance.gateway", *arguments],
        cwd=ROOT,
        env={**os.environ, "APPLIANCE_HOME": str(home), "GATEWAY_PORT": str(port), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,  # noqa: PLW1509 - this process has no other thread at work here
    )


def healthy(port, scheme="http"):
    context = ssl._create_unverified_context() if scheme == "https" else None
    with contextlib.suppress(OSError):
        url = f"{scheme}://127.0.0.1:{port}/healthz"
        with urllib.request.urlopen(url, timeout=1, context=context) as response:
            return response.status == 200
    return False


@pytest.fixture
def start(tmp_path):
    started = []

    async def begin(*arguments, scheme="http", **settings):
        port = free_port()
        process = spawn(tmp_path / "home", port, *arguments, **settings)
        started.append(process)
        await until(lambda: healthy(port, scheme) or process.poll() is not None, 20)
        return process, port

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True], ids=["", "ignored at start"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_signals_end_it_with_code_0(start, tmp_path, number, ignored):
    """Whatever was inherited; the port and the inner socket are gone."""
    process, port = await start(ignore_sigint=ignored)
    assert (tmp_path / "home" / "run" / "gateway-1.sock").exists()
    process.send_signal(number)
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 0, errors
    assert not (tmp_path / "home" / "run" / "gateway-1.sock").exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1)


@pytest.mark.slow
async def test_a_second_signal_ends_it_at_once(start, home):
    """Also while a request is held that the first would have waited for."""
    running = RunningGateway(home)
    running.publish()
    process, running.port = await start(APPLIANCE_HOME=str(home))
    task = asyncio.create_task(running.embed())
    await until(running.someone_waits)
    process.send_signal(signal.SIGTERM)
    await until(lambda: not healthy(running.port))
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.wait, 6)
    assert process.returncode == 0
    assert (await task).status == 503


@pytest.mark.slow
async def test_after_kill_9_it_starts_again(start):
    """What it left behind is in nobody's way."""
    process, _ = await start()
    process.kill()
    process.wait()
    again, port = await start()
    assert again.poll() is None
    assert healthy(port)


@pytest.mark.slow
async def test_a_second_one_of_the_same_name_is_refused(start):
    """In one line, with code 1; another name is welcome."""
    await start()
    second, _ = await start()
    assert second.wait() == 1
    assert "already running" in second.stderr.read()
    other, port = await start("--name", "gateway-2")
    assert other.poll() is None
    assert healthy(port)


@pytest.mark.parametrize(
    ("variables", "code", "words"),
    [
        ({"GATEWAY_PORT": "http"}, 2, "GATEWAY_PORT='http'"),
        ({"APPLIANCE_BIND": "0.0.0.0"}, 2, "APPLIANCE_PLAIN_HTTP"),
        ({"TLS_CERT": "/nowhere"}, 2, "TLS_CERT"),
    ],
)
def test_bad_settings_end_the_start_with_one_line(tmp_path, variables, code, words):
    """The line names the variable; code 2."""
    process = spawn(tmp_path, **{"port": "8080", **variables})
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert words in errors
    assert len(errors.splitlines()) == 1


def test_a_taken_port_is_named(tmp_path):
    """Code 1 and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = spawn(tmp_path, port)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"GATEWAY_PORT={port}" in errors


@pytest.mark.slow
async def test_https_where_a_certificate_is_given(start, tmp_path, authority):
    """The public port speaks TLS."""
    import datetime as dt  # noqa: PLC0415 - for this one certificate

    issued = authority.issue_server("localhost", ["127.0.0.1"], dt.datetime.now(dt.UTC))
    (tmp_path / "public.pem").write_bytes(issued.certificate_pem)
    (tmp_path / "public.key").write_bytes(issued.key_pem)
    process, port = await start(
        scheme="https", TLS_CERT=str(tmp_path / "public.pem"), TLS_KEY=str(tmp_path / "public.key")
    )
    assert process.poll() is None
    assert healthy(port, "https")


async def test_stopping_finishes_what_is_there(home, make_agent):
    """In flight and queued are answered, then it ends; new connections are refused."""
    agent = await make_agent(script=lambda _: HANG)
    gateway = await RunningGateway(home).start()
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    tasks = [asyncio.create_task(gateway.embed()) for _ in range(9)]
    await gateway.until_accepted(9)
    gateway.server.should_exit = True
    await until(lambda: gateway.gateway.not_ready_because() == "stopping")
    with pytest.raises(OSError, match=r"refused|Connect"):
        await gateway.connect()
    agent.script = echo
    agent.answer_hung()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    await asyncio.wait_for(gateway.task, 5)


async def test_stopping_is_bounded(home):
    """What cannot be finished in time is answered with 503."""
    gateway = await RunningGateway(home, finish_s=0.3).start()
    await gateway.serve_by(deployments=[deployment()])
    task = asyncio.create_task(gateway.embed())
    await gateway.until_accepted(1)
    gateway.server.should_exit = True
    response = await task
    assert (response.status, response.error["code"]) == (503, "no_capacity")
    assert response.headers["connection"] == "close"
    await asyncio.wait_for(gateway.task, 5)
    assert gateway.gateway.fleet.active() == 0

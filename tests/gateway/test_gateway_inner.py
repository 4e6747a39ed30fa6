"""The inner listener: what readers get, and what a slow one costs."""

import asyncio
import time

import msgspec
import pytest
from gateway_harness import NAME, RunningGateway, until

from appliance.gateway.inner import InnerListener
from appliance.gateways import parse_message
from appliance.inner_socket import (
    InnerSocketTaken,
    bind_inner,
    connect_inner,
    gateway_names,
    inner_socket_path,
)
from appliance.policies.report import DeploymentReport, GatewayReport, Histogram, WantEvent


@pytest.mark.slow
async def test_a_reader_gets_a_report_at_once_and_then_one_a_second(gateway, make_agent):
    """Counters, generation, and what each agent said of itself."""
    agent = await make_agent()
    await gateway.serve_by(agent)
    await gateway.embed()
    reader = await gateway.inner()
    first, second = await reader.next("report"), await reader.next("report")
    report = msgspec.convert(first, GatewayReport)
    assert report.generation == gateway.generation
    assert (report.deployments[0].accepted, report.deployments[0].answered) == (1, 1)
    assert sum(report.deployments[0].duration.counts) == 1
    assert sum(report.deployments[0].first_token.counts) == 1
    [seen] = report.agents
    assert (seen.id, seen.state, seen.sent, seen.answered) == (agent.id, "ready", 1, 1)
    assert (seen.tokens_total, seen.rss_bytes, seen.cpu_percent) == (7, 1000, 12.5)
    assert seen.load_age_s < 5
    assert 0 < second["at"] - first["at"] < 3
    reader.close()


async def test_a_slow_reader_is_dropped_and_others_go_on(tmp_path):
    """What lies unread is bounded."""
    report = GatewayReport("gateway-1", 1, 0.0, 0.0, None, (), ())
    listener = InnerListener(lambda: report, max_buffered_bytes=10_000)
    await listener.start(bind_inner(tmp_path, NAME))
    slow = connect_inner(tmp_path, NAME)
    await until(lambda: listener._readers)
    event = WantEvent("gateway-1", time.time(), "x" * 1000, "held")
    for _ in range(5000):
        listener.send_event(event)
        await asyncio.sleep(0)
        if not listener._readers:
            break
    assert not listener._readers
    slow.close()
    listener.close()


def test_a_report_of_an_older_gateway_is_read():
    """What it does not count is unknown, not zero."""
    counted = DeploymentReport(
        "mini", 1, 1, 0, 0, 0, 0, 0, 0.5, 0.0, 3, Histogram((1,), 0.1), Histogram((1,), 0.0)
    )
    whole = GatewayReport("gateway-1", 1, 0.0, 0.0, None, (counted,), ())
    given = msgspec.to_builtins(whole)
    del given["deployments"][0]["first_token"]
    assert parse_message(msgspec.json.encode(given)) == whole
    assert counted.first_token is None


@pytest.mark.slow
async def test_concurrency_is_an_integral(gateway):
    """Held requests count for the time they are held."""
    await gateway.serve_by()
    reader = await gateway.inner()
    task = asyncio.create_task(gateway.embed(x_deadline_ms="600"))
    await gateway.until_accepted(1)
    assert (await task).status == 503
    while True:
        [seen] = (await reader.next("report"))["deployments"]
        if seen["failed"]:
            break
    assert 0.55 <= seen["concurrency_s"] <= 2
    reader.close()


def test_the_socket_is_private_and_a_second_gateway_of_its_name_is_refused(tmp_path):
    """Mode 0600; a dead one's is replaced."""
    listener = bind_inner(tmp_path / "run", "gateway-1")
    path = inner_socket_path(tmp_path / "run", "gateway-1")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InnerSocketTaken, match="gateway-1"):
        bind_inner(tmp_path / "run", "gateway-1")
    listener.close()
    bind_inner(tmp_path / "run", "gateway-1").close()
    assert gateway_names(tmp_path / "run") == ("gateway-1",)


def test_a_deep_state_directory_is_reached_all_the_same(tmp_path):
    """A path of more than 100 bytes does not fit a socket's address, and need not."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    listener = bind_inner(deep, "gateway-1")
    connect_inner(deep, "gateway-1").close()
    listener.close()
    with pytest.raises(OSError, match="refused"):
        connect_inner(deep, "gateway-1")


@pytest.mark.parametrize("name", ["", "x", "gateway/1", "gateway-" + "1" * 99])
def test_names_that_are_no_file_names_are_refused(tmp_path, name):
    """The message says what is accepted."""
    with pytest.raises(ValueError, match="for example gateway-1"):
        inner_socket_path(tmp_path, name)


async def test_a_restarted_gateway_serves_from_the_file_at_once(home, make_agent):
    """No control plane is needed for it."""
    first = await RunningGateway(home).start()
    await first.serve_by(await make_agent())
    await first.stop()
    second = await RunningGateway(home).start()
    assert (await second.embed()).status == 200
    await second.assert_conserved()
    await second.stop()

"""Route snapshots: what is taken, what is ignored, and that nobody needs the one who writes them."""

import asyncio
import json
from dataclasses import asdict

import pytest
from gateway_harness import deployment, key, until

from appliance.gateway.routes import BadSnapshot, RouteFile, parse_snapshot
from appliance.policies.snapshot import AgentRoute, Generation, KeyRoute, RouteSnapshot


def write(path, epoch, number, **parts):
    snapshot = RouteSnapshot(Generation(epoch, number), 0.0, **parts)
    fresh = path.with_suffix(".tmp")
    fresh.write_bytes(json.dumps(asdict(snapshot)).encode())
    fresh.replace(path)


@pytest.fixture
def file(tmp_path):
    return RouteFile(tmp_path / "routes.json", tmp_path / "kept.json")


def test_generations(file, tmp_path):
    """Newer is taken, older and equal are not, another epoch always is, whatever its number."""
    path = tmp_path / "routes.json"
    for epoch, number, taken in [
        ("a", 5, True),
        ("a", 6, True),
        ("a", 4, False),
        ("a", 6, False),
        ("b", 1, True),
        ("a", 7, True),
    ]:
        write(path, epoch, number)
        assert (file.poll() is not None) == taken, (epoch, number)
    assert file.table.generation == Generation("a", 7)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not understood"),
        (b"{", "not understood"),
        (b"\xff\xfe", "not understood"),
        (b"[]", "not understood"),
        (b'{"generation":{"epoch":"a","number":"x"},"written_at":1}', "number"),
        (b'{"generation":{"epoch":"a","number":9},"written_at":1,"format":2}', "format 2"),
    ],
    ids=["empty", "cut off", "bytes", "list", "wrong type", "other format"],
)
def test_garbage_is_named_in_the_log_once_and_ignored(file, tmp_path, caplog, raw, why):
    """The last good snapshot goes on."""
    path = tmp_path / "routes.json"
    write(path, "a", 1)
    assert file.poll()
    path.write_bytes(raw)
    assert [file.poll(), file.poll()] == [None, None]
    assert file.table.generation.number == 1
    [record] = caplog.records
    assert "ignored" in record.message
    assert why in record.message
    write(path, "a", 2)
    assert file.poll()


def test_values_that_cannot_be_served_are_refused():
    """Slots below one and digests that are none would break later, far from their cause."""
    agent = AgentRoute("a-1", "mini", "box", "127.0.0.1", 1, ("00",), "warm", 0, 1)
    for parts in ({"agents": (agent,)}, {"keys": (KeyRoute("zz", "k", "t"),)}):
        raw = json.dumps(asdict(RouteSnapshot(Generation("a", 1), 0.0, **parts))).encode()
        with pytest.raises(BadSnapshot, match=r"'(a-1|k)'"):
            parse_snapshot(raw)


@pytest.mark.parametrize("present", [None, b"garbage"], ids=["missing", "garbage"])
def test_the_last_good_one_is_kept_for_a_restart(tmp_path, present):
    """A gateway that starts anew without a usable file serves what it served last."""
    path, kept = tmp_path / "routes.json", tmp_path / "run" / "kept.json"
    write(path, "a", 3)
    assert RouteFile(path, kept).load_first()
    path.unlink()
    if present is not None:
        path.write_bytes(present)
    again = RouteFile(path, kept)
    assert again.load_first().generation == Generation("a", 3)
    assert kept.stat().st_mode & 0o777 == 0o600
    write(path, "b", 1)
    assert again.poll().generation == Generation("b", 1)


def test_unknown_policy_falls_back(file, tmp_path, caplog):
    """A name this gateway lacks costs the policy, not the deployment."""
    from appliance.gateway.routes import DEFAULT_POLICY, usable_policy  # noqa: PLC0415 - for this test alone

    assert usable_policy(deployment(balancing="fastest")) == DEFAULT_POLICY
    assert "fastest" in caplog.text


async def test_keys_come_and_go_with_snapshots(gateway, make_agent):
    """A new key opens and a revoked one closes as soon as the snapshot is served; both are reported."""
    agent = await make_agent()
    reader = await gateway.inner()
    await gateway.serve_by(agent, keys=[key("one")])
    assert (await gateway.embed(text_key="one")).status == 200
    assert (await gateway.embed(text_key="two")).status == 401
    generation = gateway.publish(agent, keys=[key("two")])
    event = await reader.next("generation", generation=asdict(generation))
    assert event["gateway"] == "gateway-1"
    assert (await gateway.embed(text_key="two")).status == 200
    assert (await gateway.embed(text_key="one")).status == 401
    reader.close()


async def test_a_snapshot_is_served_within_its_bound(gateway):
    """Well inside 200 ms, seen from outside; here without a clock: within a few polls."""
    await gateway.serve_by(deployments=[deployment(name="new")])
    assert [m["id"] for m in (await gateway.ask("GET", "/v1/models")).json()["data"]] == ["new"]


async def test_serves_on_without_the_control_plane(gateway, make_agent, caplog):
    """The file may vanish or turn to garbage: clients notice nothing."""
    await gateway.serve_by(await make_agent())
    (gateway.home / "routes.json").unlink()
    assert gateway.gateway._routes.poll() is None
    assert (await gateway.embed()).status == 200
    gateway.write_routes(b"garbage")
    await until(lambda: "is ignored" in caplog.text)
    assert (await gateway.embed()).status == 200
    assert (await gateway.ask("GET", "/readyz")).status == 200


async def test_what_waits_for_a_removed_deployment_is_told(gateway):
    """Its requests are answered with 404; its counters stay in the sum."""
    await gateway.serve_by()
    task = asyncio.create_task(gateway.embed())
    await gateway.until_accepted(1)
    await gateway.serve_by(deployments=[])
    response = await task
    assert (response.status, response.error["code"]) == (404, "model_not_found")
    samples = await gateway.metrics()
    assert samples["millwright_accepted_total"] == samples["millwright_finished_total{failed}"] == 1


async def test_what_is_in_flight_for_a_removed_deployment_is_finished(gateway, make_agent):
    """Only new requests are refused."""
    from scripted_agent import HANG  # noqa: PLC0415 - for this test alone

    agent = await make_agent(script=lambda _: HANG)
    await gateway.serve_by(agent)
    await gateway.ready(agent)
    task = asyncio.create_task(gateway.embed())
    await gateway.until_accepted(1)
    await gateway.serve_by(deployments=[])
    assert (await gateway.embed()).status == 404
    agent.answer_hung()
    assert (await task).status == 200
    await until(lambda: agent.connections == 0)
    assert (await gateway.metrics())["millwright_finished_total{answered}"] == 1

"""A lane on a real host: it sees, brings an agent, and outlives what hosts do."""

import time

import pytest
from django.conf import settings
from enrolment_builders import NOW, Mill, ask_ready
from fleet_groups import wait_until

from appliance.authority import ensure_authority
from appliance.control.hands import AgentSpec
from appliance.control.lanes import Lanes
from appliance.control.node_seen import NodeAccess
from appliance.control.remote_hands import RemoteHands
from provisioning.delivery import deliver_release

pytestmark = pytest.mark.slow
PORT = 9201


@pytest.fixture
def mill(tmp_path):
    mill = Mill(tmp_path)
    mill.authority = ensure_authority(settings.ENVIRONMENT)
    return mill


@pytest.fixture
def lanes(mill):
    lanes = Lanes(mill.identity, on_begin=lambda _name: None)
    yield lanes
    lanes.close()


def codes(lane):
    return [problem.code for problem in lane.problems()]


def test_a_lane_sees_brings_and_outlives_a_hang_and_a_reboot(boot, mill, lanes):
    """What is brought is seen to live; a hang is told within seconds; after a reboot all is as it was."""
    host = boot("lane")
    enrolled = mill.enroll(host)
    release = mill.release(enrolled).sha256
    address, key = enrolled.address, enrolled.host_key
    lanes.keep(
        [NodeAccess("lane", address.host, address.port, address.user, key.fingerprint, key.kind, release)]
    )
    lane = lanes.lane("lane")
    hands = RemoteHands(settings.ENVIRONMENT, lane, mill.authority)
    wait_until(lambda: lane.observation() and lane.observation().hardware, 20, "the lane to see the host")
    assert lane.problems() == ()
    assert abs(lane.observation().skew_s) < 2.0

    built = mill.release(enrolled)
    lane.submit("release", lambda _node, client: deliver_release(client, built) and None)
    wait_until(lambda: not lane.names(), 60, "the release")
    assert [result.error for result in lane.take_results()] == [""]
    issued = hands.install(_spec(host), NOW)
    hands.start("fake-000001")
    wait_until(lambda: not hands.in_hand(), 20, "the agent to be brought")
    assert hands.take_failures() == {}
    assert "fake-000001" in hands.running()
    assert hands.is_installed("fake-000001", [issued.sha256])
    tls = mill.client_tls()
    wait_until(lambda: ask_ready(host, PORT, tls) == 200, 30, "the agent to be ready")

    boot_id, began = lane.observation().boot_id, time.monotonic()
    host.hang()
    wait_until(lambda: codes(lane) == ["hung"], 20, "the hang to be told")
    print("hang told after", round(time.monotonic() - began, 1))
    host.resume()
    wait_until(lambda: lane.problems() == (), 20, "the lane to be well again")
    assert lane.observation().boot_id == boot_id

    began = time.monotonic()
    host.reboot()
    up = time.monotonic()
    wait_until(lambda: lane.observation().boot_id != boot_id, 60, "the next boot to be seen")
    print("rebooted after", round(up - began, 1), "seen after another", round(time.monotonic() - up, 1))
    wait_until(lambda: ask_ready(host, PORT, tls) == 200, 60, "the agent to be ready again")
    wait_until(lambda: "fake-000001" in hands.running(), 10, "the agent to be seen again")

    host.run("systemctl kill --signal=SIGKILL millwright-agent-fake-000001; true")
    hands.stop("fake-000001")
    wait_until(lambda: "fake-000001" not in hands.running(), 30, "the agent to end")
    hands.forget("fake-000001")
    wait_until(lambda: "fake-000001" not in lane.observation().agents, 20, "the agent to be forgotten")
    lane.close()
    assert lane.join(5.0)


@pytest.mark.parametrize("older", [False, True], ids=["today's steward", "one that knows no bring"])
def test_agents_are_brought_together(boot, mill, lanes, older):
    """All that wait come to the box and serve, and are there again after a power cut; one stopped is not."""
    host = boot("older" if older else "today")
    enrolled = mill.enroll(host)
    built = mill.release(enrolled)
    address, key = enrolled.address, enrolled.host_key
    lanes.keep(
        [
            NodeAccess(
                host.name, address.host, address.port, address.user, key.fingerprint, key.kind, built.sha256
            )
        ]
    )
    lane = lanes.lane(host.name)
    hands = RemoteHands(settings.ENVIRONMENT, lane, mill.authority)
    if older:
        host.run('sed -i \'s/"bring"/"burnt"/g\' /usr/local/lib/millwright/steward')
    lane.submit("release", lambda _node, client: deliver_release(client, built) and None)
    names = [f"fake-00000{number}" for number in range(4)]
    for number, name in enumerate(names):
        hands.install(_spec(host, id=name, port=PORT + number), NOW)
        hands.start(name)
    wait_until(lambda: not hands.in_hand(), 60, "the agents to be brought")
    assert hands.take_failures() == {}
    assert host.journal(lines=2000).count(" bring ") == (0 if older else 1)
    tls = mill.client_tls()

    def ready():
        return [number for number in range(4) if ask_ready(host, PORT + number, tls) == 200]

    wait_until(lambda: ready() == [0, 1, 2, 3], 60, "all to be ready")
    hands.stop(names[0])
    wait_until(lambda: names[0] not in hands.running(), 30, "one to end")
    host.run("sync")
    host.cut_power()
    host.start()
    wait_until(lambda: ready() == [1, 2, 3], 60, "the others to be ready again")
    assert names[0] not in host.run("systemctl list-units --no-legend 'millwright-agent-*'")


def _spec(host, **given):
    whole = {
        "id": "fake-000001", "deployment": "d", "revision": "d-1", "task": "embed", "digest": "ab" * 32,
        "engine": "fake", "host": host.address, "port": PORT,
        "profile": {"workers": 1, "threads": 1, "batch_size": 1},
    }  # fmt: skip
    return AgentSpec(**{**whole, **given})

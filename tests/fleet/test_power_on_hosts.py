"""Real boxes that sleep and are woken: by order, by load, and one that does not come back."""

import pytest
from appliance_process import wait_until
from wake_cards import WakeCards, mac_of

pytestmark = pytest.mark.slow
NAMES = ("power-one", "power-two")
WAIT_S = 170
PATIENT = ("--wait", "--timeout", str(WAIT_S))
#: Containers share their kernel's sleep: the box is given a kernel that can, and a record of being told.
CAN_SUSPEND = """
mkdir -p /etc/systemd/system/systemd-suspend.service.d
printf '[Service]\\nExecStart=\\nExecStart=/bin/touch /root/suspended\\n' \
    >/etc/systemd/system/systemd-suspend.service.d/record.conf
systemctl daemon-reload
mount -o remount,rw /sys && mkdir -p /sys/power && echo 'freeze mem' >/sys/power/state
"""
#: Nothing sleeps by itself.
STILL = ("sleep_after_s=0", "sleep_how=suspend", "headroom_nodes=0", "stay_awake_s=0", "wake_timeout_s=180")
DEFAULTS = ("sleep_after_s=600", "sleep_how=suspend", "headroom_nodes=1", "stay_awake_s=300")


@pytest.fixture(scope="module")
def boxes(fleet, shared_site):
    """Two nodes that can be woken, of which nothing sleeps by itself."""
    hosts = [fleet.start(name, wait=False) for name in NAMES]
    try:
        for host in hosts:
            host.wait_ready()
        shared_site.run("set_power", *STILL)
        powers = [("--power", f"wol:{mac_of(host)}") for host in hosts]
        ways = zip(hosts, powers, strict=True)
        for one in [shared_site.begin_enroll(host, options=power) for host, power in ways]:
            assert one.finish().code == 0
        yield hosts
    finally:
        shared_site.run("set_power", *DEFAULTS)
        shared_site.clear()
        fleet.remove(*NAMES)


@pytest.fixture(scope="module")
def cards(fleet, boxes):
    with WakeCards(fleet.network.bridge, boxes) as listening:
        yield listening


@pytest.fixture
def heard(shared_site, boxes, cards):
    """What the cards hear from now on; both boxes are awake, and hold nothing."""
    shared_site.run("set_power", *STILL)
    shared_site.run("undeploy", "minilm", check=False)
    cards.deaf.clear()
    for host in boxes:
        shared_site.run("wake_node", host.name, "--timeout", str(WAIT_S))
    wait_until(lambda: {state(shared_site, host) for host in boxes} == {"ready"}, WAIT_S, "both are awake")
    cards.heard.clear()
    return cards.heard


def state(site, host):
    return site.states()[host.name]


def test_a_box_that_cannot_suspend_says_so(shared_site, boxes, heard):
    """The command fails with the box's own reason, and the node serves on."""
    told = shared_site.run("suspend_node", boxes[1].name, check=False)
    assert told.returncode == 1
    assert "the node cannot suspend: its kernel offers no suspend to memory" in told.stderr
    assert state(shared_site, boxes[1]) == "ready"
    assert not heard


def test_suspended_by_order_and_woken_by_a_packet(shared_site, key, boxes, heard):
    """Its agent leaves for the other box; asleep it is no alarm; a real magic packet brings it back."""
    one, two = boxes
    one.run(CAN_SUSPEND)
    shared_site.run("cordon_node", two.name)
    shared_site.deploy(1, one)
    shared_site.run("uncordon_node", two.name)
    shared_site.run("suspend_node", one.name, "--no-wait")
    wait_until(lambda: "yes" in one.run("test -e /root/suspended && echo yes; true"), WAIT_S, "it is told")
    assert shared_site.ready_on() == [two.name]
    one.cut_power()  # as it looks from outside: it says nothing more, and closes nothing
    wait_until(lambda: state(shared_site, one) == "asleep", WAIT_S, "it is asleep")
    shared_site.ask(key)
    assert shared_site.node_row(one.name)["problems"] == "[]"
    assert not heard
    shared_site.run("wake_node", one.name, "--timeout", str(WAIT_S))
    assert set(heard) == {one.name}
    assert state(shared_site, one) == "ready"


def test_load_switches_boxes_off_and_on(shared_site, key, boxes, heard):
    """Idle boxes switch themselves off; an agent without room wakes one and serves there, without people."""
    shared_site.run("set_power", "sleep_after_s=2", "sleep_how=power_off")
    wait_until(lambda: not any(host.is_on for host in boxes), WAIT_S, "both are off")
    wait_until(lambda: {state(shared_site, host) for host in boxes} == {"asleep"}, WAIT_S, "both are asleep")
    shared_site.run("deploy", "minilm", "--model", "minilm", "--min", "1", "--max", "1", *PATIENT)
    shared_site.ask(key)
    (name,) = shared_site.ready_on()
    assert set(heard) == {name}
    by_load = shared_site.query(
        "SELECT 1 FROM appliance_auditevent WHERE actor = 'autoscaler' AND verb = 'wake_node' AND target = ?",
        name,
    )
    assert by_load


def test_a_box_that_does_not_come_back(shared_site, boxes, cards, heard):
    """Sent for three times, then a problem that says so; nothing goes on, and others are not touched."""
    gone, other = boxes
    shared_site.run("suspend_node", gone.name, "--power-off", "--timeout", str(WAIT_S))
    wait_until(lambda: not gone.is_on, WAIT_S, "it is off")
    cards.deaf.add(gone.name)
    shared_site.run("set_power", "wake_timeout_s=5")
    told = shared_site.run("wake_node", gone.name, check=False)
    assert told.returncode == 1
    assert f"{gone.name}: does not wake: it did not answer within 5 s, 3 times" in told.stderr
    assert set(heard) == {gone.name}
    rows = {row["name"]: row for row in shared_site.run_json("fleet")["nodes"]}
    assert (rows[gone.name]["state"], rows[other.name]["state"]) == ("unreachable", "ready")
    assert "did_not_wake" in rows[gone.name]["problems"]
    count = len(heard)
    gone.start()  # somebody presses its button
    wait_until(lambda: state(shared_site, gone) == "ready", WAIT_S, "it is back")
    assert shared_site.node_row(gone.name)["problems"] == "[]"
    assert len(heard) == count

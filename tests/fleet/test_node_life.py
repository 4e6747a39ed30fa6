"""Nodes restart, lose their power and are upgraded under load: no request fails, and all comes back."""

import contextlib
import math
import threading
import time

import pytest
from appliance_process import wait_until
from fleet_appliance import FleetAppliance, add_releases, copy_bare_home, copy_checkout
from traffic import Traffic, assert_conserved, counters

pytestmark = pytest.mark.slow
RPS = 40
ROUND_S = 3
#: What no request may take though its agent went silent; where nothing else runs it is 0.1 to 0.45 s.
SOON_MS = 2500
THREE = ("fleet-first", "fleet-second", "fleet-third")


@pytest.fixture(scope="module")
def site(fleet, bare_home, tmp_path_factory):
    """An appliance from a checkout of its own, that tests may change; three nodes with an agent each."""
    folder = tmp_path_factory.mktemp("life")
    checkout = copy_checkout(folder / "checkout")
    appliance = FleetAppliance(copy_bare_home(bare_home, folder / "home", checkout), root=checkout)
    hosts = [fleet.start(name, wait=False) for name in THREE]
    try:
        with appliance:
            appliance.start()
            for host in hosts:
                host.wait_ready()
            for one in [appliance.begin_enroll(host) for host in hosts]:
                assert one.finish().code == 0
            appliance.deploy(3, *hosts)
            yield appliance
    finally:
        fleet.remove(*THREE)


@pytest.fixture(scope="module")
def key(site):
    """A key of that appliance."""
    return site.create_key("life")


@pytest.fixture
def hosts(fleet, site):
    """Its hosts that serve now, two at least."""
    wait_back(site, time.monotonic())
    return [fleet.hosts[name] for name in sorted(set(site.ready_on()))]


@contextlib.contextmanager
def load(appliance, key, most_ms=math.inf):
    """Requests as long as the block lasts; none fails or takes over `most_ms`, and the books balance."""
    over, summaries = threading.Event(), []

    def keep_on():
        while not over.is_set():
            with Traffic(appliance, key, rps=RPS, seconds=ROUND_S) as traffic:
                pass
            summaries.append(traffic.summary)

    before = accepted(appliance)
    thread = threading.Thread(target=keep_on)
    thread.start()
    try:
        wait_until(lambda: accepted(appliance) > before + RPS / 2, 30, "requests flow")
        yield
    finally:
        over.set()
        thread.join()
    longest = max(summary.latency.max_ms for summary in summaries)
    requests = sum(summary.requests for summary in summaries)
    print(f"\n{requests} requests, longest {longest:.0f} ms")
    assert longest <= most_ms
    for summary in summaries:
        assert (summary.failed, summary.statuses) == (0, {"200": summary.answered}), appliance.log_tails()
        assert summary.requests >= RPS * ROUND_S * 0.7
    assert_conserved(appliance)


def accepted(appliance):
    return sum(
        value for (name, _), value in counters(appliance).items() if name == "millwright_accepted_total"
    )


def wait_back(appliance, began, host=None):
    """All nodes are ready again, as many agents as are wanted serve, and one of them on `host`."""

    def is_back():
        there = appliance.ready_on()
        return len(there) == len(THREE) and (host is None or host.name in there)

    wait_until(lambda: is_back() and all(map(appliance.is_settled, THREE)), 90, "all is back")
    print(f"\nall there after {time.monotonic() - began:.1f} s")
    states = appliance.states()
    assert {name: states[name] for name in THREE} == dict.fromkeys(THREE, "ready")


def test_a_reboot_under_load(site, key, hosts):
    """Ordered, it costs no request; the node comes back to ready, and its agent serves again by itself."""
    host = hosts[0]
    boots = host.boots
    with load(site, key):
        began = time.monotonic()
        site.run("reboot_node", host.name)
        assert host.boots == boots + 1
        wait_back(site, began, host)


def test_a_measurement_under_load(site, key, hosts):
    """An agent leaves service to measure its box and comes back: no request fails, and its speed is known."""
    host = hosts[0]
    with load(site, key):
        began = time.monotonic()
        site.run("calibrate_node", host.name)
        wait_back(site, began, host)
    (profile,) = site.query("SELECT * FROM appliance_profile WHERE source = 'measured'")
    assert profile["capacity_rps"] > 0
    assert profile["workers"] * profile["threads"] >= 1


@pytest.mark.parametrize(
    ("lose", "restore"), [("cut_power", "start"), ("disconnect", "connect")], ids=["power", "cable"]
)
def test_a_box_is_gone_under_load(site, key, hosts, lose, restore):
    """Without power or line: others answer its requests in a moment, and once back it serves by itself."""
    host = hosts[1]
    with load(site, key, SOON_MS):
        getattr(host, lose)()
        wait_until(lambda: host.name not in site.ready_on(), 30, "it is known to be gone")
        wait_until(lambda: site.states()[host.name] == "unreachable", 30, "it is unreachable")
        began = time.monotonic()
        getattr(host, restore)()
        wait_back(site, began, host)


def change_agents(appliance, name, change):
    """Change a source of the agents and start the appliance again with it; returns the undoing."""
    path = appliance.root / "agents" / name
    before = path.read_text()
    path.write_text(change(before))
    add_releases(appliance.home, appliance.root, ("3.11",))
    appliance.stop()
    appliance.start()
    return lambda: path.write_text(before)


def releases(appliance):
    """The release of each node, and of each running agent, by node."""
    nodes = {name: appliance.node_row(name)["release_sha256"] for name in THREE}
    agents = {
        row["name"]: row["release_sha256"]
        for row in appliance.query(
            "SELECT node.name, agent.release_sha256 FROM appliance_agent agent"
            " JOIN appliance_node node ON node.id = agent.node_id WHERE agent.state = 'ready'"
        )
    }
    return nodes, agents


def is_over(appliance):
    return not appliance.query("SELECT 1 FROM appliance_node WHERE operation != ''")


def test_an_upgrade_of_all_under_load(site, key, hosts):
    """Node after node runs the new release; no request fails."""
    old, _ = releases(site)
    change_agents(site, "__init__.py", lambda text: f"{text}# another release\n")
    began = time.monotonic()
    with load(site, key):
        site.run("upgrade_node", "--all")
        assert is_over(site)
        wait_back(site, began)
    nodes, agents = releases(site)
    assert set(agents.values()) == set(nodes.values())
    assert len(set(nodes.values())) == 1
    assert not set(nodes.values()) & set(old.values())


def test_a_bad_release_stops_at_the_first_node(site, key, hosts):
    """Agents that cannot start: the first node has its old release again, the others keep theirs."""
    before, _ = releases(site)
    undo = change_agents(site, "__main__.py", lambda _: "raise SystemExit('cannot start')\n")
    try:
        began = time.monotonic()
        with load(site, key):
            told = site.run("upgrade_node", "--all", check=False)
            assert is_over(site)
            wait_back(site, began)
    finally:
        undo()
    assert told.returncode == 1, told
    nodes, agents = releases(site)
    assert nodes == before
    assert set(agents.values()) == set(before.values())
    failed = [name for name in THREE if "upgrade_failed" in site.node_row(name)["problems"]]
    assert len(failed) == 1
    assert f"CommandError: {failed[0]}: " in told.stderr

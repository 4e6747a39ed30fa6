"""A lane on a played node: what it sees, what it does, and how it behaves when the node does not."""

import threading
import time
from dataclasses import replace

import pytest
from lane_builders import IDENTITY, QUICK, PlayedNode, access, make_lane, unit, wait

from appliance.control.lanes import Lanes
from provisioning.errors import (
    ConnectionLost,
    DiskFull,
    HostKeyChanged,
    KeyRefused,
    StewardError,
    StewardMissing,
    Unreachable,
)
from provisioning.planning import MAX_SKEW_S


@pytest.fixture
def node():
    return PlayedNode()


@pytest.fixture
def lane(node):
    lane = make_lane(node)
    lane.start()
    yield lane
    node.gate.set()
    lane.close()
    assert lane.join(5.0)


def codes(lane):
    return [problem.code for problem in lane.problems()]


def soon(monkeypatch):
    """Breaks count at once."""
    monkeypatch.setattr("appliance.control.node_problems.BREAK_S", 0.05)


def test_a_lane_tells_what_the_node_says(node, lane):
    """Boot, steward, clock, hardware and agents come with the first answers; before them there is nothing."""
    node.agents["a"] = unit(pid=41)
    seen = wait(lambda: (seen := lane.observation()) and "a" in seen.agents and seen.hardware and seen)
    assert (seen.boot_id, seen.agents["a"].pid, abs(seen.skew_s) < 1.0) == ("boot-1", 41, True)
    assert (seen.hardware["disk_free_bytes"], seen.agents["a"].certificate_sha256) == (10**10, "ce" * 32)
    assert lane.problems() == ()


def test_a_lane_that_has_heard_nothing_tells_nothing():
    """Before its first answer a lane has no observation, and no problems."""
    lane = make_lane(PlayedNode())
    assert (lane.observation(), lane.problems(), lane.names()) == (None, (), frozenset())


def test_jobs_run_in_order(node, lane):
    """What was asked first is done first, and every end is told once."""
    order = []
    for number in range(5):
        assert lane.submit(f"job:{number}", lambda _node, _client, number=number: order.append(number))
    results = []
    wait(lambda: results.extend(lane.take_results()) or len(results) == 5)
    assert (order, [result.error for result in results]) == ([0, 1, 2, 3, 4], [""] * 5)
    assert lane.take_results() == []


def test_a_job_stays_in_hand_until_its_effect_is_seen(node, lane):
    """When an agent leaves `in_hand`, the observation already shows what was done to it."""
    wait(lane.observation)
    for number in range(20):
        agent = f"a{number}"
        lane.submit(
            f"agent:{agent}", lambda _node, client, a=agent: client.ask("start", agent=a), agent=agent
        )
        until = time.monotonic() + 10.0
        while agent in lane.in_hand():  # looked at more often than `wait` does
            assert time.monotonic() < until
            time.sleep(0.0005)
        assert lane.observation().agents[agent].is_living


def test_a_name_is_queued_once(node, lane):
    """A job whose like waits or runs is refused, and taken again afterwards."""
    node.gate.clear()
    assert lane.submit("agent:a", lambda _node, client: client.ask("start", agent="a"), agent="a")
    assert not lane.submit("agent:a", lambda _node, _client: None, agent="a")
    assert (lane.names(), lane.in_hand()) == ({"agent:a"}, {"a"})
    node.gate.set()
    wait(lambda: not lane.names())
    assert lane.submit("agent:a", lambda _node, _client: None, agent="a")


def test_a_job_that_fails_says_why_and_the_next_one_runs(node, lane):
    """A refusal ends its job alone, with cause and remedy in one line; so does a fault of the job itself."""
    node.refuses["start"] = StewardError("no room", reason="disk", remedy="make some")
    lane.submit("one", lambda _node, client: client.ask("start", agent="a"))
    lane.submit("two", lambda _node, _client: 1 / 0)
    lane.submit("three", lambda _node, _client: None)
    results = []
    wait(lambda: results.extend(lane.take_results()) or len(results) == 3)
    assert [result.error for result in results] == [
        "no room; make some",
        "ZeroDivisionError: division by zero",
        "",
    ]
    assert [result.code for result in results] == ["steward_refused", "fault", ""]
    assert node.connects == 1


def test_a_broken_connection_fails_the_job_and_is_made_anew(node, lane):
    """The job is not tried again by itself; the lane connects again and goes on."""
    wait(lane.observation)
    node.refuses["start"] = ConnectionLost("cut")
    lane.submit("one", lambda _node, client: client.ask("start", agent="a"))
    (result,) = wait(lane.take_results)
    assert (result.code, node.count("start")) == ("connection_lost", 1)
    wait(lambda: node.connects == 2)
    assert lane.problems() == ()


def test_a_short_break_is_no_problem(node, lane):
    """One lost connection that is made again at once is not reported."""
    wait(lane.observation)
    for _ in range(5):
        node.refuses["status"] = ConnectionLost("cut")
        connects = node.connects
        wait(lambda connects=connects: node.connects > connects)
        assert lane.problems() == ()
        del node.refuses["status"]


def test_a_long_break_is_a_problem_and_fails_what_waits(node, lane, monkeypatch):
    """A node that is off is reported with cause and remedy, its jobs fail, and it comes back by itself."""
    wait(lane.observation)
    soon(monkeypatch)
    node.down = Unreachable("no answer")
    problem = wait(lane.problems)[0]
    assert (problem.code, problem.message) == ("unreachable", "no answer")
    assert "check the address" in problem.remedy
    lane.submit("one", lambda _node, _client: None, agent="a")
    assert wait(lane.take_results)[0].code == "unreachable"
    assert lane.in_hand() == frozenset()
    node.down, node.boot_id = None, "boot-2"
    wait(lambda: lane.problems() == ())
    wait(lambda: lane.observation().boot_id == "boot-2")


@pytest.mark.parametrize(
    "error", [HostKeyChanged("HOST KEY CHANGED"), KeyRefused("no")], ids=lambda e: e.code
)
def test_what_does_not_pass_by_itself_is_told_at_once(node, lane, error):
    """Another host key and a refused key are problems from the first time on, until they are gone."""
    wait(lane.observation)
    node.down = error
    wait(lambda: codes(lane) == [error.code])
    node.down = None
    wait(lambda: lane.problems() == ())


def test_a_missing_steward_is_told_at_once_and_clears(node, lane):
    """Where no steward answers, that is the problem; the connection is kept."""
    wait(lane.observation)
    node.refuses["status"] = StewardMissing("no steward answered (exit code 127)")
    wait(lambda: codes(lane) == ["steward_missing"])
    node.refuses.clear()
    wait(lambda: lane.problems() == ())
    assert node.connects == 1


def test_an_outdated_steward_is_told_with_the_way_to_renew_it(node, lane):
    """Another steward than the appliance's is a problem that says what to run."""
    node.steward = "0d" * 32
    (problem,) = wait(lane.problems)
    assert problem.code == "steward_outdated"
    assert "manage.py enroll_node 192.0.2.7" in problem.remedy


def test_a_clock_that_is_off_is_a_problem_until_it_is_set(node, lane):
    """A clock more than half an hour off is reported, and no longer once it is right."""
    node.ahead_s = MAX_SKEW_S + 100
    wait(lambda: codes(lane) == ["clock_off"])
    node.ahead_s = 0.0
    wait(lambda: lane.problems() == ())


def test_a_full_disk_is_a_problem_until_it_is_freer(node, lane):
    """A job that found the disk full leaves a problem, which goes when there is more room."""
    wait(lambda: lane.observation() and lane.observation().hardware)
    node.refuses["receive"] = DiskFull("full")
    node.facts["disk_free_bytes"] = 2 * 10**9
    lane.submit("one", lambda _node, client: client.ask("receive"))
    wait(lambda: codes(lane) == ["disk_full"])
    asked = node.count("facts")
    wait(lambda: node.count("facts") > asked + 2)
    assert codes(lane) == ["disk_full"]
    node.facts["disk_free_bytes"] = 10**10
    wait(lambda: lane.problems() == ())


def test_nobody_waits_for_a_node_that_hangs(node, lane, monkeypatch):
    """While the node does not answer, every call returns at once, and its silence becomes a problem."""
    wait(lane.observation)
    soon(monkeypatch)
    node.gate.clear()
    wait(lambda: codes(lane) == ["hung"])
    began = time.monotonic()
    lane.submit("one", lambda _node, _client: None)
    lane.poke()
    lane.observation(), lane.names(), lane.in_hand(), lane.take_results(), lane.last_lines("a")
    assert time.monotonic() - began < 4.0  # the node never answers
    node.gate.set()
    wait(lambda: lane.problems() == ())


def test_the_end_of_a_lane_cuts_its_connection(node, lane):
    """Closing ends a question that hangs, drops the queue and takes no more."""
    wait(lane.observation)
    node.gate.clear()
    lane.submit("one", lambda _node, _client: None)
    lane.close()
    assert lane.join(2.0)
    assert node.closes
    assert not lane.submit("two", lambda _node, _client: None)
    assert lane.take_results() == []


def test_another_address_is_connected_to_at_once(node, lane):
    """A changed way there cuts the old connection; another release alone does not."""
    wait(lane.observation)
    lane.update(replace(lane.access, release_sha256="0a" * 32))
    asked = node.count("status")
    wait(lambda: node.count("status") > asked + 3)
    assert node.connects == 1
    lane.update(replace(lane.access, host="192.0.2.8"))
    wait(lambda: node.connects == 2)
    wait(lambda: lane.problems() == ())


def test_the_log_of_an_agent_that_ended_is_there_with_its_end(node, lane):
    """When an observation first shows an end, the last log lines are at hand; they go with the agent."""
    node.agents["a"] = unit()
    wait(lambda: lane.observation() and "a" in lane.observation().agents)
    node.agents["a"] = unit("failed", pid=0, code=1, status=3)
    seen = wait(lambda: (agent := lane.observation().agents["a"]).is_living is False and agent)
    assert (seen.exit_code, lane.last_lines("a")) == (3, ("last words",))
    asked = node.count("status")
    wait(lambda: node.count("status") > asked + 3)
    assert node.count("logs") == 1
    node.agents.clear()
    wait(lambda: lane.last_lines("a") == ())


def test_a_node_is_looked_at_while_it_receives(node, lane):
    """A long delivery neither hides what else happens there, nor holds up short work about other agents."""
    wait(lane.observation)
    node.progress = 10_000
    halt = threading.Event()
    node.pace = lambda: time.sleep(0.002)

    def bring(_node, client):
        halt.wait(0.01)
        client.ask("receive")

    lane.submit("agent:big", bring, agent="big", about="big")
    wait(lambda: node.count("receive"))
    node.agents["other"] = unit()
    wait(lambda: "other" in lane.observation().agents)
    lane.submit("stop:big", lambda n, _client: n.stop("big"), about="big", short=True)
    lane.submit("stop:other", lambda n, _client: n.stop("other"), about="other", short=True)
    wait(lambda: lane.names() == {"agent:big", "stop:big"})
    assert [given["agent"] for verb, given in node.given if verb == "stop"] == ["other"]
    lane.drop("agent:big")
    wait(lambda: not lane.names())
    assert [given["agent"] for verb, given in node.given if verb == "stop"] == ["other", "big"]


@pytest.mark.slow
def test_a_resting_node_is_asked_little(node):
    """At rest there is a look each `rest_s`, a hello and facts more rarely, and nothing else."""
    lane = make_lane(node, pace=replace(QUICK, rest_s=0.1, hello_s=0.4, facts_s=60.0))
    lane.start()
    wait(lane.observation)
    time.sleep(1.0)
    lane.close()
    assert lane.join(5.0)
    assert node.count("status") <= 16
    assert node.count("hello") <= 4
    assert node.count("facts") == 1


@pytest.mark.slow
def test_a_node_that_is_off_is_not_tried_in_a_rush(node):
    """Tries are apart even where the loop pokes and orders all the time."""
    node.down = Unreachable("off")
    lane = make_lane(node, pace=replace(QUICK, retry_s=0.1))
    lane.start()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        lane.submit(f"job:{time.monotonic()}", lambda _node, _client: None)
        lane.poke()
        time.sleep(0.002)
    lane.close()
    assert lane.join(5.0)
    assert 3 <= node.connects <= 12


def test_results_and_queue_are_bounded(node):
    """A lane takes a thousand jobs and keeps a thousand results, however many are asked for."""
    lane = make_lane(node)
    taken = [lane.submit(str(number), lambda _node, _client: None) for number in range(1100)]
    assert sum(taken) == 1000
    lane.start()
    wait(lambda: not lane.names())
    lane.submit("more", lambda _node, _client: None)
    wait(lambda: not lane.names())
    assert len(lane.take_results()) == 1000
    lane.close()
    assert lane.join(5.0)


def make_lanes(node):
    return Lanes(IDENTITY, connect=node.connect, pace=QUICK, on_begin=lambda _name: None)


def test_lanes_follow_the_nodes_that_are_wanted():
    """New nodes get lanes, changed ones are told, and lanes of those gone end."""
    node = PlayedNode()
    lanes = make_lanes(node)
    lanes.keep([access("one"), access("two")])
    one, two = lanes.lane("one"), lanes.lane("two")
    wait(one.observation)
    wait(two.observation)
    lanes.keep([access("two", port=2222)])
    assert (lanes.lane("one"), lanes.lane("two"), two.access.port) == (None, two, 2222)
    assert one.join(2.0)
    lanes.close()
    assert two.join(2.0)
    lanes.keep([access("one")])
    assert lanes.lane("one") is None


@pytest.mark.slow
def test_one_hung_node_delays_no_other():
    """Of two hundred nodes one that hangs holds up only itself; each costs one thread."""
    node, hung = PlayedNode(), PlayedNode()
    hung.gate.clear()

    def connect(address, host_key, way):
        return (hung if address.host == "n0" else node).connect(address, host_key, way)

    before = threading.active_count()
    pace = replace(QUICK, rest_s=3.0, lively_for_s=0.0)
    lanes = Lanes(IDENTITY, connect=connect, pace=pace, on_begin=lambda _name: None)
    began = time.process_time()
    try:
        lanes.keep([access(f"n{number}", host=f"n{number}") for number in range(200)])
        wait(lambda: all(lanes.lane(f"n{number}").observation() for number in range(1, 200)), 30.0)
        assert threading.active_count() - before <= 200
        assert lanes.lane("n0").observation() is None
        assert time.process_time() - began < 10.0
    finally:
        ended = [lanes.lane(f"n{number}") for number in range(200)]
        lanes.close()
        hung.gate.set()
        assert all(lane.join(5.0) for lane in ended)

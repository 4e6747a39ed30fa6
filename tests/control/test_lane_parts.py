"""What lanes decide by: when to ask and try again, what counts as a problem, how answers are read."""

import pytest
from lane_builders import unit

from appliance.control.lane_jobs import Job, Jobs
from appliance.control.lane_pace import Pace
from appliance.control.node_problems import (
    BREAK_S,
    Full,
    Trouble,
    find_problems,
    is_break,
    problem_of,
    still_full,
)
from appliance.control.node_seen import JobResult, Observation, parse_agents, parse_facts, parse_hello
from provisioning.errors import ConnectionLost, HostKeyChanged, StewardMissing, Unreachable

OFF = problem_of(Unreachable("off"))


def seen(**given):
    whole = {"at": 0.0, "boot_id": "b", "steward_sha256": "s", "skew_s": 0.0, "hardware": None, "agents": {}}
    return Observation(**{**whole, **given})


@pytest.mark.parametrize(
    ("lasts_s", "pause_s"),
    [(0, 0.5), (59, 0.5), (60, 1.0), (300, 5.0), (600, 10.0), (86400, 10.0)],
)
def test_tries_become_rarer(lasts_s, pause_s):
    """A box that restarts is back quickly; one that stays off is tried every ten seconds."""
    assert Pace().pause(Trouble(OFF, 100.0), 100.0 + lasts_s) == pause_s


def test_a_refused_key_is_tried_slowly():
    """What the box may take for guessing is tried every five seconds, later ten."""
    trouble = Trouble(problem_of(HostKeyChanged("other")), 0.0)
    assert (Pace().pause(trouble, 1.0), Pace().pause(trouble, 100.0)) == (5.0, 10.0)


@pytest.mark.parametrize(
    ("changed_at", "passing", "until_s"),
    [(-100.0, False, 2.0), (9.0, False, -0.25), (-100.0, True, -0.25)],
    ids=["at rest", "just changed", "starting"],
)
def test_a_node_is_looked_at_as_closely_as_it_changes(changed_at, passing, until_s):
    """Every three seconds at rest, every three quarters of one while something changes."""
    assert Pace().until_look(9.0, changed_at, passing, 10.0) == until_s


def test_a_break_counts_after_five_seconds():
    """Failures count once the node was silent for long enough; so does a question without an answer."""
    trouble = Trouble(problem_of(ConnectionLost("cut")), 10.0)
    assert is_break(trouble, 9.0, None, 9.0 + BREAK_S - 0.1) is None
    assert is_break(trouble, 9.0, None, 9.0 + BREAK_S).code == "connection_lost"
    assert is_break(None, 9.0, 10.0, 10.0 + BREAK_S - 0.1) is None
    assert is_break(None, 9.0, 10.0, 10.0 + BREAK_S).code == "hung"
    assert is_break(None, 9.0, None, 1000.0) is None


def test_a_node_without_python_is_told_apart_from_one_without_steward():
    """Sudo's words for a missing interpreter become that problem; others stay a missing steward."""
    words = "no steward answered (exit code 1): sudo: unable to execute /usr/local/lib/x: No such file"
    assert problem_of(StewardMissing(words)).code == "python_missing"
    assert problem_of(StewardMissing("no steward answered (exit code 1): ")).code == "steward_missing"


@pytest.mark.parametrize(
    ("observation", "code"),
    [
        (seen(skew_s=-1801.0), "clock_off"),
        (seen(hardware={"disk_free_bytes": 10**8}), "disk_full"),
        (seen(hardware={"python": "3.9.2"}), "python_too_old"),
        (seen(steward_sha256="old"), "steward_outdated"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_is_wrong_with_a_node_that_answers(observation, code):
    """Each has its code, and says what to do."""
    (problem,) = find_problems(observation, None, "s", "192.0.2.7", 0.0)
    assert problem.code == code
    assert problem.remedy


def test_a_well_node_has_no_problems():
    """Clock, disk, Python and steward as they should be are no problem, nor is what is not known yet."""
    well = seen(hardware={"disk_free_bytes": 10**10, "python": "3.11.2"}, skew_s=1800.0)
    assert find_problems(well, None, "s", "h", 0.0) == ()
    assert find_problems(seen(), None, "s", "h", 0.0) == ()
    assert find_problems(None, None, "s", "h", 0.0) == ()


def test_a_full_disk_is_believed_in_until_it_is_freer_or_ten_minutes_are_over():
    """The room right after the failure is what later room is compared with."""
    full = still_full(Full(0.0, None), 10**9, 1.0)
    assert full == Full(0.0, 10**9)
    assert still_full(full, 10**9 + 10**6, 2.0) == full
    assert still_full(full, 2 * 10**9, 3.0) is None
    assert still_full(full, 10**9, 601.0) is None


@pytest.mark.parametrize(
    "told",
    [{}, {"agents": None}, {"agents": ["a"]}, {"agents": {"a": 1}}],
    ids=["nothing", "null", "list", "no object"],
)
def test_a_nonsense_status_shows_no_agents(told):
    """Answers of a node are untrusted: what is not understood is left out."""
    assert dict(parse_agents(told)) == {}


def test_a_strange_version_ends_nobodys_look():
    """A digit that is none would end the loop of all nodes; it is no version."""
    hardware = parse_facts({"python": "3.\u00b2", "disk_bytes": True, "disk_free_bytes": ["x"]})
    assert {name: hardware.get(name) for name in ("python", "disk_bytes", "disk_free_bytes")} == {
        "python": "", "disk_bytes": None, "disk_free_bytes": None,
    }  # fmt: skip
    assert find_problems(seen(hardware=hardware), None, "s", "h", 0.0) == ()


def test_texts_of_a_node_hold_nothing_that_a_terminal_obeys():
    """Blanks stand for control characters."""
    assert parse_hello({"boot_id": "\x1b[2Jb", "steward": "s\n"}, 0.0).boot_id == " [2Jb"


def test_agents_are_read_as_systemd_shows_them():
    """States, process ids, exit codes, and minus the signal for those that were killed."""
    told = {
        "up": unit("active", pid=7),
        "left": unit("inactive", pid=0, code=1, status=2),
        "shot": unit("failed", pid=0, code=2, status=9),
        "bare": {"unit": {}, "written": None, "sha256": {}},
        "odd": {"unit": {"MainPID": "9" * 50, "ActiveState": ["x"]}, "written": 4, "certificate_sha256": 3},
    }
    agents = parse_agents({"agents": told})
    shown = {name: (agent.is_living, agent.pid, agent.exit_code) for name, agent in agents.items()}
    assert shown == {
        "up": (True, 7, None), "left": (False, 0, 2), "shot": (False, 0, -9),
        "bare": (False, 0, None), "odd": (False, 0, None),
    }  # fmt: skip
    assert (agents["odd"].certificate_sha256, agents["odd"].release) == ("", "")


def test_hello_without_a_time_has_no_skew():
    """A clock that cannot be read is not off."""
    assert [parse_hello({"time": time}, 100.0).skew_s for time in (130.0, None, "x", True, 1e999)] == [
        30.0, 0.0, 0.0, 0.0, 0.0,
    ]  # fmt: skip


def test_facts_are_as_a_row_has_them():
    """Lists and not tuples, so that what comes back from a row is equal; sizes that are none are left out."""
    facts = parse_facts(
        {"cpuinfo": "processor : 0\nflags : sse avx2\n", "python": "3.11.2", "disk_bytes": "x"}
    )
    assert (facts["flags"], facts["python"], "disk_bytes" in facts) == (["avx2", "sse"], "3.11.2", False)
    assert not any(isinstance(value, tuple) for value in facts.values())


def job(name, **given):
    return Job(name, lambda _node, _client: None, **given)


def test_short_jobs_pass_long_ones_but_none_about_the_same_agent():
    """Beside what runs goes the first short job about an agent of which nothing runs or waits before it."""
    jobs = Jobs()
    for one in (
        job("agent:a", about="a"), job("stop:a", about="a", short=True), job("agent:b", about="b"),
        job("stop:b", about="b", short=True), job("stop:c", about="c", short=True),
    ):  # fmt: skip
        assert jobs.add(one)
    assert jobs.take().name == "agent:a"
    assert jobs.take_short().name == "stop:c"
    assert jobs.take_short() is None
    assert jobs.take().name == "stop:a"


def test_what_yields_is_done_last():
    """Agents are brought before others are cleared away, but none before its own."""
    jobs = Jobs()
    for one in (
        job("forget:a", about="a", yields=True), job("forget:b", about="b", yields=True),
        job("agent:b", about="b"), job("agent:c", about="c"),
    ):  # fmt: skip
        jobs.add(one)
    assert [jobs.take().name for _ in range(4)] == ["agent:c", "forget:a", "forget:b", "agent:b"]


def test_a_job_is_first_behind_none_about_its_agent():
    """What may be done with another: it waits, and nothing about its agent runs or waits before it."""
    jobs = Jobs()
    for one in (
        job("agent:a", about="a"), job("stop:b", about="b"), job("agent:b", about="b"),
        job("agent:c", about="c"), job("stop:a", about="a"),
    ):  # fmt: skip
        jobs.add(one)
    jobs.take()
    assert [jobs.is_first(name) for name in ("agent:b", "agent:c", "stop:b")] == [False, True, True]
    assert [jobs.is_first(name) for name in ("agent:a", "stop:a", "agent:d")] == [False, False, False]


def test_what_is_no_longer_wanted_is_dropped_or_broken_off():
    """A job that waits is forgotten; of one that runs it is said until it ends."""
    jobs = Jobs()
    jobs.add(job("one"))
    jobs.add(job("two"))
    running = jobs.take()
    jobs.drop("two")
    jobs.drop("one")
    assert (jobs.names(), jobs.is_unwanted()) == ({"one"}, True)
    jobs.end(running, JobResult("one", "", ""))
    assert (jobs.names(), jobs.is_unwanted(), jobs.take_results()) == ({"one"}, False, [])
    jobs.settle()
    assert (jobs.names(), len(jobs.take_results())) == (frozenset(), 1)


def test_a_fault_of_whoever_asked_ends_nothing(caplog):
    """A callback that raises is logged, and the job is over all the same."""
    jobs = Jobs()
    jobs.add(job("one", on_end=lambda _result: 1 / 0))
    jobs.end(jobs.take(), JobResult("one", "", ""))
    jobs.settle()
    assert jobs.names() == frozenset()
    assert "the end of job one" in caplog.text


@pytest.mark.parametrize(
    ("unit", "lives"),
    [
        ({"ActiveState": "inactive", "Job": "42"}, True),
        ({"ActiveState": "inactive", "Job": "0"}, False),
        ({"ActiveState": "inactive"}, False),
        ({"ActiveState": "failed", "Job": "42"}, False),
    ],
)
def test_a_unit_that_waits_for_the_boot_to_go_on_is_not_at_rest(unit, lives):
    """A start that is queued, as behind the network at boot, counts as living; a failed unit does not."""
    seen = parse_agents({"agents": {"mini-1": {"unit": unit}}})
    assert seen["mini-1"].is_living is lives

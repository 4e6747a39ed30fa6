"""One command makes a bare box a node of a running appliance; another leaves the box as it was."""

import os
import signal
import time

import pytest
from appliance_process import wait_until
from fleet_trees import make_trees
from test_enrolment_on_hosts import EVERYTHING

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_a_bare_box_serves_and_is_left_as_found(boot, site, key, release):
    """Enrolled it is ready, a deployment answers from it, and after retire nothing of ours is there."""
    host = boot("fleet-bare", release)
    before = host.run(EVERYTHING)
    told = site.enroll(host)
    assert site.states()["fleet-bare"] == "ready"
    began = time.monotonic()
    site.run("deploy", "minilm", "--model", "minilm")
    assert len(site.ask(key)) == 384
    first_answer_s = time.monotonic() - began
    wait_until(lambda: site.ready_on() == ["fleet-bare"], 10, "the agent is seen ready")
    began = time.monotonic()
    site.run("retire_node", "fleet-bare")
    wait_until(lambda: site.node_row("fleet-bare")["retired_at"], 60, "the node is retired")
    print(
        f"\n{release}: enrolled in {told.seconds:.1f} s, first answer {first_answer_s:.1f} s later, "
        f"retired in {time.monotonic() - began:.1f} s"
    )
    assert host.run(EVERYTHING) == before
    assert not site.ready_on()
    assert site.states().get("fleet-bare", "retired") == "retired"
    site.enroll(host)
    assert site.states()["fleet-bare"] == "ready"


def test_three_boxes_at_once(boot, site):
    """One command enrolls many boxes beside each other."""
    hosts = [boot(f"fleet-{name}", wait=False) for name in ("one", "two", "three")]
    for host in hosts:
        host.wait_ready()
    told = site.enroll(*hosts)
    print(f"\nthree at once: {told.seconds:.1f} s")
    assert {node["address"] for node in told.nodes} == {host.address for host in hosts}


def test_an_old_system_is_refused_in_one_line(boot, site):
    """Debian 11 has Python 3.9: the refusal names it and what is needed, and nothing was done."""
    make_trees(["bullseye"])
    host = boot("fleet-old", "bullseye")
    before = host.run(EVERYTHING)
    told = site.enroll(host, check=False)
    assert told.code == 1
    assert told.node["code"] == "python_too_old"
    line = f"{told.node['error']}; {told.node['hint']}"
    assert "Python 3.9" in line
    assert "3.10" in line
    assert "\n" not in line
    assert not site.knows("fleet-old")
    assert host.run(EVERYTHING) == before


def test_a_killed_worker_costs_an_enrolment_nothing(boot, site):
    """The worker killed in the middle of a transfer: the next one goes on, and the command sees it ready."""
    host = boot("fleet-worker")
    host.spoil_line(rate_mbit=150)
    enrolling = site.begin_enroll(host)
    enrolling.until(lambda: site.query(
        "SELECT 1 FROM appliance_transfer transfer JOIN appliance_node node ON node.id = transfer.node_id"
        " WHERE node.name = 'fleet-worker' AND transfer.have_bytes > 1000000"
    ), 30, "the release is on its way")  # fmt: skip
    old = site.pid_of("worker")
    os.kill(old, signal.SIGKILL)
    told = enrolling.finish()
    assert (told.code, told.node["state"]) == (0, "ready"), f"{told}\n{site.log_tails()}"
    assert site.pid_of("worker") != old
    wait_until(lambda: site.is_settled("fleet-worker"), 15, "the node is ready")
    assert not site.query("SELECT 1 FROM appliance_enrolment WHERE state IN ('waiting', 'running')")

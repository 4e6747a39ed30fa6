"""Many nodes at once: bounded, each with its own outcome, none waiting for one that hangs."""

import threading
import tracemalloc

import pytest

from provisioning.enrolment import make_first_contact
from provisioning.errors import Hung, Unreachable
from provisioning.fanout import run_on_all
from provisioning.hostkeys import HostKey
from provisioning.identity import create_identity
from provisioning.login import Address, Password
from provisioning.planning import Wanted
from provisioning.testing import ScriptedBox, play
from provisioning.transport import Secret

WANTED = Wanted(b"steward", "ssh-ed25519 AAAA")
IDENTITY = create_identity()


def enroll_on(boxes):
    connect = play(boxes)

    def work(name):
        return make_first_contact(
            Address(name), HostKey("SHA256:x"), Password(Secret("p")), wanted=WANTED, identity=IDENTITY,
            log=lambda _line: None, connect=connect, clock=lambda: 1000.0,
        )  # fmt: skip

    return work


@pytest.mark.slow
def test_two_hundred_boxes_enroll_and_a_hung_one_delays_none():
    """All others are done before the hung one is given up, in a bounded number of threads and bytes."""
    names = [f"box-{number}" for number in range(200)]
    boxes = {name: ScriptedBox() for name in names if name != "box-7"}
    boxes["box-3"].hangs = True
    most, before = 0, threading.active_count()
    tracemalloc.start()
    try:
        outcomes = []
        for outcome in run_on_all(names, enroll_on(boxes), limit_s=5.0, concurrency=16):
            outcomes.append(outcome)
            most = max(most, threading.active_count() - before)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    by_name = {outcome.name: outcome for outcome in outcomes}
    assert sorted(by_name) == sorted(names)
    assert len(outcomes) == 200
    assert isinstance(by_name["box-7"].error, Unreachable)
    assert isinstance(by_name["box-3"].error, Hung)
    assert outcomes[-1].name == "box-3"
    assert {name for name, outcome in by_name.items() if not outcome.ok} == {"box-3", "box-7"}
    assert most <= 16
    assert peak_bytes < 64 << 20


def test_no_more_than_the_bound_at_a_time_and_names_are_drawn_late():
    """The bound holds, and of an endless list of names only as many are taken as there is room for."""
    drawn, gate, running, most = [], threading.Event(), [], []

    def names():
        for number in range(1000):
            drawn.append(number)
            yield str(number)

    def work(name):
        running.append(name)
        most.append(len(running))
        gate.wait(10)
        running.remove(name)

    outcomes = run_on_all(names(), work, limit_s=30, concurrency=4)
    threading.Timer(0.1, gate.set).start()
    next(outcomes)
    assert len(drawn) == 4
    assert max(most) <= 4
    outcomes.close()


def test_every_place_hung_still_lets_the_others_have_their_turn():
    """Hung nodes give their places up after the limit."""
    gate = threading.Event()

    def work(name):
        if name.startswith("hung"):
            gate.wait(30)
        return name

    names = ["hung-1", "hung-2", "well-1", "well-2"]
    try:
        outcomes = list(run_on_all(names, work, limit_s=0.1, concurrency=2))
    finally:
        gate.set()
    assert {outcome.name for outcome in outcomes if outcome.ok} == {"well-1", "well-2"}
    assert {type(outcome.error) for outcome in outcomes if not outcome.ok} == {Hung}


def test_an_unforeseen_error_is_that_nodes_outcome_alone():
    """A fault in the work of one node is told with it, and stops no other."""

    def work(name):
        return 1 / int(name)

    outcomes = {outcome.name: outcome for outcome in run_on_all(["0", "1"], work, limit_s=10)}
    assert outcomes["1"].value == 1.0
    assert outcomes["0"].line == "unforeseen: ZeroDivisionError: division by zero"

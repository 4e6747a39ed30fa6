"""What explains a failure of the soak and what does not; its marks; the relay; and a short soak itself."""

import socket
import threading
import time

import pytest

from tests.bench.relay import Relays
from tests.bench.soak import Soak, run_soak
from tests.bench.soak_explain import Fault, explain
from tests.bench.soak_report import compute_soak_marks, find_miscounts, find_slopes, render_soak
from tests.bench.tally import Event

STOP = Fault("stop", "agent-1", 100.0, 102.0, 102.5, "minilm")
AWAY = Fault("undeploy", "agent-5", 100.0, 103.0, 104.0, "coming")


@pytest.mark.parametrize(
    ("event", "explained"),
    [
        (Event(101.0, 101.5, "hurried", "504", "deadline_exceeded"), True),
        (Event(99.8, 100.3, "hurried", "504", "deadline_exceeded"), True),
        (Event(90.0, 90.5, "hurried", "504", "deadline_exceeded"), False),
        (Event(120.0, 120.5, "hurried", "504", "deadline_exceeded"), False),
        (Event(101.0, 104.0, "hurried", "504", "deadline_exceeded"), False),
        (Event(101.0, 101.5, "patient", "504", "deadline_exceeded"), False),
        (Event(101.0, 101.1, "patient", "closed", ""), False),
        (Event(50.0, 50.1, "rated", "429", "rate_limit_exceeded"), True),
        (Event(50.0, 50.1, "rated", "429", "overloaded"), False),
        (Event(102.0, 102.1, "coming", "404", "model_not_found"), True),
        (Event(107.0, 107.1, "coming", "404", "model_not_found"), False),
        (Event(50.0, 50.1, "nonsense", "400", "None"), True),
    ],
    ids=[
        "deadline passed during a fault", "due before it", "long before it", "long after it",
        "answered late", "a patient one", "a broken connection", "its rate", "no rate", "undeployed",
        "deployed again", "no body",
    ],
)  # fmt: skip
def test_only_what_was_done_explains_a_failure(event, explained):
    """By kind, outcome, code, time and how long it took."""
    assert (explain(event, [STOP, AWAY]) is not None) is explained


def build_soak(**changes):
    counts = {
        "offered": 10, "statuses": {"200": 9}, "failures": {"left": 1},
        "answered_ms": {"p50": 1.0, "p99": 2.0, "max": 3.0},
    }  # fmt: skip
    soak = Soak(600.0, 1, 1000.0, [STOP], [], {"kinds": {"patient": counts}, "all": counts}, balances=1)
    soak.load |= {"events": [], "events_lost": 0}
    soak.codes = {"200": 9.0, "499": 1.0}
    samples = [(1000.0 + second, 77, 50_000_000 + 100 * second, 20) for second in range(600)]
    soak.samples = {"gateway": samples, "agent": samples}
    for name, value in changes.items():
        setattr(soak, name, value)
    return soak


GROWING = [(1000.0 + second, 77, 50_000_000 + 10_000 * second, 20) for second in range(600)]
NEVER = Fault("kill", "agent-1", 100.0, 100.1)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, None),
        ({"troubles": ["1 accepted, but 0 finished"]}, "accepted ="),
        ({"codes": {"200": 8.0}}, "counted the same"),
        ({"faults": [NEVER]}, "came back"),
        ({"descriptors": (20, 25)}, "descriptors"),
        ({"samples": {"gateway": GROWING}}, "memory of the gateway"),
    ],
    ids=["all is well", "no balance", "miscounted", "never back", "descriptors", "memory"],
)
def test_soak_marks_name_what_did_not_hold(changes, missed):
    """Each mark looks at one thing."""
    soak = build_soak(**changes)
    marks = compute_soak_marks(soak)
    assert [
        mark.text for mark in marks if mark.reached is False and (not missed or missed not in mark.text)
    ] == []
    assert any(mark.reached is False for mark in marks) is (missed is not None)
    assert ("DID NOT HOLD" in render_soak(soak, marks)) is (missed is not None)


def test_slopes_leave_out_the_warm_up_and_those_that_lived_shortly():
    """In bytes a minute, of the process that lived last under the name."""
    early = [(1000.0 + second, 77, 10_000_000 + 90_000 * second, 20) for second in range(300)]
    late = [(1300.0 + second, 77, 50_000_000 + 100 * second, 20) for second in range(300)]
    young = [(1500.0 + second, 78, 1000 * second, 20) for second in range(100)]
    soak = build_soak(samples={"gateway": early + late, "young": young})
    assert find_slopes(soak) == {"gateway": pytest.approx(6000)}


def test_clients_that_left_may_have_been_answered():
    """The gateway may count so many answers more, and no others."""
    assert find_miscounts(build_soak(codes={"200": 10.0})) == []
    assert len(find_miscounts(build_soak(codes={"200": 11.0}))) == 1
    assert len(find_miscounts(build_soak(codes={"200": 9.0, "500": 1.0, "503": 2.0}))) == 1


@pytest.fixture
def echo_port():
    """A port that says back what it is told."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=say_back, args=(connection,), daemon=True).start()

    def say_back(connection):
        with connection:
            while piece := connection.recv(1000):
                connection.sendall(piece)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_cut_relay_lets_nothing_pass_until_it_is_mended(echo_port):
    """Then what has waited arrives; a reset breaks the connection."""
    with Relays() as relays:
        port = relays.open(echo_port)
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(b"one")
            assert client.recv(10) == b"one"
            relays.cut(echo_port)
            client.settimeout(0.2)
            client.sendall(b"two")
            with pytest.raises(TimeoutError):
                client.recv(10)
            client.settimeout(5)
            relays.mend(echo_port)
            assert client.recv(10) == b"two"
            relays.reset(echo_port)
            assert client.recv(10) == b""


@pytest.mark.slow
def test_faults_under_mixed_load_leave_no_failure_unexplained(tmp_path):
    """Half a minute of every kind of fault, one after the other; the counters balance after each."""
    began = time.monotonic()
    soak = run_soak(tmp_path, 40.0, 11, None, every_s=1.0)
    marks = compute_soak_marks(soak)
    told = render_soak(soak, marks)
    assert [mark.text for mark in marks if mark.reached is False] == [], told
    assert {fault.name for fault in soak.faults} >= {"kill", "stop", "cut"}, told
    assert time.monotonic() - began < 120

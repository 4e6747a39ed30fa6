"""The arithmetic of overload: goodput, fair shares, slopes, the cost of refusing; and the load itself."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.bench.mixed_load import Kind, MixedPlan, mixed_load
from tests.bench.overload import Overload, Overloads
from tests.bench.overload_report import compute_overload_marks, compute_share, render_overload
from tests.bench.tally import Tally, cost_per_refusal_us, fair_shares, fit_slope


@pytest.mark.parametrize(
    ("demands", "expected"),
    [
        ({"a": 10, "b": 60, "c": 200}, {"a": 10, "b": 45, "c": 45}),
        ({"a": 10, "b": 20}, {"a": 10, "b": 20}),
        ({"a": 500, "b": 500}, {"a": 50, "b": 50}),
        ({}, {}),
    ],
    ids=["one wants little", "all fits", "equals", "nobody"],
)
def test_fair_shares_are_max_min(demands, expected):
    """Nobody gets more at the cost of one who has less, nor more than asked for."""
    assert fair_shares(100, demands) == expected


def test_slope_of_a_line_is_its_own():
    """Exact on a line; None where there is too little to say."""
    assert fit_slope([(x, 5 + 3 * x) for x in range(10)]) == pytest.approx(3)
    assert fit_slope([(0, 1), (1, 2)]) is None
    assert fit_slope([(1, 1), (1, 2), (1, 3)]) is None


def test_cost_of_refusing_leaves_out_answers_and_idling():
    """2.1 s, 0.1 of it idle, 10,000 answers at 100 us: 1 s is left for 20,000 refusals."""
    assert cost_per_refusal_us(2.1, 0.1, 10_000, 100.0, 20_000) == pytest.approx(50)
    assert cost_per_refusal_us(2.1, 0.1, 10_000, 100.0, 0) is None


def test_goodput_counts_what_came_in_time_within_the_window():
    """Late answers, refusals, and what came after the window are no goodput."""
    tally = Tally([("a", 1.0), ("b", None)], 100.0, 10.0)
    for kind in "aaaab":
        tally.offer(kind)
    tally.answer("a", 200, 101.0, 0.5, 0.5)
    tally.answer("a", 200, 102.0, 1.5, 0.5)
    tally.answer("a", 200, 111.0, 0.5, 0.5)
    tally.answer("a", 429, 103.0, 0.002, 0.001)
    tally.answer("b", 200, 104.0, 5.0, 5.0)
    found = tally.to_json()
    a, everything = found["kinds"]["a"], found["all"]
    assert (a["offered"], a["in_time"], a["late"], a["statuses"]) == (4, 1, 1, {"200": 3, "429": 1})
    assert (everything["in_time"], everything["goodput_rps"]) == (2, 0.2)
    assert a["refused_ms"]["p99"] == pytest.approx(2, rel=0.01)
    assert found["in_time_by_second"][:5] == [0, 1, 0, 0, 1]


def build_counts(offered, in_time, p99=900.0, statuses=None):
    figures = {"count": in_time, "p50": 1.0, "p95": 1.0, "p99": p99, "max": p99}
    refused = {"count": 5, "p50": 1.0, "p95": 1.0, "p99": 3.0, "max": 3.0}
    return {
        "offered": offered, "in_time": in_time, "late": 0, "goodput_rps": in_time / 10,
        "statuses": statuses or {"200": in_time}, "failures": {},
        "answered_ms": figures, "refused_ms": refused, "refused_wire_ms": refused,
    }  # fmt: skip


def build_run(goodput, greedy=350, high=600, p99=900.0, slope=0.0):
    kinds = {"high": build_counts(600, high, 60.0), "greedy": build_counts(4150, greedy, p99)}
    kinds |= {f"modest-{n}": build_counts(415, 350) for n in (1, 2, 3)}
    figures = {
        "window_s": 10.0, "kinds": kinds, "all": build_counts(6000, goodput, p99),
        "lag_ms": {"p99": 1.0},
    }  # fmt: skip
    cpu_s = {"gateway": 1.0, "agents": 1.0, "generator": 1.0, "gateway waited": 0.5, "elapsed": 10.0}
    return Overload(
        "fixed service", 0, 200.0, 195.0, cpu_s, 100.0, 50.0, {"p99": 30.0}, slope, [1, 2], figures, {}
    )


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"goodput": 1890}, ["goodput"]),
        ({"p99": 1001.0}, ["answered p99"]),
        ({"high": 599}, ["high priority answered"]),
        ({"greedy": 450}, ["greedy"]),
        ({"slope": 20_000.0}, ["memory"]),
    ],
    ids=["all is well", "goodput", "late", "high", "greedy", "memory"],
)
def test_overload_marks_name_what_was_missed(changes, missed):
    """Each mark looks at one thing; what was not measured is unknown."""
    marks = compute_overload_marks(Overloads([build_run(**{"goodput": 1950, **changes})]))
    found = [mark.text for mark in marks if mark.reached is False]
    assert len(found) == len(missed)
    assert all(part in text for part, text in zip(missed, found, strict=True))
    assert [mark for mark in marks if mark.reached is None and "MiniLM" in mark.text]


def test_overload_table_has_a_row_for_each_kind():
    """And says what refusing costs."""
    text = render_overload(Overloads([build_run(1950)], {"MiniLM": "no model"}))
    assert all(name in text for name in ("| high", "| greedy", "| modest-3", "| all", "50 us", "no model"))
    assert compute_share(build_run(1950)) == pytest.approx(1.0)


ANSWERS = {
    "good": (200, b"{}"),
    "busy": (429, b'{"error": {"code": "overloaded"}}'),
    "slow": None,
}


class Server(ThreadingHTTPServer):
    """Takes many connections at once."""

    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, *_):
        """A client that leaves is no news."""


@pytest.fixture
def port():
    """A small server that answers by the body's text; `slow` when the test ends."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            answer = ANSWERS[json.loads(self.rfile.read(int(self.headers["content-length"])))]
            if answer is None:
                over.wait(20)
                self.close_connection = True
                return
            status, body = answer
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Nobody reads it."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1]
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_the_mixed_load_counts_each_request_once(port):
    """By kind: answered, refused with its code, left by the client, and timed out."""
    kinds = (
        Kind("good", 0.5, ('"good"',), {"x-priority": "high"}, deadline_s=5.0),
        Kind("busy", 0.2, ('"busy"',), {}),
        Kind("leaving", 0.2, ('"slow"',), {}, leaving=1.0, leave_s=0.05),
        Kind("slow", 0.1, ('"slow"',), {}),
    )
    plan = MixedPlan(f"http://127.0.0.1:{port}/", 200, 1.5, kinds, seed=3, timeout_s=1.0)
    with mixed_load(plan) as load:
        found = load.finish()
    by_kind = found["kinds"]
    assert by_kind["good"]["statuses"] == {"200": by_kind["good"]["offered"]}
    assert by_kind["busy"]["statuses"] == {"429": by_kind["busy"]["offered"]}
    assert by_kind["leaving"]["failures"] == {"left": by_kind["leaving"]["offered"]}
    assert by_kind["slow"]["failures"] == {"timeout": by_kind["slow"]["offered"]}
    assert sum(kind["offered"] for kind in by_kind.values()) == found["all"]["offered"] > 200
    codes = {(kind, outcome, code) for _, _, kind, outcome, code in found["events"]}
    assert codes == {("busy", "429", "overloaded"), ("slow", "timeout", "")}

"""The overview's snapshot, from rows and reports that need no database."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from dashboard_builders import agent_report, deployment_report, gateway_report

from appliance.fleet import FleetRows
from appliance.models import Agent, Decision, Deployment, InferenceModel, Node
from appliance.policies.report import SpeedReport
from appliance.policies.shapes import Shape
from dashboard.formats import UNKNOWN, format_age, format_bytes, format_ms, format_rate
from dashboard.presenters import COLUMNS, OverviewRows, build_snapshot, rates_of_points
from dashboard.rates import Rates

NOW = 1_000_000.0


def at(seconds):
    return datetime.fromtimestamp(seconds, tz=UTC)


def overview_rows(*, agents=1, desired=None, state="ready", error="", problem="", points=None, decisions=()):
    model = InferenceModel(name="minilm", task="embed")
    deployment = Deployment(
        id=1, name="minilm", model=model, min_agents=1, max_agents=4,
        desired=agents if desired is None else desired, reason="the minimum", problem=problem,
    )  # fmt: skip
    node = Node(
        name="local", address="127.0.0.1", seen_at=at(NOW - 1),
        hardware={"cores_physical": 2, "ram_bytes": 8_000_000_000},
    )  # fmt: skip
    made = tuple(
        Agent(
            id=f"minilm-{n}",
            deployment=deployment,
            node=node,
            state=state,
            error=error,
            profile={"workers": 2, "threads": 1, "batch_size": 8},
            created_at=at(NOW - 90),
        )
        for n in range(agents)
    )
    return OverviewRows(FleetRows((node,), (deployment,), made, points or {}), tuple(decisions))


def only_row(snapshot, table):
    (row,) = snapshot["tables"][table]
    return row


def test_everything_known():
    """Rows, reports and rates are joined into texts."""
    report = gateway_report(
        NOW, deployments=[deployment_report(in_flight=3, queued=2)],
        agents=[agent_report("minilm-0", in_flight=3, answered=1234)],
    )  # fmt: skip
    rates = {"minilm": Rates(rps=41.27, failed_per_s=0, tokens_per_s=480, p50_ms=7.1, p95_ms=123.4)}
    snapshot = build_snapshot(overview_rows(), [report], rates, NOW)
    assert snapshot["totals"] == {
        "rps": "41.3", "failed": "0.0", "p50": "7.1 ms", "p95": "123 ms", "in_flight": "3", "queued": "2",
        "agents": "1 / 1", "cpu": "40 %", "memory": "25 %",
    }  # fmt: skip
    assert only_row(snapshot, "deployments")["cells"] == {
        "name": "minilm", "state": "ready", "model": "minilm", "ready": "1 of 1", "bounds": "1 / 4",
        "rps": "41.3", "p50": "7.1 ms", "p95": "123 ms", "in_flight": "3", "queued": "2", "tokens": "480",
        "note": "the minimum",
    }  # fmt: skip
    assert only_row(snapshot, "agents")["cells"] == {
        "id": "minilm-0", "state": "ready", "node": "local", "shape": "2 x 1, batch 8",
        "in_flight": "3", "answered": "1,234", "cpu": "50 %", "rss": "120 MB", "age": "2 min", "note": "",
    }  # fmt: skip
    assert only_row(snapshot, "nodes")["cells"]["state"] == "ready"
    assert (snapshot["notices"], snapshot["levels"]) == ([], {})
    assert {row["level"] for rows in snapshot["tables"].values() for row in rows} == {""}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((2, 1, 8), "2 x 1, batch 8 (grown from 1 x 1)"),
        ((1, 1, 8), "1 x 1, batch 8 → 2 x 1, batch 8"),
    ],
    ids=["as-wanted", "not-yet"],
)
def test_a_shape_follows_what_an_agent_says(said, words):
    """What it is to be stands in its row; until it says that it is, both are shown."""
    rows = overview_rows()
    rows.fleet.agents[0].profile["stretched"] = True
    rows = replace(rows, fleet=replace(rows.fleet, starts={"minilm-0": Shape(1, 1, 8)}))
    speed = SpeedReport("fake", "1", *said, 0, 0.0, 0.0, 0.0, 0.0)
    report = gateway_report(NOW, agents=[agent_report("minilm-0", speed=speed)])
    assert only_row(build_snapshot(rows, [report], {}, NOW), "agents")["cells"]["shape"] == words


def test_nothing_known():
    """Without reports numbers are unknown rather than zero, and the page says why."""
    snapshot = build_snapshot(overview_rows(), [], {}, NOW)
    assert {name for name, text in snapshot["totals"].items() if text != UNKNOWN} == {"agents"}
    assert snapshot["numbers"]["queued"] is None
    assert "No gateway answers" in snapshot["notices"][0]


def test_a_problem_is_said_where_it_is_seen():
    """What keeps a deployment from being as wanted takes the reason's place, and heads the page."""
    snapshot = build_snapshot(overview_rows(problem="no node has room"), [gateway_report(NOW)], {}, NOW)
    row = only_row(snapshot, "deployments")
    assert (row["cells"]["note"], row["level"], row["alert"]) == ("no node has room", "warn", True)
    assert snapshot["notices"] == ["Deployment minilm: no node has room"]


@pytest.mark.parametrize(
    ("rows", "rates", "levels"),
    [
        pytest.param(overview_rows(), Rates(failed_per_s=0.0), {}, id="well"),
        pytest.param(overview_rows(), Rates(failed_per_s=0.4), {"failed": "bad"}, id="failing"),
        pytest.param(overview_rows(desired=2), Rates(), {"agents": "warn"}, id="growing"),
        pytest.param(overview_rows(state="failed"), Rates(), {"agents": "bad"}, id="none-ready"),
        pytest.param(
            overview_rows(points={"node:local": {"memory_percent": 93.0}}), Rates(), {"memory": "warn"},
            id="memory",
        ),
    ],
)  # fmt: skip
def test_what_asks_for_attention(rows, rates, levels):
    """Tiles stand out for failures, missing agents and little memory, and for nothing else."""
    assert build_snapshot(rows, [gateway_report(NOW)], {"minilm": rates}, NOW)["levels"] == levels


def test_a_failed_agent_stands_out():
    """The rows of a failed agent and of its deployment are marked; all it said last is shown."""
    snapshot = build_snapshot(overview_rows(state="failed", error="exit code 3\nno model"), [], {}, NOW)
    row = only_row(snapshot, "agents")
    assert (row["level"], row["alert"], row["cells"]["note"]) == ("bad", True, "exit code 3\nno model")
    assert only_row(snapshot, "deployments")["level"] == "bad"


def test_an_ejected_agent_stands_out():
    """Ready, but its row says why it gets no requests."""
    said = agent_report("minilm-0", state="ejected", health="nothing heard for 0.41 s")
    row = only_row(build_snapshot(overview_rows(), [gateway_report(NOW, agents=[said])], {}, NOW), "agents")
    assert (row["state"], row["level"], row["alert"]) == ("ready", "warn", True)
    assert row["cells"]["note"] == "ejected, gets no requests: nothing heard for 0.41 s"


def test_an_overcome_error_is_a_side_note():
    """An agent that is ready again is unmarked, with the first line of its last error."""
    row = only_row(build_snapshot(overview_rows(error="signal 9\nlog"), [], {}, NOW), "agents")
    assert (row["level"], row["alert"], row["cells"]["note"]) == ("", False, "signal 9")


def test_an_old_report_is_none():
    """A gateway that fell silent is not counted."""
    report = gateway_report(NOW - 6, deployments=[deployment_report(in_flight=3)])
    assert build_snapshot(overview_rows(), [report], {}, NOW)["totals"]["in_flight"] == UNKNOWN


def test_a_silent_loop_is_noticed():
    """Where the local node was not observed for long, the page says what that means."""
    snapshot = build_snapshot(overview_rows(), [gateway_report(NOW + 60)], {}, NOW + 60)
    assert only_row(snapshot, "nodes")["state"] == "unreachable"
    assert "control loop is silent" in snapshot["notices"][0]


def test_what_agents_say_is_bounded():
    """A long error is cut."""
    snapshot = build_snapshot(overview_rows(state="failed", error="<b>" + "x" * 10_000), [], {}, NOW)
    assert len(only_row(snapshot, "agents")["cells"]["note"]) == 240


def test_every_row_has_every_column():
    """No table has a column that its rows leave out."""
    decision = Decision(id=7, at=at(NOW - 3700), deployment="minilm", before=1, after=2, reason="load")
    snapshot = build_snapshot(overview_rows(decisions=[decision]), [], {}, NOW)
    for table, columns in COLUMNS.items():
        assert set(only_row(snapshot, table)["cells"]) == {key for key, _, _ in columns}
    assert only_row(snapshot, "decisions")["cells"]["age"] == "1 h"
    assert only_row(snapshot, "decisions")["cells"]["change"] == "1 → 2"


def test_history_gives_the_first_rates():
    """A page that nobody watched before takes rates from the newest second of history."""
    points = {"deployment:minilm": {"rps": 12.0, "p95_ms": None}, "node:local": {"cpu_percent": 91.0}}
    rows = overview_rows(points=points)
    snapshot = build_snapshot(rows, [], rates_of_points(points), NOW)
    assert (snapshot["totals"]["rps"], snapshot["totals"]["p95"]) == ("12.0", UNKNOWN)
    assert snapshot["totals"]["cpu"] == "91 %"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        pytest.param(format_rate(99.94), "99.9", id="rate"),
        pytest.param(format_rate(12345.6), "12,346", id="rate-large"),
        pytest.param(format_ms(12_345), "12.3 s", id="seconds"),
        pytest.param(format_bytes(24_700_000_000), "25 GB", id="bytes"),
        pytest.param(format_bytes(0), UNKNOWN, id="bytes-unknown"),
        pytest.param(format_bytes(3e15), "3000.0 TB", id="bytes-vast"),
        pytest.param(format_age(59.4), "59 s", id="age"),
        pytest.param(format_age(-1), "0 s", id="age-of-the-future"),
        pytest.param(format_age(200_000), "2 d", id="age-days"),
        pytest.param(format_age(None), UNKNOWN, id="age-unknown"),
    ],
)
def test_formats(shown, text):
    """Numbers are written for people."""
    assert shown == text

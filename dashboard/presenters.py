"""The overview's snapshot: everything on the page at one instant, in words and numbers. Pure.

    snapshot := {"at": Unix seconds,
                 "numbers": {name: number or null},        for the charts
                 "totals": {name: text},                   for the tiles
                 "levels": {name: "warn" or "bad"},        tiles to look at; others are well
                 "tables": {table: [{"key", "state", "level", "alert", "link", "cells": {column: text}}]},
                 "notices": [text]}

The page is rendered from it once, and its cells are replaced from the next ones by key. All text
in it is plain: what nodes say is bounded here and escaped by whoever shows it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from appliance.fleet import REPORT_FRESH_S, FleetRows, Point, describe_fleet, links_by_agent, node_load
from appliance.models import Decision, Deployment, Transfer
from appliance.policies.report import AgentReport, GatewayReport
from dashboard.formats import (
    format_age,
    format_bytes,
    format_count,
    format_ms,
    format_percent,
    format_rate,
    format_shape,
)
from dashboard.node_presenters import group_by_node, problem_text, transfer_text
from dashboard.rates import Rates
from dashboard.scaling_presenters import change_text

#: Columns of each table, in order: key of the cell, heading, whether it is a number.
COLUMNS: dict[str, tuple[tuple[str, str, bool], ...]] = {
    "deployments": (
        ("name", "Deployment", False), ("state", "State", False), ("model", "Model", False),
        ("ready", "Ready", True), ("bounds", "Min / max", True), ("rps", "Requests/s", True),
        ("p50", "p50", True), ("p95", "p95", True), ("in_flight", "In flight", True),
        ("queued", "Queued", True), ("tokens", "Tokens/s", True), ("note", "Why", False),
    ),
    "agents": (
        ("id", "Agent", False), ("state", "State", False), ("node", "Node", False),
        ("shape", "Shape", False), ("in_flight", "In flight", True), ("answered", "Answered", True),
        ("cpu", "CPU", True), ("rss", "Memory", True), ("age", "Age", True), ("note", "Note", False),
    ),
    "nodes": (
        ("name", "Node", False), ("state", "State", False), ("address", "Address", False),
        ("cpu", "CPU", True), ("memory", "Memory", True), ("cores", "Cores", True),
        ("ram", "RAM", True), ("agents", "Agents", True), ("note", "Note", False),
    ),
    "decisions": (
        ("age", "Ago", True), ("deployment", "Deployment", False), ("change", "Agents", True),
        ("reason", "Reason", False),
    ),
}  # fmt: skip

_MAX_TEXT = 240
_MAX_NOTICES = 5
#: A node has run short of memory from here on.
_MEMORY_SHORT_PERCENT = 90

#: How much a state matters; others are as they should be, or on their way there.
_LEVELS = {"failed": "bad", "unreachable": "bad", "degraded": "warn"}


@dataclass(frozen=True, slots=True)
class OverviewRows:
    """What the database says: the fleet, the newest decisions, newest first, and transfers under way."""

    fleet: FleetRows
    decisions: tuple[Decision, ...] = ()
    transfers: tuple[Transfer, ...] = ()


def build_snapshot(
    rows: OverviewRows, reports: Sequence[GatewayReport], rates: Mapping[str, Rates], now: float
) -> dict[str, Any]:
    """The snapshot of one instant. `rates` is by deployment; `now` in Unix seconds."""
    fresh = [report for report in reports if now - report.at <= REPORT_FRESH_S]
    fleet = describe_fleet(rows.fleet, fresh, now)
    numbers = _total_numbers(fleet, rows.fleet, fresh, rates)
    wanted = sum(row.desired for row in rows.fleet.deployments)
    return {
        "at": now,
        "numbers": numbers,
        "totals": _total_texts(numbers),
        "levels": _total_levels(numbers, wanted),
        "tables": {
            "deployments": [
                _deployment_row(entry, row, rates)
                for entry, row in zip(fleet["deployments"], rows.fleet.deployments, strict=True)
            ],
            "agents": _agent_rows(fleet["agents"], rows.fleet, fresh, now),
            "nodes": _node_rows(fleet, rows, fresh),
            "decisions": [_decision_row(decision, now) for decision in rows.decisions],
        },
        "notices": list(_notices(fleet, rows.fleet, fresh)),
    }


def order_cells(row: dict[str, Any], table: str) -> dict[str, Any]:
    """A row with its cells in the table's order, as the template walks them."""
    cells = [
        {"key": key, "heading": heading, "is_number": is_number, "text": row["cells"].get(key, "")}
        for key, heading, is_number in COLUMNS[table]
    ]
    return {**row, "ordered": cells}


def rates_of_points(points: Mapping[str, Point]) -> dict[str, Rates]:
    """Rates from each deployment's newest second of history, for a page nobody watched before."""
    names = ("rps", "failed_per_s", "tokens_per_s", "p50_ms", "p95_ms")
    return {
        series.removeprefix("deployment:"): Rates(**{name: point.get(name) for name in names})
        for series, point in points.items()
        if series.startswith("deployment:")
    }


def _total_numbers(
    fleet: Mapping[str, Sequence[Mapping[str, Any]]],
    rows: FleetRows,
    reports: Sequence[GatewayReport],
    rates: Mapping[str, Rates],
) -> dict[str, float | None]:
    """Rates and queues add up; latency is the slowest deployment's, load the fullest node's."""
    shown = [rates[entry["name"]] for entry in fleet["deployments"] if entry["name"] in rates]
    loads = [node_load(node, rows.points, reports) for node in rows.nodes]
    counted = bool(reports)
    return {
        "rps": _sum(rate.rps for rate in shown),
        "failed_per_s": _sum(rate.failed_per_s for rate in shown),
        "tokens_per_s": _sum(rate.tokens_per_s for rate in shown),
        "p50_ms": _max(rate.p50_ms for rate in shown),
        "p95_ms": _max(rate.p95_ms for rate in shown),
        "in_flight": sum(entry["in_flight"] for entry in fleet["deployments"]) if counted else None,
        "queued": sum(entry["queued"] for entry in fleet["deployments"]) if counted else None,
        "ready": sum(agent["state"] == "ready" for agent in fleet["agents"]),
        "agents": len(fleet["agents"]),
        "cpu_percent": _max(cpu for cpu, _ in loads),
        "memory_percent": _max(memory for _, memory in loads),
    }


def _total_texts(numbers: Mapping[str, float | None]) -> dict[str, str]:
    return {
        "rps": format_rate(numbers["rps"]),
        "failed": format_rate(numbers["failed_per_s"]),
        "p50": format_ms(numbers["p50_ms"]),
        "p95": format_ms(numbers["p95_ms"]),
        "in_flight": format_count(numbers["in_flight"]),
        "queued": format_count(numbers["queued"]),
        "agents": f"{numbers['ready']} / {numbers['agents']}",
        "cpu": format_percent(numbers["cpu_percent"]),
        "memory": format_percent(numbers["memory_percent"]),
    }


def _total_levels(numbers: Mapping[str, float | None], wanted: int) -> dict[str, str]:
    """Which tiles ask to be looked at, and how urgently."""
    levels = {}
    ready = numbers["ready"] or 0
    if ready < wanted:
        levels["agents"] = "warn" if ready else "bad"
    if numbers["failed_per_s"]:
        levels["failed"] = "bad"
    if (numbers["memory_percent"] or 0) >= _MEMORY_SHORT_PERCENT:
        levels["memory"] = "warn"
    return levels


def _deployment_row(
    entry: Mapping[str, Any], deployment: Deployment, rates: Mapping[str, Rates]
) -> dict[str, Any]:
    rate = rates.get(entry["name"], Rates())
    return _row(
        entry["name"],
        entry["state"],
        name=entry["name"],
        model=entry["model"],
        ready=_ready_text(entry),
        bounds=f"{entry['min']} / {entry['max']}",
        rps=format_rate(rate.rps),
        p50=format_ms(rate.p50_ms),
        p95=format_ms(rate.p95_ms),
        in_flight=format_count(entry["in_flight"]),
        queued=format_count(entry["queued"]),
        tokens=format_rate(rate.tokens_per_s),
        note=deployment.problem or deployment.reason,
        level="warn" if deployment.problem else "",
        alert=bool(deployment.problem),
        link=reverse("deployment", args=(entry["name"],)),
    )


def _ready_text(entry: Mapping[str, Any]) -> str:
    """In a dry run with the number that would be wanted."""
    would = entry.get("would")
    return f"{entry['ready']} of {entry['desired']}" + ("" if would is None else f" (dry run: {would})")


def _agent_rows(
    agents: Sequence[Mapping[str, Any]], rows: FleetRows, reports: Sequence[GatewayReport], now: float
) -> list[dict[str, Any]]:
    links = links_by_agent(reports)
    described = {entry["id"]: entry for entry in agents}
    result = []
    for agent in rows.agents:
        seen = links.get(agent.id, [])
        said = _freshest(seen)
        # Once it is ready again an error is history: its first line is enough.
        health = described[agent.id]["health"]
        troubled = bool(agent.error) and described[agent.id]["state"] != "ready"
        result.append(
            _row(
                agent.id,
                described[agent.id]["state"],
                id=agent.id,
                node=agent.node.name,
                shape=format_shape(described[agent.id]),
                in_flight=format_count(described[agent.id]["in_flight"]),
                answered=format_count(sum(link.answered for link in seen) if seen else None),
                cpu=format_percent(said.cpu_percent if said else None),
                rss=format_bytes(said.rss_bytes if said else None),
                age=format_age(now - agent.created_at.timestamp() if agent.created_at else None),
                note=agent.error if troubled else health or agent.error.partition("\n")[0],
                level="warn" if troubled or health else "",
                alert=troubled or bool(health),
                link=reverse("agent-log", args=(agent.id,)),
            )
        )
    return result


def _node_rows(
    fleet: Mapping[str, Sequence[Mapping[str, Any]]], rows: OverviewRows, reports: Sequence[GatewayReport]
) -> list[dict[str, Any]]:
    """Nodes that are there; retired ones are not. What is wrong comes before what is on its way."""
    result = []
    moving = group_by_node(rows.transfers)
    states = {entry["name"]: entry["state"] for entry in fleet["nodes"]}
    for node in rows.fleet.nodes:
        if states.get(node.name, "retired") == "retired":
            continue
        cpu, memory = node_load(node, rows.fleet.points, reports)
        problem = problem_text(node)
        result.append(
            _row(
                node.name,
                states[node.name],
                name=node.name,
                address=node.address,
                cpu=format_percent(cpu),
                memory=format_percent(memory),
                cores=format_count(node.cores),
                ram=format_bytes(node.ram_bytes),
                agents=format_count(sum(agent["node"] == node.name for agent in fleet["agents"])),
                note=problem or "; ".join(transfer_text(one) for one in moving.get(node.pk, ())),
                level="warn" if problem else "",
                alert=bool(problem),
                link=reverse("node", args=(node.name,)),
            )
        )
    return result


def _decision_row(decision: Decision, now: float) -> dict[str, Any]:
    return _row(
        str(decision.pk),
        None,
        age=format_age(now - decision.at.timestamp()),
        deployment=decision.deployment,
        change=change_text(decision) + (" (dry run)" if decision.dry_run else ""),
        reason=decision.reason,
    )


def _notices(
    fleet: Mapping[str, Sequence[Mapping[str, Any]]], rows: FleetRows, reports: Sequence[GatewayReport]
) -> Iterable[str]:
    if not reports:
        yield "No gateway answers: requests are not being served, or not being counted."
    for node in fleet["nodes"]:
        if node["state"] == "unreachable" and node["name"] == "local":
            yield "The control loop is silent: agents are neither started nor replaced."
    troubled = [row for row in rows.deployments if row.problem]
    for row in troubled[:_MAX_NOTICES]:
        yield _bounded(f"Deployment {row.name}: {row.problem}")
    if len(troubled) > _MAX_NOTICES:
        yield f"{len(troubled) - _MAX_NOTICES} more deployments are not as wanted."


def _row(
    key: str, state: str | None, *, level: str = "", alert: bool = False, link: str = "", **cells: str
) -> dict[str, Any]:
    """A row; the state's own level counts where it has one.

    `alert`: its note tells of trouble. `link`: where its first cell leads.
    """
    bounded = {name: _bounded(text) for name, text in cells.items()}
    if state is not None:
        bounded["state"] = state
    level = _LEVELS.get(state or "", level)
    return {"key": key, "state": state, "level": level, "alert": alert, "link": link, "cells": bounded}


def _bounded(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _freshest(links: Sequence[AgentReport]) -> AgentReport | None:
    said = [link for link in links if link.load_age_s is not None]
    return min(said, key=lambda link: link.load_age_s or 0.0, default=None)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _max(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)

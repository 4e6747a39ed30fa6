"""What a deployment's page shows, as plain texts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from appliance.fleet import REPORT_FRESH_S, FleetRows
from appliance.models import Deployment
from appliance.placement import forbidden_nodes, show_placement
from appliance.policies.report import GatewayReport
from appliance.row_settings import show_values, to_text
from appliance.serving_settings import BYTES_PER_MB, SERVING
from dashboard.formats import UNKNOWN, format_bytes, format_count, format_percent
from dashboard.node_presenters import Fact, bounded, instant_text

#: Which of the overview's numbers the page shows, with their labels.
TILES = (
    ("rps", "Requests/s"), ("p50", "Latency p50"), ("p95", "Latency p95"), ("in_flight", "In flight"),
    ("queued", "Queued"), ("failed", "Failed/s"), ("tokens", "Tokens/s"), ("agents", "Agents ready"),
    ("cached", "From cache"),
)  # fmt: skip

FORBIDDEN_SHOWN = 5


def narrow(rows: FleetRows, deployment: Deployment) -> FleetRows:
    """The rows of one deployment: its agents, and the nodes that they are on."""
    agents = tuple(agent for agent in rows.agents if agent.deployment_id == deployment.pk)
    nodes = {agent.node_id for agent in agents}
    return replace(
        rows,
        deployments=(deployment,),
        agents=agents,
        nodes=tuple(node for node in rows.nodes if node.pk in nodes),
    )


def deployment_facts(row: Deployment, ready: str, capacity_rps: float | None = None) -> list[Fact]:
    """What is served, by how many agents (`ready` says it in words), and how much they can do."""
    facts = [
        ("Clients send", f'"model": "{row.name}"'),
        ("Model", row.model.name),
        ("Task", row.model.task),
        ("Revision", str(row.revision.number) if row.revision else ""),
        ("Content", row.revision.digest[:12] if row.revision else ""),
        ("Agents ready", ready),
        ("They can do", "" if capacity_rps is None else f"{format_count(round(capacity_rps))} requests/s"),
        ("Min / max", f"{row.min_agents} / {row.max_agents}"),
        ("Dry run", "" if row.would is None else f"load changes nothing; it would be {row.would} now"),
        ("Why so many", row.reason),
        ("Created", instant_text(row.created_at)),
    ]
    return [(label, bounded(text)) for label, text in facts if text]


def serving_facts(row: Deployment) -> list[Fact]:
    """How it is served, with thousands set apart."""
    values = show_values(SERVING, row)
    return [
        (label_of(key), f"{value:,}" if type(value) is int else to_text(value))
        for key, value in values.items()
    ]


def placement_facts(row: Deployment) -> list[Fact]:
    """Where its agents go, and the nodes that this forbids."""
    facts = [(label_of(key), str(value)) for key, value in show_placement(row).items()]
    forbidden = [f"{name} {why}" for name, why in forbidden_nodes(row).items()]
    if forbidden:
        more = f"; and {len(forbidden) - FORBIDDEN_SHOWN} more" if len(forbidden) > FORBIDDEN_SHOWN else ""
        facts.append(("Not on", bounded("; ".join(forbidden[:FORBIDDEN_SHOWN]) + more)))
    return facts


def label_of(key: str) -> str:
    """A setting's key as a label: `deadline_s` is `Deadline, s`."""
    words = key.replace("_mb", ", MB").replace("10min", "10 min").removesuffix("_s").replace("_", " ")
    return words[:1].upper() + words[1:] + (", s" if key.endswith("_s") else "")


def cache_counts(name: str, reports: Sequence[GatewayReport], now: float) -> dict[str, int] | None:
    """What the gateways that answer have counted since they started; None where there are none."""
    fresh = [report for report in reports if now - report.at <= REPORT_FRESH_S]
    seen = [entry for report in fresh for entry in report.deployments if entry.name == name]
    if not seen:
        return None
    return {
        "hits": sum(entry.cache_hits for entry in seen),
        "shared": sum(entry.cache_shared for entry in seen),
        "misses": sum(entry.cache_misses for entry in seen),
        "bytes": sum(entry.cache_bytes for entry in seen),
    }


def cache_facts(row: Deployment, counts: Mapping[str, int] | None) -> list[Fact]:
    """How the cache does; nothing where it is off and never was on."""
    if not row.cache_bytes and not any((counts or {}).values()):
        return []
    said: Mapping[str, int | None] = counts or dict.fromkeys(("hits", "shared", "misses", "bytes"))
    limit = f"{to_text(row.cache_bytes / BYTES_PER_MB)} MB in each gateway" if row.cache_bytes else "off"
    return [
        ("Answered from the cache", format_count(said["hits"])),
        ("Answered with one under way", format_count(said["shared"])),
        ("Sent to an agent", format_count(said["misses"])),
        ("Kept", UNKNOWN if counts is None else format_bytes(counts["bytes"]) if counts["bytes"] else "0 B"),
        ("Limit", limit),
    ]


def cached_text(counts: Mapping[str, int] | None) -> str:
    """The share of requests that no agent had to answer, of those that may be cached."""
    spared = counts["hits"] + counts["shared"] if counts else 0
    asked = spared + counts["misses"] if counts else 0
    return format_percent(100 * spared / asked if asked else None)


def tiles_of(snapshot: Mapping[str, Any], counts: Mapping[str, int] | None) -> list[dict[str, str]]:
    """The numbers on top of the page."""
    [row] = snapshot["tables"]["deployments"]
    texts = {**snapshot["totals"], "tokens": row["cells"]["tokens"], "cached": cached_text(counts)}
    return [
        {"key": key, "label": label, "text": texts[key], "level": snapshot["levels"].get(key, "")}
        for key, label in TILES
    ]

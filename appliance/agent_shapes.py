"""How large agents are, for those who look: what is wanted, what each started with, and in words.

What an agent is to be stands in its row (`policies/shapes.py`). With what it started is told of those alone
that have grown since, from the best profile of their box and what people set.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from appliance.models import Agent, Revision
from appliance.models.json_columns import Damaged
from appliance.policies.profiles import choose_profile
from appliance.policies.report import AgentReport
from appliance.policies.scaling_facts import ScalingPolicy
from appliance.policies.shapes import LIMIT, STRETCHED, Shape, reach_of
from appliance.profiles import key_for, read_profiles
from appliance.scaling_settings import wanted_policy


def read_starts(agents: Iterable[Agent]) -> dict[str, Shape]:
    """With what each agent that has grown would start, by its id. No query where none has, else two.

    Agents come with their nodes and deployments.
    """
    grown = [agent for agent in agents if has_grown(agent)]
    if not grown:
        return {}
    known = read_profiles()
    wanted = {agent.revision_id for agent in grown}
    revisions = {row.pk: row for row in Revision.objects.select_related("model").filter(pk__in=wanted)}
    policies: dict[int, ScalingPolicy] = {}
    starts = {}
    for agent in grown:
        if agent.revision_id not in revisions:
            continue
        policy = policies.setdefault(agent.deployment_id, wanted_policy(agent.deployment))
        reach = reach_of(
            choose_profile(known, key_for(agent.node, revisions[agent.revision_id])),
            threads=agent.profile.get(LIMIT),
            max_threads=policy.max_threads,
            max_batch=policy.max_batch,
        )
        starts[agent.id] = reach.start
    return starts


def has_grown(agent: Agent) -> bool:
    """Whether it is another than it started, since no agent could be added."""
    return bool(agent.profile.get(STRETCHED))


def describe_shape(agent: Agent, start: Shape | None) -> dict[str, object]:
    """As JSON types: what it is to be, and what it has grown from; None where its row does not say."""
    profile = {} if isinstance(agent.profile, Damaged) else agent.profile
    return {
        "workers": profile.get("workers"),
        "threads": profile.get("threads"),
        "batch_size": profile.get("batch_size"),
        "stretched": has_grown(agent),
        "grown_from": start.to_json() if start is not None and has_grown(agent) else None,
    }


def reported_shape(links: Iterable[AgentReport]) -> dict[str, int] | None:
    """What an agent said last that it is; None where no gateway was told."""
    said = [link for link in links if link.speed is not None and link.load_age_s is not None]
    newest = min(said, key=lambda link: link.load_age_s or 0.0, default=None)
    if newest is None or newest.speed is None:
        return None
    return Shape(newest.speed.workers, newest.speed.threads, newest.speed.batch_size).to_json()


def shape_text(described: Mapping[str, Any]) -> str:
    """In a few words, of `describe_shape`'s keys and `reported`: `4 x 1, batch 8 (grown from 2 x 1)`.

    Where the agent is not yet what it is to be: `2 x 1, batch 8 -> 4 x 1, batch 8`. Empty: not known.
    """
    wanted = _words(described)
    reported = described.get("reported")
    if not wanted or (reported and _words(reported) != wanted):
        return " -> ".join(filter(None, (_words(reported or {}), wanted)))
    return wanted + grown_text(described)


def grown_text(described: Mapping[str, Any]) -> str:
    """What follows the shape of one that is not as it started: ` (grown from 2 x 1)`; else nothing."""
    if not described.get("stretched"):
        return ""
    start = described.get("grown_from")
    if not start or _words(start) == _words(described):
        return " (grown)"
    parts = []
    if (start["workers"], start["threads"]) != (described["workers"], described["threads"]):
        parts.append(f"{start['workers']} x {start['threads']}")
    if start["batch_size"] != described["batch_size"]:
        parts.append(f"batch {start['batch_size']}")
    names = ("workers", "threads", "batch_size")
    smaller = all(described[name] <= start[name] for name in names)
    return f" ({'shrunk' if smaller else 'grown'} from {', '.join(parts)})"


def _words(shape: Mapping[str, Any]) -> str:
    if not all(shape.get(name) for name in ("workers", "threads", "batch_size")):
        return ""
    return f"{shape['workers']} x {shape['threads']}, batch {shape['batch_size']}"

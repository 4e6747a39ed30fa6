"""Profiles in rows: read as one table, stored, and handed on to the agents they are of."""

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.db import transaction

from appliance.models import Agent, Node, Revision
from appliance.models import Profile as Row
from appliance.policies.fleet import AgentFacts
from appliance.policies.profiles import (
    Box,
    Profile,
    ProfileKey,
    Source,
    box_of,
    choose_profile,
)
from appliance.policies.shapes import limited, profile_again, profile_json, shape_of
from appliance.publish import touch_routes
from appliance.scaling_settings import wanted_policy

#: The version of the engine that is made for rehearsals.
_FAKE_VERSION = "1"


def read_profiles() -> dict[ProfileKey, Profile]:
    """All that is known; one query."""
    return {_key(row): _profile(row) for row in Row.objects.all()}


def engine_of(manifest: Mapping[str, Any]) -> str:
    """The engine that a model runs in."""
    return str(manifest.get("engine") or "ctranslate2")


def key_for(node: Node, revision: Revision) -> ProfileKey:
    """Whose profile an agent of this revision has there, with the engine's version that we bring."""
    engine = engine_of(revision.model.manifest)
    return ProfileKey(revision.digest, box_of(node.hardware), engine, engine_version(engine))


@cache
def engine_version(engine: str) -> str:
    """The version of an engine that goes to nodes with a release; '' where it is not here."""
    if engine == "fake":
        return _FAKE_VERSION
    try:
        return version(engine)
    except PackageNotFoundError:
        return ""


def starting_profile(
    node: Node, revision: Revision, known: Mapping[ProfileKey, Profile] | None = None
) -> dict[str, Any]:
    """What an agent that starts now is started with, as its row keeps it; `known` are all profiles."""
    known = read_profiles() if known is None else known
    key = key_for(node, revision)
    limit = wanted_policy(revision.deployment).threads
    shape = shape_of(limited(choose_profile(known, key), limit))
    return profile_json(known, key, shape, limit=limit, stretched=False)


def shaped_profiles(agents: Collection[AgentFacts]) -> dict[str, dict[str, Any]]:
    """What the rows of agents keep once these are to be of the shapes that their facts say, by id.

    Two queries, however many there are. One whose row has gone meanwhile is left out.
    """
    if not agents:
        return {}
    known = read_profiles()
    rows = Agent.objects.select_related("node", "revision__model").in_bulk([one.id for one in agents])
    found = {}
    for one in agents:
        if one.id in rows and one.shape is not None:
            key = key_for(rows[one.id].node, rows[one.id].revision)
            found[one.id] = profile_json(known, key, one.shape, limit=one.limit, stretched=one.stretched)
    return found


def store_profile(key: ProfileKey, profile: Profile) -> None:
    """Write it, tell the agents that it is of how fast they are, and publish that."""
    values = asdict(profile)
    values["measured_at"] = dt.datetime.fromtimestamp(profile.measured_at, dt.UTC)
    box = asdict(key.box)
    with transaction.atomic():
        Row.objects.update_or_create(
            digest=key.digest, engine=key.engine, engine_version=key.engine_version, **box, defaults=values
        )
        rows = Agent.objects.select_related("node", "revision__model").filter(revision__digest=key.digest)
        changed = False
        for agent in rows:
            own = key_for(agent.node, agent.revision)
            if own != key or agent.damage:
                continue
            now_known = profile_again({key: profile}, key, agent.profile)
            if now_known != agent.profile:
                Agent.objects.filter(pk=agent.pk).update(profile=now_known)
                changed = True
        if changed:
            touch_routes()


def profiles_of(node: Node) -> list[dict[str, object]]:
    """What the agents of a node are started with by now, and how fast that is: one entry a deployment."""
    known = read_profiles()
    found: dict[str, dict[str, object]] = {}
    for agent in node.agents.select_related("deployment", "revision__model").order_by("deployment__name"):
        profile = choose_profile(known, key_for(node, agent.revision))
        found[agent.deployment.name] = {"deployment": agent.deployment.name, **asdict(profile)}
    return list(found.values())


def _key(row: Row) -> ProfileKey:
    return ProfileKey(row.digest, Box(row.cpu_model, row.isa, row.cores), row.engine, row.engine_version)


def _profile(row: Row) -> Profile:
    source: Source = "measured" if row.source == Row.Source.MEASURED else "learned"
    return Profile(
        row.workers, row.threads, row.batch_size, row.capacity_rps, row.tokens_per_s,
        row.fixed_s, row.per_token_s, source, row.measured_at.timestamp(), row.default_rps,
        row.full_batch_size, row.full_rps,
    )  # fmt: skip

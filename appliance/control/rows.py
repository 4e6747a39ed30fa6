"""Rows to facts and back: only what changed is written, and only where nobody else changed it."""

import datetime as dt
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean as mean
from typing import Any, Self

from appliance.kept_rows import KeptRows
from appliance.models import Agent, Deployment, Node, Revision, RouteState
from appliance.models.agents import uses_engine_threads
from appliance.models.json_columns import Damaged
from appliance.models.nodes import LOCAL_NODE
from appliance.models.routes import new_epoch
from appliance.policies.fleet import AgentFacts, DeploymentFacts
from appliance.policies.placement_rules import rules_from_json
from appliance.policies.profiles import (
    Box,
    Profile,
    ProfileKey,
    box_of,
    choose_profile,
    default_profile,
    is_outdated,
    share_of_box,
)
from appliance.policies.scaling import ScalingPolicy, state_from_json
from appliance.policies.shapes import LIMIT, STRETCHED, Reach, limited, reach_of, shape_of
from appliance.profiles import engine_of, engine_version, shaped_profiles
from appliance.scaling_settings import is_dry_run, wanted_policy

_TIMES = frozenset(
    {"started_at", "ready_at", "unready_at", "retry_at", "leaving_at", "away_at", "parked_at", "moving_at"}
)
#: Facts of an agent that a tick may change, by the names of their columns.
_KEPT = ("wanted", "state", "attempt", "pid", "error", "draining_generation", "moving_to", *sorted(_TIMES))

log = logging.getLogger(__name__)


def read_deployments(
    nodes: Sequence[Node], known: Mapping[ProfileKey, Profile], agents: Iterable[AgentFacts] = ()
) -> tuple[DeploymentFacts, ...]:
    """All deployments; what their average agent does is told by the nodes that `agents` are on.

    One whose row cannot be read is left out, and its agents go on as they are.
    """
    on = defaultdict(list)
    for agent in agents:
        if agent.wanted == "warm":
            on[agent.deployment].append(agent.node)
    kinds: dict[Box, list[str]] = defaultdict(list)
    for node in nodes:
        kinds[box_of(node.hardware)].append(node.name)
    rows = Deployment.objects.select_related("model", "revision__model")
    found = []
    for row in rows:
        try:
            found.append(deployment_facts(row, kinds, known, on[row.name]))
        except (TypeError, ValueError, AttributeError, LookupError):
            log.exception("the row of deployment %s is damaged: it stays as it is", row.name)
    return tuple(found)


def policy_of(row: Deployment, profiles: Sequence[Profile]) -> ScalingPolicy:
    """How a deployment scales: what people set, on agents that run with `profiles`, one an agent.

    Slots and capacity are an average agent's that has its box for itself; the capacity is None while that
    of one of them is unknown. Agents on unequal boxes, or several on one, do more or less: what they do is
    counted where they are placed.
    """
    capacities = [one.capacity_rps for one in profiles]
    return wanted_policy(
        row,
        slots=mean(one.workers * one.batch_size for one in profiles),
        capacity_rps=mean(capacities) if all(capacities) else None,
    )


def deployment_facts(
    row: Deployment,
    kinds: Mapping[Box, Sequence[str]],
    known: Mapping[ProfileKey, Profile],
    on: Sequence[str] = (),
) -> DeploymentFacts:
    """What the policies must know of a deployment.

    `kinds` names the nodes of each kind of box, `on` the node of each agent that is to serve.
    """
    whole = {} if row.revision is None else _profiles_on(kinds, row.revision, known)
    wanted = wanted_policy(row)
    profiles = _limited(whole, wanted.threads)
    model = row.revision.model if row.revision is not None else row.model
    return DeploymentFacts(
        name=row.name,
        revision=row.revision.pk if row.revision is not None else None,
        model_bytes=model.size_bytes,
        policy=policy_of(
            row,
            _of_agents(profiles, on) or (limited(default_profile(_local_cores(kinds)), wanted.threads),),
        ),
        desired=row.desired,
        deadline_s=row.deadline_s,
        paused=row.paused,
        removing=row.removing,
        removing_at=_seconds(row.removing_at),
        proven=row.revision is None or row.revision.proven_at is not None,
        scaling_state=state_from_json(row.scaling_state),
        reason_kind=row.reason_kind,
        problem=row.problem,
        dry_run=is_dry_run(row),
        would=row.would,
        capacities={name: one.capacity_rps for name, one in profiles.items() if one.capacity_rps},
        placement=rules_from_json(row.placement),
        desired_rps=row.desired_rps,
        moves=tuple(float(at) for at in row.moves),
        reach=_reaches(whole, wanted),
        lacking_since=row.lacking_since,
    )


def _limited(profiles: Mapping[str, Profile], threads: int | None) -> Mapping[str, Profile]:
    """What agents start with that are not to use all of a box."""
    if threads is None:
        return profiles
    return {name: limited(one, threads) for name, one in profiles.items()}


def _reaches(profiles: Mapping[str, Profile], wanted: ScalingPolicy) -> dict[str, Reach]:
    """What its agents may be, by node; nodes of a kind share theirs."""
    by_profile: dict[int, Reach] = {}
    found = {}
    for name, profile in profiles.items():
        reach = by_profile.get(id(profile))
        if reach is None:
            reach = by_profile[id(profile)] = reach_of(
                profile, threads=wanted.threads, max_threads=wanted.max_threads, max_batch=wanted.max_batch
            )
        found[name] = reach
    return found


def _of_agents(profiles: Mapping[str, Profile], on: Sequence[str]) -> Sequence[Profile]:
    """What agents run with on these nodes; where there are none, what the first would start with."""
    running = [profiles[name] for name in on if name in profiles]
    if running or not profiles:
        return running
    return [profiles[LOCAL_NODE]] if LOCAL_NODE in profiles else list(profiles.values())


def _local_cores(kinds: Mapping[Box, Sequence[str]]) -> int:
    return next((box.cores for box, names in kinds.items() if LOCAL_NODE in names), 1)


def _profiles_on(
    kinds: Mapping[Box, Sequence[str]], revision: Revision, known: Mapping[ProfileKey, Profile]
) -> dict[str, Profile]:
    """What its agents would start with, by node: chosen once for each kind of box."""
    engine = engine_of(revision.model.manifest)
    version = engine_version(engine)
    profiles: dict[str, Profile] = {}
    for box, names in kinds.items():
        chosen = choose_profile(known, ProfileKey(revision.digest, box, engine, version))
        profiles.update(dict.fromkeys(names, chosen))
    return profiles


@dataclass(slots=True)
class _AgentRow:
    """An agent's facts as they follow from its row alone, and as they were when all was last read."""

    alone: AgentFacts
    node: int
    holds_threads: bool
    capacity_rps: float
    model: tuple[str, str, str]
    profile: Mapping[str, Any]
    whole: AgentFacts

    @classmethod
    def of(cls, row: Agent) -> Self:
        """Its deployment, node, revision and model must be loaded."""
        facts = AgentFacts(
            id=row.id,
            deployment=row.deployment.name,
            revision=row.revision.pk,
            node=row.node.name,
            created_at=row.created_at.timestamp(),
            threads=row.engine_threads,
            model_bytes=row.revision.model.size_bytes,
            damage=row.damage,
            **_shape_of(row),
            **{name: _fact(name, getattr(row, name)) for name in _KEPT},
        )
        engine = engine_of(row.revision.model.manifest)
        model = (row.revision.digest, engine, engine_version(engine))
        return cls(facts, row.node.pk, uses_engine_threads(row), row.capacity_rps, model, row.profile, facts)

    def among_others(self, *, cores: int, threads: int, outdated: bool) -> AgentFacts:
        """Beside the other agents of its node; the same object where nothing is another."""
        capacity_rps = self.capacity_rps * share_of_box(cores, threads)
        if (self.whole.capacity_rps, self.whole.outdated) != (capacity_rps, outdated):
            self.whole = replace(self.alone, capacity_rps=capacity_rps, outdated=outdated)
        return self.whole


class AgentRows:
    """All agents as facts. Used by one thread at a time."""

    def __init__(self) -> None:
        agents = Agent.objects.select_related("deployment", "revision__model", "node")
        columns = [field.attname for field in Agent._meta.concrete_fields]  # noqa: SLF001 - Django's documented way to them
        columns += ["deployment__name", "node__name", "revision__digest", "revision__model__digest"]
        # What more there is of deployments and nodes is most of the work of reading all agents anew.
        needed = agents.only(*columns, "revision__model__manifest")
        self._agents = KeptRows(needed.order_by("created_at", "id"), columns, _AgentRow.of)
        self._boxes = KeptRows(Node.objects.order_by(), ["hardware"], _box)

    def read(self, known: Mapping[ProfileKey, Profile]) -> tuple[AgentFacts, ...]:
        """Oldest first; `known` are the profiles."""
        rows = self._agents.read()
        boxes = dict(self._boxes.read())
        threads: Counter[int] = Counter()
        for row in rows:
            if row.holds_threads:
                threads[row.node] += row.alone.threads
        keys: dict[tuple[int, tuple[str, str, str]], ProfileKey] = {}
        facts = []
        for row in rows:
            box = boxes[row.node]
            key = keys.get((row.node, row.model))
            if key is None:
                digest, engine, version = row.model
                key = keys[row.node, row.model] = ProfileKey(digest, box, engine, version)
            outdated = is_outdated(known, key, row.profile)
            facts.append(row.among_others(cores=box.cores, threads=threads[row.node], outdated=outdated))
        return tuple(facts)


def _shape_of(row: Agent) -> dict[str, Any]:
    """What its profile says of its shape; nothing where that cannot be read."""
    if isinstance(row.profile, Damaged):
        return {}
    try:
        shape = shape_of(row.profile)
    except (KeyError, TypeError, ValueError):
        return {}
    stretched = bool(row.profile.get(STRETCHED))
    return {"shape": shape, "limit": row.profile.get(LIMIT), "stretched": stretched}


def _box(node: Node) -> tuple[int, Box]:
    return node.pk, box_of(node.hardware)


def read_epoch() -> str:
    """The epoch of this database's routes."""
    state, _ = RouteState.objects.get_or_create(pk=1, defaults={"epoch": new_epoch()})
    return state.epoch


def write_agents(before: Iterable[AgentFacts], after: Iterable[AgentFacts], generation: int | None) -> None:
    """Write the changed columns of changed agents, each only where `wanted` is still what was read.

    Agents that begin to drain are given `generation`, which takes them out of service.
    """
    known = {agent.id: agent for agent in before}
    after = tuple(after)
    changed = [one for one in after if one is not known[one.id] and _said(one) != _said(known[one.id])]
    shaped = shaped_profiles(changed)
    for agent in after:
        was = known[agent.id]
        if agent == was and agent.wanted not in ("draining", "resting"):
            continue
        changes = {
            name: _value(name, getattr(agent, name))
            for name in _KEPT
            if getattr(agent, name) != getattr(was, name)
        }
        if agent.wanted in ("draining", "resting", "parked") and agent.draining_generation is None:
            changes["draining_generation"] = generation
        if agent.id in shaped:
            changes["profile"] = shaped[agent.id]
        if changes:
            Agent.objects.filter(pk=agent.id, wanted=was.wanted).update(**changes)


def _said(agent: AgentFacts) -> tuple[object, ...]:
    """What its profile says beside its speed."""
    return agent.shape, agent.limit, agent.stretched


def to_time(seconds: float | None) -> dt.datetime | None:
    """Unix seconds as rows have them."""
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)


def _seconds(time: dt.datetime | None) -> float | None:
    return None if time is None else time.timestamp()


def _fact(name: str, value: Any) -> Any:
    return _seconds(value) if name in _TIMES else value


def _value(name: str, value: Any) -> Any:
    return to_time(value) if name in _TIMES else value


assert set(_KEPT) <= {field.name for field in fields(AgentFacts)}

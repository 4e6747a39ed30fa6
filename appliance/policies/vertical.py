"""Agents grow where none can be added, and go back once the load does not ask for it. Standard library only.

Where load asks for more than all agents do for a while, with the maximum reached or no room left, ready
ones first get more engine threads, of cores of their box that nobody uses, one agent at a time: for that the
model is loaded again. Where that is not enough batches may be larger, at once and without a pause. Worked:
of 2 agents with one thread each, on boxes of 4 cores, 5 are asked: one grows to 4 threads, and both do 5.

Agents that are to be otherwise than they are are told again; one that could not stays as it was.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.policies.actions import Create, Reshape
from appliance.policies.capacity import Capacity, counts_speeds
from appliance.policies.counting import EXACT_KINDS, LACKS, asked_of
from appliance.policies.fleet import AgentFacts
from appliance.policies.profiles import share_of_box
from appliance.policies.scaling_facts import Decision
from appliance.policies.shapes import Reach, Shape
from appliance.policies.standing import has_failed
from appliance.policies.turn import Turn

#: Load must ask for more than can be had for so long: loading again costs more than a short burst gives.
AFTER_S: Final = 3.0
#: In average agents: so little is no reason to grow further.
_ENOUGH: Final = 0.05
#: Agents of a deployment that a tick changes: each is a row to write, and an order to give.
MOST_CHANGED: Final = 64


@dataclass(slots=True)
class _Grower:
    """An agent that may grow, what it is and was at its start, and what it does then, in average agents."""

    agent: AgentFacts
    reach: Reach
    shape: Shape
    start: Shape
    does: float


def look_after_shapes(turn: Turn, decision: Decision, short: int) -> float | None:
    """Have agents grow or go back, and told what they are to be; since when load asks for what cannot be had.

    `decision` is in average agents where these count; `short` agents found no room.
    """
    _give_up_shapes(turn)
    since = _look_after_load(turn, decision)
    if short:
        _renew_in_place(turn)
    _tell(turn)
    return since


def _look_after_load(turn: Turn, decision: Decision) -> float | None:
    deployment, now = turn.deployment, turn.snapshot.now
    if deployment.removing or deployment.paused or deployment.dry_run or deployment.revision is None:
        return None
    if decision.kind == "hold":  # what load asks is not looked at, so nothing is taken back either
        return None
    if not decision.valid or decision.kind == "cannot_tell":
        return deployment.lacking_since
    asked = 0 if decision.kind in EXACT_KINDS else asked_of(decision)
    settled = turn.settled()
    coming = any(isinstance(action, Create) for action in turn.actions)
    missing = asked - _have(turn, [*settled, *_making_room(turn, settled)])
    since = _lacking_since(turn, lacks=bool(settled) and not coming and missing > LACKS)
    if since is not None and now - since >= AFTER_S:
        growers = _growers(turn)
        wider = _targets(turn, growers, asked)
        _change_all(turn, [(one, _larger_of(one.shape, wider[one.agent.id])) for one in growers], asked)
    elif since is None and decision.lowers and any(_is_unlike(turn, agent) for agent in settled):
        growers = _growers(turn)
        # The decision keeps up the number of agents by what was asked lately, and knows nothing of shapes.
        kept = _targets(turn, growers, max((asked, *(was for _, was in decision.state.recent))))
        _change_all(turn, [(one, _back_to(one, kept[one.agent.id])) for one in growers], asked)
    return since


def _lacking_since(turn: Turn, *, lacks: bool) -> float | None:
    """Since when load has asked for more, all in all: a while in which it does not takes as much time back.

    What queues ask goes up and down with each answer: three seconds on end would hardly ever pass.
    """
    now, since, state = turn.snapshot.now, turn.deployment.lacking_since, turn.deployment.scaling_state
    if lacks:
        return now if since is None else max(min(since, now), now - 2 * AFTER_S)
    if since is None:
        return None
    passed_s = AFTER_S if state is None else max(0.0, now - state.at)
    since += 2 * passed_s
    return since if since < now else None


def _making_room(turn: Turn, settled: Sequence[AgentFacts]) -> list[AgentFacts]:
    """Agents that others are to take the place of, and that serve until these do."""
    own = {agent.id for agent in settled}
    return [agent for agent in turn.warm() if agent.state == "ready" and agent.id not in own]


def _have(turn: Turn, agents: Iterable[AgentFacts]) -> float:
    """What these do as they start, in average ones."""
    agents = list(agents)
    if not counts_speeds(turn.deployment):
        return float(len(agents))
    alike: Counter[tuple[str, int]] = Counter()
    for agent in agents:
        reach = turn.deployment.reach.get(agent.node)
        grown = reach is not None and _is_unlike(turn, agent)
        alike[agent.node, reach.start.engine_threads if reach and grown else agent.threads] += 1
    capacity = Capacity(turn)
    for (node, threads), count in alike.items():
        capacity.add(node, threads, agents=count)
    return capacity.total


def _is_unlike(turn: Turn, agent: AgentFacts) -> bool:
    """Whether it is not as a new one would start, by growth or by a limit that was changed."""
    return agent.stretched or agent.limit != turn.deployment.policy.threads


def _growers(turn: Turn) -> list[_Grower]:
    """Settled agents that say how large they are to be; those that failed are not counted on."""
    counted = Capacity(turn) if counts_speeds(turn.deployment) else None
    free = _free_cores(turn)
    found = []
    for agent in turn.settled():
        reach = turn.deployment.reach.get(agent.node)
        if agent.shape is None or reach is None or has_failed(agent):
            continue
        start = reach.start if _is_unlike(turn, agent) else agent.shape
        cores = turn.spaces.cores(agent.node)
        does = 1.0
        if counted is not None:
            does = counted.alone(agent.node) * share_of_box(cores, cores - free[agent.node])
        found.append(_Grower(agent, reach, agent.shape, start, does))
    return found


def _free_cores(turn: Turn) -> dict[str, int]:
    """By node the cores that nobody uses, were all agents of it as they start; below 0: so many are short."""
    free: dict[str, int] = {}
    for agent in turn.settled():
        reach = turn.deployment.reach.get(agent.node)
        if agent.node not in free:
            free[agent.node] = turn.spaces.cores(agent.node) - turn.spaces.lasting_threads(agent.node)
        if reach is not None and _is_unlike(turn, agent):
            free[agent.node] += agent.threads - reach.start.engine_threads
    return free


def _targets(turn: Turn, growers: Sequence[_Grower], asked: int) -> dict[str, Shape]:
    """What each is to be so that they do what is asked, as far as they may; what they are does not matter."""
    missing = asked - sum(one.does for one in growers) - _have(turn, _making_room(turn, turn.settled()))
    free = _free_cores(turn)
    found = {one.agent.id: one.start for one in growers}
    # Who has grown already comes first: else others would grow in its place at the next look.
    for one in sorted(
        growers, key=lambda each: (not each.agent.stretched, -free[each.agent.node], each.agent.id)
    ):
        threads, node = one.start.engine_threads, one.agent.node
        room = min(one.reach.most_threads - threads, free[node])
        if missing <= _ENOUGH or room <= 0 or one.does <= 0 or _cannot(turn, one.agent):
            continue
        each = one.start.threads
        asks = math.ceil(missing / one.does * threads / each) * each
        shape = one.reach.of(threads + min(room, asks))
        grown = shape.engine_threads - threads
        if grown > 0:
            found[one.agent.id] = replace(shape, batch_size=one.start.batch_size)
            free[node] -= grown
            missing -= one.does * grown / threads
    if missing > _ENOUGH:
        for one in growers:
            largest = max(one.start.batch_size, one.reach.most_batch)
            if not _cannot(turn, one.agent):
                found[one.agent.id] = replace(found[one.agent.id], batch_size=largest)
    return found


def _larger_of(now_is: Shape, target: Shape) -> Shape:
    """While more is asked nothing gets smaller."""
    larger = target if target.engine_threads > now_is.engine_threads else now_is
    return replace(larger, batch_size=max(now_is.batch_size, target.batch_size))


def _back_to(one: _Grower, target: Shape) -> Shape:
    """While nothing lacks nothing gets larger than it is, or starts."""
    now_is, start = one.shape, one.start
    larger = now_is if now_is.engine_threads > start.engine_threads else start
    smaller = larger if target.engine_threads > larger.engine_threads else target
    return replace(smaller, batch_size=min(target.batch_size, max(now_is.batch_size, start.batch_size)))


def _change_all(turn: Turn, targets: Iterable[tuple[_Grower, Shape]], asked: int) -> None:
    """Batches at once, as many as one tick changes; threads only where no other is being changed."""
    stand, left = _all_stand(turn), MOST_CHANGED
    for one, target in targets:
        if left == 0:
            return
        changed = _change(turn, one, target, asked, alone=stand)
        if changed is not None:
            left -= 1
            stand = stand and (changed.workers, changed.threads) == (one.shape.workers, one.shape.threads)


def _change(turn: Turn, one: _Grower, target: Shape, asked: int, *, alone: bool) -> Shape | None:
    """What it is to be from now on, None where nothing changes; its threads only where it is `alone` in that.

    To go back, only where nobody waits for it.
    """
    agent, now_is = one.agent, one.shape
    if agent.state != "ready" or _cannot(turn, agent):
        return None
    more = target.engine_threads - now_is.engine_threads
    if (target.workers, target.threads) != (now_is.workers, now_is.threads):
        spared = alone and (more > 0 or _is_spared(turn, agent, turn.settled()))
        if not spared:
            target = replace(now_is, batch_size=target.batch_size)
    if target == now_is == one.reach.start and _is_unlike(turn, agent):
        turn.put(replace(agent, limit=turn.deployment.policy.threads, stretched=False))
        return target
    if target == now_is:
        return None
    turn.spaces.widen(agent, target.engine_threads - agent.threads)
    _put(turn, agent, target, _why(turn, one, target, asked))
    return target


def _why(turn: Turn, one: _Grower, target: Shape, asked: int) -> str:
    """What the change is for, in words."""
    agent, limit = one.agent, turn.deployment.policy.threads
    if agent.limit != limit and not agent.stretched and target == one.reach.start:
        return f"agents start with threads={'none' if limit is None else limit} now"
    if target.engine_threads > one.shape.engine_threads or target.batch_size > one.shape.batch_size:
        return f"load asks for {asked}, and no agent can be added"
    return "that is not asked any more"


def _put(turn: Turn, agent: AgentFacts, target: Shape, why: str) -> None:
    reach = turn.deployment.reach[agent.node]
    stretched = target != reach.start
    limit = turn.deployment.policy.threads
    turn.put(replace(agent, shape=target, threads=target.engine_threads, limit=limit, stretched=stretched))
    turn.did.append(f"change {agent.id} from {agent.shape} to {target}: {why}")


def _all_stand(turn: Turn) -> bool:
    """Whether no agent is being changed, or comes: only one of a deployment may be out for that."""
    able = (agent for agent in turn.settled() if not has_failed(agent))
    return all(agent.state == "ready" and not _differs(turn, agent) for agent in able)


def _is_spared(turn: Turn, agent: AgentFacts, agents: Iterable[AgentFacts]) -> bool:
    """Whether another of these serves meanwhile, or it has nothing to do."""
    queued = any(seen.queued for _, seen in turn.snapshot.deployment_reports(turn.deployment.name))
    others = any(one.id != agent.id and one.state == "ready" for one in agents)
    return others or (not queued and turn.in_flight(agent) == 0)


def _cannot(turn: Turn, agent: AgentFacts) -> bool:
    """Whether it refused lately, or does not say what it is: nobody could see that it has changed."""
    if agent.id in turn.snapshot.unshapable:
        return True
    link = turn.snapshot.link(agent)
    return agent.state == "ready" and (link is None or link.shape is None)


def _renew_in_place(turn: Turn) -> None:
    """An agent with the default though better was measured, and no room for another: it changes itself."""
    if not _all_stand(turn):
        return
    for agent in turn.warm():
        reach = turn.deployment.reach.get(agent.node)
        same = agent.revision == turn.deployment.revision and agent.moving_at is None
        if not (agent.outdated and same and agent.state == "ready" and agent.shape is not None):
            continue
        if reach is None or turn.misplaced(agent) or turn.stay(agent) != "stay" or _cannot(turn, agent):
            continue
        if reach.start != agent.shape and _is_spared(turn, agent, turn.warm()):
            renewed = replace(agent, outdated=False)
            turn.put(renewed)
            _put(turn, renewed, reach.start, "better was measured, and another finds no room beside it")
            return


def _give_up_shapes(turn: Turn) -> None:
    """What an agent could not be it is not wanted to be; that is told while it is not tried again."""
    for agent in turn.warm():
        why = turn.snapshot.unshapable.get(agent.id)
        if why is None:
            continue
        link = turn.snapshot.link(agent)
        turn.problem = turn.problem or f"agent {agent.id} stays as it is: {why}"
        if link is not None and link.shape is not None and link.shape != agent.shape:
            reach = turn.deployment.reach.get(agent.node)
            stretched = reach is not None and link.shape != reach.start
            threads = link.shape.engine_threads
            turn.put(replace(agent, shape=link.shape, threads=threads, stretched=stretched))
            turn.did.append(f"leave {agent.id} at {link.shape}: {why}")


def _differs(turn: Turn, agent: AgentFacts) -> bool:
    link = turn.snapshot.link(agent)
    return link is not None and link.shape is not None and agent.shape not in (None, link.shape)


def _tell(turn: Turn) -> None:
    """Those that are ready and are not what they are to be are told, until they are."""
    for agent in turn.warm():
        told = agent.id in turn.snapshot.in_hand or _cannot(turn, agent)
        if agent.shape is not None and agent.state == "ready" and not told and _differs(turn, agent):
            turn.actions.append(Reshape(agent.id, agent.node, agent.shape))

"""Nodes that could be emptied, to sleep or to be given back: what that saves against whom it disturbs.

Only for deployments that ask for few or cheap nodes, and only while they are quiet. All moves off a node are
tried first on a copy of the room, by the same rule that places new agents; where one finds no place, or the
rest would do less than is asked, nothing is begun. Moves then come one at a time, each tried anew before it
begins. Standard library only.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.policies.capacity import Capacity, counts_speeds
from appliance.policies.fleet import AgentFacts
from appliance.policies.growing import Wishes
from appliance.policies.moving import Move
from appliance.policies.placement import NodeSpace, Refusal
from appliance.policies.profiles import MOST_THREADS_PER_CORE
from appliance.policies.spaces import Spaces
from appliance.policies.turn import Turn

#: So many nodes are tried in one tick, the most promising first.
MOST_TRIED: Final = 4
#: In average agents, what may lack after all moves.
SPARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Mover:
    """An agent on a node that might be emptied."""

    turn: Turn
    agent: AgentFacts


def propose_emptying(turns: Iterable[Turn], quiet: frozenset[str], spaces: Spaces, most: int) -> Move | None:
    """The first move towards the node whose emptying saves most for the least disturbance, within `most`."""
    turns = list(turns)
    by_name = {turn.deployment.name: turn for turn in turns}
    if not any(turn.deployment.placement.packs for turn in turns if turn.deployment.name in quiet):
        return None
    on_node = _movers(turns, quiet)
    scored = []
    for name, movers in on_node.items():
        node = spaces.node(name)
        if movers and len(movers) <= most and node is not None and node.saving_per_hour > 0:
            scored.append((-node.saving_per_hour / _disturbance(movers), name, movers))
    for score, name, movers in sorted(scored, key=lambda one: one[:2])[:MOST_TRIED]:
        first = _try(by_name, name, movers, spaces)
        if first is not None:
            mover, to_node = first
            saves = -score * _disturbance(movers)
            why = f"empties {name}, which saves {saves:.3f} an hour for {len(movers)} moves"
            return Move(mover.agent.id, mover.turn.deployment.name, to_node, why)
    return None


def _movers(turns: Iterable[Turn], quiet: frozenset[str]) -> dict[str, list[_Mover]]:
    """By node the agents that would move, where all of them may. Parked ones end by themselves."""
    found: dict[str, list[_Mover]] = {}
    stuck: set[str] = set()
    for turn in turns:
        moves = turn.deployment.name in quiet and turn.deployment.placement.packs
        for agent in turn.agents:
            if moves and agent.wanted == "warm":
                found.setdefault(agent.node, []).append(_Mover(turn, agent))
            elif agent.wanted != "parked":
                stuck.add(agent.node)
    return {name: movers for name, movers in found.items() if name not in stuck}


def _disturbance(movers: Sequence[_Mover]) -> float:
    """One for each warm agent, and one for each request that it has."""
    return sum(1.0 + one.turn.in_flight(one.agent) for one in movers)


def _try(
    turns: Mapping[str, Turn], name: str, movers: Sequence[_Mover], spaces: Spaces
) -> tuple[_Mover, str] | None:
    """The first move, where all of them find a place on nodes that are in use, and do enough after."""
    room = spaces.copy()
    moved: dict[str, str] = {}
    first: tuple[_Mover, str] | None = None
    for mover in sorted(movers, key=lambda one: (one.turn.in_flight(one.agent), one.agent.id)):
        found = _new_place(mover, name, room)
        if found is None:
            return None
        room.move(mover.agent, found.name)
        moved[mover.agent.id] = found.name
        first = first or (mover, found.name)
    touched = {name, *moved.values()}
    for turn in turns.values():
        if any(agent.node in touched for agent in turn.agents) and not _does_enough(turn, room, moved):
            return None
    return first


def _new_place(mover: _Mover, name: str, room: Spaces) -> NodeSpace | None:
    """A node in use, not crowded over the limit, and owned where one of the first agents is to move."""
    turn = mover.turn
    wish = Wishes(turn).next(without=name)
    found = room.look(turn.deployment.model_bytes, replace(wish, packs=True), patient=True)
    node = None if isinstance(found, Refusal) else room.node(found)
    if node is None or not node.agents or (wish.base and node.preemptible and wish.rules.base == "owned"):
        return None
    threads = room.lasting_threads(node.name) + mover.agent.threads
    return node if threads <= MOST_THREADS_PER_CORE * max(1, node.cores) else None


def _does_enough(turn: Turn, room: Spaces, moved: Mapping[str, str]) -> bool:
    """Whether its agents still do what is asked; where speeds are not known, whether it does nothing now."""
    if not counts_speeds(turn.deployment):
        return not any(turn.in_flight(agent) for agent in turn.agents)
    after = [replace(one, node=moved.get(one.id, one.node)) for one in turn.settled()]
    return Capacity(turn, after, spaces=room).total >= (turn.asked_agents or 0) - SPARE

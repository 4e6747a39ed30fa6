"""Agents that move to another node: one at a time, the new one ready before the old one leaves.

The agent that is to go is marked; another is created where it goes; once that is ready, the old one drains.
Moves are few: only of deployments that are quiet, and so many in ten minutes. Standard library only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.policies.actions import Create, DeploymentPlan
from appliance.policies.fleet import FleetSnapshot
from appliance.policies.turn import Turn

#: Moves of the whole fleet within so long, and so many.
WINDOW_S: Final = 600.0
MOST_MOVES: Final = 6
#: A deployment whose number changed within so long is not quiet.
QUIET_S: Final = 60.0
#: One that could not be brought by then stays where it is.
GIVE_UP_S: Final = 180.0
_NOT_READY: Final = "none was ready"
#: Reasons of decisions with which nothing is moved.
_UNREST: Final = frozenset({"panic", "held", "cannot_tell", "removing", "paused", "proof", "backlog"})


@dataclass(frozen=True, slots=True)
class Move:
    """An agent, the node where another takes its place, and why."""

    agent: str
    deployment: str
    to_node: str
    why: str


def may_move(snapshot: FleetSnapshot) -> bool:
    """Whether any agent may be moved now: there is a choice, all is seen, and the budget is not used up."""
    if len(snapshot.nodes) < 2 or snapshot.silent or not snapshot.reports:
        return False
    if any(agent.moving_at is not None for agent in snapshot.agents):
        return False
    return moves_left(snapshot) > 0


def moves_left(snapshot: FleetSnapshot) -> int:
    """How many agents of the fleet may still be moved in this while."""
    recent = sum(len(_recent(one.moves, snapshot.now)) for one in snapshot.deployments)
    return max(0, MOST_MOVES - recent)


def is_quiet(turn: Turn, plan: DeploymentPlan) -> bool:
    """Whether nothing of it changes or waits: then an agent that moves is missed by nobody."""
    deployment, state, now = turn.deployment, plan.scaling_state, turn.snapshot.now
    if deployment.removing or deployment.paused or deployment.revision is None or not deployment.proven:
        return False
    if plan.desired != plan.before or plan.kind in _UNREST or plan.did or plan.problem:
        return False
    if state is None or state.panic_at is not None or any(now - at < QUIET_S for at, _ in state.steps):
        return False
    settled = {agent.id for agent in turn.settled() if agent.state == "ready"}
    if any(agent.wanted != "parked" and agent.id not in settled for agent in turn.agents):
        return False
    return not any(seen.queued for _, seen in turn.snapshot.deployment_reports(deployment.name))


def begin(turns: Mapping[str, Turn], plans: Sequence[DeploymentPlan], move: Move) -> list[DeploymentPlan]:
    """Mark the agent, have the other created; the plans that say so."""
    turn = turns[move.deployment]
    agent = next(one for one in turn.agents if one.id == move.agent)
    revision = turn.deployment.revision
    assert revision is not None
    turn.put(replace(agent, moving_at=turn.snapshot.now, moving_to=move.to_node))
    turn.actions.append(Create(move.deployment, revision, move.to_node))
    words = f"move {agent.id} from {agent.node} to {move.to_node}: {move.why}"
    return [
        replace(each, did=(*each.did, words), moves=(*each.moves, turn.snapshot.now))
        if each.name == move.deployment
        else each
        for each in plans
    ]


def look_after_moves(turn: Turn) -> None:
    """Call off what is under way where it would not be begun now: the other is one too many then.

    Where none was ready in time that is remembered, so that it is not tried again and again.
    """
    for agent in turn.those(lambda one: one.moving_at is not None and one.wanted == "warm"):
        why = _why_off(turn, agent.moving_at or turn.snapshot.now, agent.moving_to)
        if why:
            tried = agent.moving_to if why.startswith(_NOT_READY) else ""
            turn.put(replace(agent, moving_at=None, moving_to=tried))
            turn.did.append(f"leave {agent.id} on {agent.node}: {why}")


def kept_moves(turn: Turn) -> tuple[float, ...]:
    """When agents of it were moved in this while."""
    return _recent(turn.deployment.moves, turn.snapshot.now)


def _why_off(turn: Turn, since: float, to_node: str) -> str:
    """Why a move is called off, '' where it goes on."""
    node, state = turn.snapshot.node(to_node), turn.deployment.scaling_state
    if node is None or not node.accepts or node.lost or node.stay != "stay":
        return f"{to_node} takes no agents any more"
    if turn.deployment.placement.limits and (broken := turn.deployment.placement.why_not(node.labels)):
        return f"{to_node} {broken}"
    if turn.snapshot.now - since > GIVE_UP_S:
        return f"{_NOT_READY} on {to_node} within {GIVE_UP_S:.0f} s"
    queued = any(seen.queued for _, seen in turn.snapshot.deployment_reports(turn.deployment.name))
    if queued or (state is not None and state.panic_at is not None and state.panic_at > since):
        return "load has come"
    return ""


def _recent(moves: Sequence[float], now: float) -> tuple[float, ...]:
    return tuple(at for at in moves if -1 <= now - at < WINDOW_S)  # the clock may have been put back

"""From what is wanted and what is seen to the actions that close the gap. Standard library only.

New agents come up before old ones go; an agent leaves only after a handshake: every gateway has
taken it out of service, and it says itself that it holds nothing.
"""

import logging
from dataclasses import replace

from appliance.policies.actions import Action, Asked, Create, DeploymentPlan, EndOrphan, Forget, Plan, Remove
from appliance.policies.consolidation import propose_emptying
from appliance.policies.counting import EXACT_KINDS, asked_of, desired_rps, in_agents, in_average_agents
from appliance.policies.dry_run import hold_still
from appliance.policies.fleet import AgentFacts, FleetSnapshot
from appliance.policies.growing import create_missing
from appliance.policies.leaving import let_go
from appliance.policies.levels import adopt, look_after_parked, make_room, resume_parked
from appliance.policies.load_facts import load_of
from appliance.policies.mending import call_back, mend
from appliance.policies.moving import begin, is_quiet, kept_moves, look_after_moves, may_move, moves_left
from appliance.policies.scaling import Decision, decide
from appliance.policies.spaces import Spaces
from appliance.policies.spreading import propose_spread
from appliance.policies.standing import assess, has_failed
from appliance.policies.turn import Turn
from appliance.policies.vertical import look_after_shapes
from appliance.policies.victims import drain_surplus

#: How long agents of a removed deployment are kept for requests that still wait in gateways.
REMOVAL_GRACE_S = 60.0

log = logging.getLogger(__name__)


def plan(snapshot: FleetSnapshot) -> Plan:
    """Compute the tick's actions. Where everything is as wanted there are none."""
    own: dict[str, list[AgentFacts]] = {}
    for agent in snapshot.agents:
        own.setdefault(agent.deployment, []).append(assess(agent, snapshot))
    spaces = Spaces(snapshot)
    turns = [Turn(snapshot, one, own.get(one.name, []), spaces) for one in snapshot.deployments]
    plans = [_run(turn) for turn in turns]
    plans = _rearrange(snapshot, turns, plans, spaces)
    known = {one.name for one in snapshot.deployments}
    # Those of a deployment that could not be read stay as they are.
    after = [agent for name, agents in own.items() if name not in known for agent in agents]
    after += [agent for turn in turns for agent in turn.agents]
    actions: list[Action] = [action for turn in turns for action in turn.actions]
    after, plans = make_room(snapshot, spaces, after, plans)
    before = {agent.id: (agent.wanted, agent.shape) for agent in snapshot.agents}
    for node, running in sorted(snapshot.running.items()):
        actions.extend(EndOrphan(agent, node) for agent in sorted(running or ()) if agent not in before)
    changed = any((agent.wanted, agent.shape) != before[agent.id] for agent in after)
    changed = changed or any(isinstance(action, Create | Forget | Remove) for action in actions)
    return Plan(tuple(after), tuple(plans), tuple(actions), changed)


def _run(turn: Turn) -> DeploymentPlan:
    """One that cannot be planned is left as it is, without its memory: it must stop no other."""
    agents = list(turn.agents)
    try:
        return _run_through(turn)
    except Exception as error:
        log.exception("deployment %s could not be planned", turn.deployment.name)
        turn.agents, turn.actions, turn.did = agents, [], []
        one, why = turn.deployment, f"{type(error).__name__}: {error}"[:200]
        return DeploymentPlan(
            one.name, one.desired, one.desired, None, "it could not be planned and stays as it is", "fault",
            f"it could not be planned: {why}", (), {}, None, one.removing_at, one.proven, (), None,
            one.would if one.dry_run else None, one.desired_rps, one.moves, one.lacking_since,
        )  # fmt: skip


def _run_through(turn: Turn) -> DeploymentPlan:
    deployment, now = turn.deployment, turn.snapshot.now
    removing_at = (deployment.removing_at or now) if deployment.removing else None
    proven = deployment.proven or any(
        agent.revision == deployment.revision and agent.state == "ready" for agent in turn.agents
    )
    look_after_moves(turn)
    decided = _decide(turn, removing_at, proven=proven)
    counted = in_agents(decided, turn)
    decision = adopt(turn, counted)
    call_back(turn)
    resume_parked(turn, decision.replicas)
    asked = None if decision is not counted or decision.kind in EXACT_KINDS else asked_of(decided)
    short = 0 if deployment.removing else create_missing(turn, decision.replicas)
    if not _waits_for_queue(turn, removing_at):
        drain_surplus(turn, decision.replicas, short, asked)
    mend(turn)
    look_after_parked(turn, decision.replicas)
    lacking_since = look_after_shapes(turn, decided, short)
    let_go(turn)
    if deployment.removing and not turn.agents:
        turn.actions.append(Remove(deployment.name))
        turn.did.append("remove the deployment")
    turn.problem = turn.problem or _problem_of_agents(turn)
    return DeploymentPlan(
        deployment.name, deployment.desired, decision.replicas, decision.want, decision.reason,
        decision.kind, turn.problem, decision.clamps, dict(decision.inputs), decision.state,
        removing_at, proven, tuple(turn.did), turn.asked, turn.would,
        desired_rps(turn, decided.replicas + decision.replicas - counted.replicas), kept_moves(turn),
        lacking_since,
    )  # fmt: skip


def _problem_of_agents(turn: Turn) -> str:
    for agent in turn.agents:
        if agent.state == "failed" or (agent.error and has_failed(agent)):
            return f"agent {agent.id} failed: {agent.error}"
    for agent in turn.agents:
        if agent.damage:
            return (
                f"agent {agent.id}: the {agent.damage} of its row cannot be read; it goes on as it is, and "
                f"is set up anew when its process on {agent.node} is ended, or the node rebooted"
            )
    return ""


def _rearrange(
    snapshot: FleetSnapshot, turns: list[Turn], plans: list[DeploymentPlan], spaces: Spaces
) -> list[DeploymentPlan]:
    """Begin at most one move, of an agent of a deployment that is quiet."""
    if not may_move(snapshot):
        return plans
    pairs = zip(turns, plans, strict=True)
    quiet = frozenset(turn.deployment.name for turn, each in pairs if is_quiet(turn, each))
    move = propose_emptying(turns, quiet, spaces, moves_left(snapshot))
    for turn in turns:
        move = move or (propose_spread(turn) if turn.deployment.name in quiet else None)
    if move is None:
        return plans
    return begin({turn.deployment.name: turn for turn in turns}, plans, move)


def _decide(turn: Turn, removing_at: float | None, *, proven: bool) -> Decision:
    deployment, now = turn.deployment, turn.snapshot.now
    state = deployment.scaling_state
    load = in_average_agents(load_of(turn), turn)
    decision = decide(deployment.policy, load, state, now)
    turn.asked = Asked(deployment.policy, load, state, decision)
    if removing_at is not None:
        return replace(decision, replicas=0, reason="the deployment is being removed", kind="removing")
    if deployment.paused:
        words = f"paused: stay at {deployment.desired}"
        return replace(decision, replicas=deployment.desired, reason=words, kind="paused")
    if deployment.dry_run:
        turn.would = decision.replicas
        decision = hold_still(decision, deployment.desired)
    if not proven and decision.replicas == 0:
        return replace(decision, replicas=1, reason="one agent proves the new revision", kind="proof")
    return decision


def _waits_for_queue(turn: Turn, removing_at: float | None) -> bool:
    """Whether agents of a removed deployment are kept for what still waits in gateways."""
    if removing_at is None or turn.snapshot.now - removing_at >= REMOVAL_GRACE_S:
        return False
    return any(seen.queued for _, seen in turn.snapshot.deployment_reports(turn.deployment.name))

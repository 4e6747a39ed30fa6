"""From what is wanted and what is seen to the actions that close the gap. Standard library only.

New agents come up before old ones go; an agent leaves only after a handshake: every gateway has
taken it out of service, and it says itself that it holds nothing.
"""

from dataclasses import replace

from appliance.policies.actions import Action, Create, DeploymentPlan, EndOrphan, Forget, Plan, Remove
from appliance.policies.fleet import AgentFacts, FleetSnapshot
from appliance.policies.leaving import let_go
from appliance.policies.load_facts import load_of
from appliance.policies.mending import call_back, mend
from appliance.policies.placement import Refusal
from appliance.policies.scaling import Decision, decide
from appliance.policies.spaces import Spaces
from appliance.policies.standing import assess
from appliance.policies.turn import Turn
from appliance.policies.victims import drain_surplus

#: How long agents of a removed deployment are kept for requests that still wait in gateways.
REMOVAL_GRACE_S = 60.0


def plan(snapshot: FleetSnapshot) -> Plan:
    """Compute the tick's actions. Where everything is as wanted there are none."""
    agents = [assess(agent, snapshot) for agent in snapshot.agents]
    spaces = Spaces(snapshot)
    after: list[AgentFacts] = []
    plans: list[DeploymentPlan] = []
    actions: list[Action] = []
    for deployment in snapshot.deployments:
        turn = Turn(snapshot, deployment, [one for one in agents if one.deployment == deployment.name])
        plans.append(_run(turn, spaces))
        after.extend(turn.agents)
        actions.extend(turn.actions)
    known = {agent.id for agent in snapshot.agents}
    for node, running in sorted(snapshot.running.items()):
        actions.extend(EndOrphan(agent, node) for agent in sorted(running or ()) if agent not in known)
    before = {agent.id: agent.wanted for agent in snapshot.agents}
    changed = any(agent.wanted != before[agent.id] for agent in after)
    changed = changed or any(isinstance(action, Create | Forget | Remove) for action in actions)
    return Plan(tuple(after), tuple(plans), tuple(actions), changed)


def _run(turn: Turn, spaces: Spaces) -> DeploymentPlan:
    deployment, now = turn.deployment, turn.snapshot.now
    removing_at = (deployment.removing_at or now) if deployment.removing else None
    proven = deployment.proven or any(
        agent.revision == deployment.revision and agent.state == "ready" for agent in turn.agents
    )
    decision = _decide(turn, removing_at, proven=proven)
    call_back(turn)
    short = 0 if deployment.removing else _create_missing(turn, decision.replicas, spaces)
    if not _waits_for_queue(turn, removing_at):
        drain_surplus(turn, decision.replicas, short)
    mend(turn)
    let_go(turn)
    if deployment.removing and not turn.agents:
        turn.actions.append(Remove(deployment.name))
        turn.did.append("remove the deployment")
    failed = [agent for agent in turn.agents if agent.state == "failed"]
    if failed and not turn.problem:
        turn.problem = f"agent {failed[0].id} failed: {failed[0].error}"
    return DeploymentPlan(
        deployment.name, deployment.desired, decision.replicas, decision.want, decision.reason,
        decision.kind, turn.problem, decision.clamps, dict(decision.inputs), decision.state,
        removing_at, proven, tuple(turn.did),
    )  # fmt: skip


def _decide(turn: Turn, removing_at: float | None, *, proven: bool) -> Decision:
    deployment, now = turn.deployment, turn.snapshot.now
    state = deployment.scaling_state
    decision = decide(deployment.policy, load_of(turn), state, now)
    if removing_at is not None:
        return replace(decision, replicas=0, reason="the deployment is being removed", kind="removing")
    if deployment.paused:
        words = f"paused: stay at {deployment.desired}"
        return replace(decision, replicas=deployment.desired, reason=words, kind="paused")
    if not proven and decision.replicas == 0:
        return replace(decision, replicas=1, reason="one agent proves the new revision", kind="proof")
    return decision


def _waits_for_queue(turn: Turn, removing_at: float | None) -> bool:
    """Whether agents of a removed deployment are kept for what still waits in gateways."""
    if removing_at is None or turn.snapshot.now - removing_at >= REMOVAL_GRACE_S:
        return False
    return any(seen.queued for _, seen in turn.snapshot.deployment_reports(turn.deployment.name))


def _create_missing(turn: Turn, target: int, spaces: Spaces) -> int:
    """Create what is missing; for how many there was no room."""
    revision = turn.deployment.revision
    if revision is None:
        turn.problem = "it has no revision: deploy it again"
        return target
    new = turn.settled()
    missing = target - len(new)
    if any(turn.is_old(agent) for agent in turn.warm()):
        # One more than is proven: the first new agent is ready before a second comes, or an old one goes.
        proven = 1 + sum(agent.state == "ready" for agent in new) - len(new)
        # What lacks altogether comes at once, unless a revision has to prove itself first.
        rolls = any(agent.revision != revision for agent in turn.warm())
        missing = min(missing, proven if rolls else max(proven, target - len(turn.warm())))
    for number in range(max(0, missing)):
        node = spaces.place(
            turn.deployment.model_bytes, turn.deployment.capacities, patient=bool(new) or number > 0
        )
        if isinstance(node, Refusal):
            rolls = any(agent.revision != revision for agent in turn.warm())
            if rolls or len(turn.warm()) < target:  # else it only could be better
                turn.problem = node.reason
            return missing - number
        turn.actions.append(Create(turn.deployment.name, revision, node))
        turn.did.append(f"create an agent on {node}")
    return 0

"""The level between warm and stopped: a parked agent keeps process and connections, and no weights.

An agent that is too much leaves service by the same handshake as one that stops; then it is told to park. Who
is parked comes back before anybody new is made, and a gateway may resume one by itself, when it has a request
that no warm agent can take: that one is adopted. Standard library only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from appliance.policies.actions import DeploymentPlan, Forget, Park, Resume
from appliance.policies.fleet import AgentFacts, FleetSnapshot
from appliance.policies.leaving import may_stop
from appliance.policies.placement import Wish, agent_bytes
from appliance.policies.scaling_facts import Decision
from appliance.policies.spaces import Spaces
from appliance.policies.turn import Turn

#: One that is not parked by then was not reached, or has started anew: it is told again.
TELL_AGAIN_S = 3.0


def room_to_park(turn: Turn, target: int) -> int:
    """How many more may be parked beside `target` warm ones: as many as could come back under the maximum."""
    policy = turn.deployment.policy
    if turn.deployment.removing or policy.park_s <= 0:
        return 0
    return max(0, turn.most - target - len(_parked(turn)))


def adopt(turn: Turn, decision: Decision) -> Decision:
    """Take agents that gateways resumed for warm; the decision with at least as many, never over its maximum.

    One beyond that is ended: nobody may serve by the choice of gateways alone.
    """
    deployment = turn.deployment
    most = deployment.desired if deployment.paused or deployment.dry_run else turn.most
    adopted = []
    for agent in _parked(turn):
        if not _is_woken(turn, agent) or _why_unfit(turn, agent):
            continue
        if len(turn.settled()) < most:
            turn.put(_warm(turn, agent))
            turn.did.append(f"adopt {agent.id}: a gateway resumed it for a request")
            adopted.append(agent)
        else:
            _end(turn, agent, f"a gateway resumed it beyond {most} warm ones")
    count = len(turn.settled())
    if not adopted or count <= decision.replicas:
        return decision
    return replace(decision, replicas=count, clamps=(*decision.clamps, f"adopted {count}"))


def resume_parked(turn: Turn, target: int) -> None:
    """Of what is missing let parked agents come back: first those that did not park yet.

    The others in the order in which gateways resume them, so that both choose the same.
    """
    missing = target - len(turn.settled())
    able = [one for one in _parked(turn) if not _why_unfit(turn, one) and turn.snapshot.pid(one) is not None]
    able.sort(key=lambda one: (one.parked_at is not None, one.id))
    for agent in able[: max(0, missing)]:
        turn.put(_warm(turn, agent))
        turn.did.append(f"resume {agent.id}" if agent.parked_at else f"keep {agent.id}: it is wanted again")
        if agent.parked_at is not None:
            turn.actions.append(Resume(agent.id, agent.node))


def look_after_parked(turn: Turn, target: int) -> None:
    """Take each a step further: out of service, told to park, told again; ended where nobody needs it.

    A warm one that is parked still was not reached by its order to resume.
    """
    for agent in turn.warm():
        link = turn.snapshot.link(agent)
        if link is None or link.state != "parked" or agent.retry_at is not None:
            continue
        if Resume(agent.id, agent.node) not in turn.actions:
            turn.actions.append(Resume(agent.id, agent.node))
    room = turn.most - target
    longest_last = sorted(_parked(turn), key=lambda one: -(one.parked_at or turn.snapshot.now))
    for number, agent in enumerate(longest_last):
        why = _why_ended(turn, agent)
        if agent.state == "stopped":
            turn.actions.append(Forget(agent.id, agent.node))
            turn.agents.remove(agent)
            turn.did.append(f"forget {agent.id}: its process has ended")
        elif why:
            _end(turn, agent, why)
        elif number >= room:
            _end(turn, agent, "it could not come back under the maximum")
        elif agent.parked_at is None and may_stop(turn, agent):
            turn.put(replace(agent, parked_at=turn.snapshot.now))
            turn.actions.append(Park(agent.id, agent.node))
            turn.did.append(f"park {agent.id}: out of service and idle")
        elif _is_late(turn, agent):
            turn.actions.append(Park(agent.id, agent.node))


def make_room(
    snapshot: FleetSnapshot, spaces: Spaces, agents: Sequence[AgentFacts], plans: Iterable[DeploymentPlan]
) -> tuple[list[AgentFacts], list[DeploymentPlan]]:
    """End parked agents for those that found no room: as few as possible, on one node for each.

    Those that leave already count: their memory is about to be free.
    """
    after = {agent.id: agent for agent in agents}
    did: dict[str, list[str]] = {}
    for model_bytes, wish in spaces.refused:
        if not any(agent.wanted == "parked" for agent in after.values()):
            break
        for agent in _cheapest(model_bytes, wish, spaces, after.values()):
            after[agent.id] = _leaving(agent, snapshot.now)
            words = f"end {agent.id}: others need its memory on {agent.node}"
            did.setdefault(agent.deployment, []).append(words)
    new = [replace(each, did=(*each.did, *did.get(each.name, ()))) for each in plans]
    return list(after.values()), new


def _cheapest(model_bytes: int, wish: Wish, spaces: Spaces, agents: Iterable[AgentFacts]) -> list[AgentFacts]:
    """The parked agents to end so that one more fits on some node; none where waiting or nothing helps."""
    there: dict[str, list[AgentFacts]] = {}
    for agent in agents:
        there.setdefault(agent.node, []).append(agent)
    found: list[list[AgentFacts]] = []
    for node in spaces.nodes():
        here = there.get(node.name, [])
        freed = sum(agent_bytes(one.model_bytes) for one in here if one.wanted in ("draining", "stopped"))
        parked = sorted((one for one in here if one.wanted == "parked"), key=lambda one: one.parked_at or 0.0)
        for count in range(len(parked) + 1):
            if spaces.fits(node, model_bytes, wish, freed):
                found.append(parked[:count])
                break
            freed += agent_bytes(parked[count].model_bytes) if count < len(parked) else 0
    return min(found, key=len, default=[])


def _parked(turn: Turn) -> list[AgentFacts]:
    return turn.those(lambda agent: agent.wanted == "parked")


def _is_woken(turn: Turn, agent: AgentFacts) -> bool:
    """Whether a gateway has resumed it, or gives it work: no other could take that."""
    link = turn.snapshot.link(agent)
    if agent.parked_at is None or link is None:
        return False
    return link.resumed or (link.state == "ready" and link.in_flight > 0)


def _is_late(turn: Turn, agent: AgentFacts) -> bool:
    """Whether it has had its order for a while, and is ready for gateways without having any work."""
    link = turn.snapshot.link(agent)
    if agent.parked_at is None or turn.snapshot.now - agent.parked_at < TELL_AGAIN_S:
        return False
    return link is not None and link.state == "ready" and not link.in_flight and not link.resumed


def _why_ended(turn: Turn, agent: AgentFacts) -> str:
    """Why an agent is not to stay parked, '' where it is."""
    park_s = turn.deployment.policy.park_s
    if agent.parked_at is not None and turn.snapshot.now - agent.parked_at >= park_s > 0:
        return f"parked for {park_s:g} s"
    return _why_unfit(turn, agent)


def _why_unfit(turn: Turn, agent: AgentFacts) -> str:
    """Why it could not even come back, '' where it could."""
    if turn.deployment.removing:
        return "the deployment is being removed"
    if turn.is_old(agent):
        return "of an older revision or profile"
    if turn.stay(agent) != "stay":
        return f"node {agent.node} is to be empty"
    if turn.snapshot.is_lost(agent):
        return f"node {agent.node} cannot be reached"
    return "" if turn.deployment.policy.park_s > 0 else "parking is off"


def _end(turn: Turn, agent: AgentFacts, why: str) -> None:
    turn.put(_leaving(agent, turn.snapshot.now))
    turn.did.append(f"end {agent.id}: {why}")


def _leaving(agent: AgentFacts, now: float) -> AgentFacts:
    """It leaves for good, by the handshake: a gateway that has not heard of it may still wake it."""
    return replace(
        agent, wanted="draining", state="draining", leaving_at=now, parked_at=None,
        draining_generation=None, away_at=None, retry_at=None,
    )  # fmt: skip


def _warm(turn: Turn, agent: AgentFacts) -> AgentFacts:
    link = turn.snapshot.link(agent)
    serves = link is not None and link.state == "ready" and (agent.parked_at is None or link.resumed)
    return replace(
        agent, wanted="warm", state="ready" if serves else "starting", parked_at=None, leaving_at=None,
        draining_generation=None, attempt=0, unready_at=None if serves else turn.snapshot.now,
    )  # fmt: skip

"""From what the load asks, in average agents, to how many agents that is on these boxes.

Worked: 3 average agents are asked. Two on boxes that do twice the average do 4 together, and one of them only
2: so two agents. On boxes that do half as much it takes six. Where speeds are not known each counts as one.
"""

from collections import Counter
from dataclasses import dataclass, replace

from appliance.policies.capacity import Capacity, counts_speeds
from appliance.policies.growing import Wishes
from appliance.policies.placement import Refusal
from appliance.policies.scaling_facts import Decision, Load
from appliance.policies.turn import Turn
from appliance.policies.victims import Rest, choose_victims

#: In average agents: so little may lack before another comes; the difference to `victims.SPARE` keeps a speed
#: that is learned anew from adding and removing agents in turns.
LACKS = 0.25
#: Kinds of decisions whose number is of agents, whatever they do: people or a rule of order said so.
EXACT_KINDS = frozenset({"removing", "paused", "proof", "hold", "dry_run"})


@dataclass(slots=True)
class _Count:
    """How many agents, and what made it another number than was asked."""

    agents: int
    does: float
    why: str = ""


def in_average_agents(load: Load, turn: Turn) -> Load:
    """The same load with agents counted by what they do."""
    deployment = turn.deployment
    unit_rps = deployment.policy.capacity_rps
    if not unit_rps or not counts_speeds(deployment):
        return load
    current = load.current
    if deployment.desired_rps is not None and not deployment.dry_run:
        current = max(min(1, load.current), round(deployment.desired_rps / unit_rps))
    if not load.ready:
        return replace(load, current=current)
    ready = Capacity(turn, (one for one in turn.warm() if one.state == "ready"))
    return replace(load, current=current, ready=max(1, round(ready.total)))


def in_agents(decision: Decision, turn: Turn) -> Decision:
    """The decision with `replicas` as a number of agents, within minimum and maximum, and why so many."""
    if decision.bounds is not None:
        turn.least, turn.most = decision.bounds.least, decision.bounds.most
    if not counts_speeds(turn.deployment) or decision.kind in EXACT_KINDS:
        return decision
    asked = turn.asked_agents = asked_of(decision)
    if not decision.valid or decision.kind == "cannot_tell":
        agents = max(turn.deployment.desired, min(1, decision.replicas))
        return replace(decision, replicas=min(max(agents, turn.least), turn.most))
    have = Capacity(turn, turn.settled())
    grows = have.total < asked - LACKS
    found = _grown(turn, have, asked) if grows else _shrunk(turn, most_asked_lately(decision, asked))
    stays = min(turn.deployment.desired, turn.most)
    if found.agents < stays and not decision.lowers:
        found = _Count(stays, have.total, _said(asked, stays, have.total, "something is missing: never down"))
    inputs = {**decision.inputs, "asked_agents": asked, "agents_do": round(found.does, 2)}
    clamps = (*decision.clamps, found.why) if found.why else decision.clamps
    words = f"{decision.reason}; {found.why}" if found.why else decision.reason
    return replace(decision, replicas=found.agents, inputs=inputs, clamps=clamps, reason=words)


def desired_rps(turn: Turn, average_agents: int) -> float | None:
    """What so many average agents do; None where speeds are not known."""
    unit_rps = turn.deployment.policy.capacity_rps
    return average_agents * unit_rps if unit_rps and counts_speeds(turn.deployment) else None


def asked_of(decision: Decision) -> int:
    """What the load asks in average agents, whatever the bounds on agents are."""
    return decision.replicas if decision.unbounded is None else decision.unbounded


def _grown(turn: Turn, have: Capacity, asked: int) -> _Count:
    """So many that they do what is asked, as far as that is to be had."""
    taken: Counter[str] = Counter()
    count, why, wishes = len(turn.settled()), "", Wishes(turn)
    parked = sorted(one.node for one in turn.those(lambda one: one.wanted == "parked"))
    while count < turn.least or have.total < asked - LACKS:
        if count >= turn.most:
            why = f"max {turn.most}"
            break
        found = _next_node(turn, wishes, parked)
        if isinstance(found, Refusal):
            count = min(max(count + 1, asked, turn.least), turn.most)  # what lacks is told, and wakes boxes
            why = "no room for more"
            break
        threads = turn.spaces.threads_of_new(found, turn.deployment)
        # Beyond as many as were asked none comes that would only take from others on its box.
        if count >= max(asked, turn.least) and not have.leaves_free(found, threads):
            why = "more would only share boxes that are in use"
            break
        have.add(found, threads)
        wishes.add(found)
        turn.spaces.promise(found, turn.deployment.model_bytes, threads)
        taken[found] += 1
        count += 1
    for node, agents in taken.items():
        threads = turn.spaces.threads_of_new(node, turn.deployment)
        turn.spaces.promise(node, turn.deployment.model_bytes, threads, agents=-agents)
    return _Count(count, have.total, _said(asked, count, have.total, why))


def _next_node(turn: Turn, wishes: Wishes, parked: list[str]) -> str | Refusal:
    """Where the next comes: those that are parked come back where they are, before anybody new is made."""
    if parked:
        return parked.pop(0)
    return turn.spaces.look(turn.deployment.model_bytes, wishes.next(), patient=True)


def most_asked_lately(decision: Decision, asked: int) -> int:
    """Beyond the maximum nothing was kept up by the decision itself: without this each dip would count."""
    if asked <= decision.replicas:
        return asked
    return max(asked, *(was for _, was in decision.state.recent), 0)


def _shrunk(turn: Turn, asked: int) -> _Count:
    """As few as still do what is asked."""
    settled = turn.settled()
    rest = Rest(turn, settled, asked)
    gone = choose_victims(turn, settled, len(settled) - turn.least, rest=rest)
    count, why = len(settled) - len(gone), ""
    if count > turn.most:
        count, why = turn.most, f"max {turn.most}"
    count = max(count, turn.least)
    return _Count(count, rest.total, _said(asked, count, rest.total, why))


def _said(asked: int, count: int, does: float, why: str) -> str:
    """The rule in words, '' where agents are just as many as were asked."""
    if not why and (count == asked or not asked):
        return ""
    do = "does" if count == 1 else "do"
    said = f"asked {asked} average agents; {count} on these boxes {do} {does:.1f}"
    return f"{said}: {why}" if why else said

"""Agents that crowd although there is room elsewhere are spread, one at a time. Standard library only.

That happens when nodes come back or are enrolled later. Whoever moves gains clearly, and nobody loses by it:
so moves come to an end, and none is taken back.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from appliance.policies.capacity import Capacity, counts_speeds
from appliance.policies.fleet import AgentFacts
from appliance.policies.growing import Wishes
from appliance.policies.moving import Move
from appliance.policies.placement import NodeSpace, Refusal
from appliance.policies.profiles import share_of_box
from appliance.policies.turn import Turn
from appliance.policies.victims import SPARE, choose_victims

#: An agent moves where it does so much more.
GAIN: Final = 1.25
#: All agents on one node are spread to one that is as good but for this.
AS_GOOD: Final = 0.99


def propose_spread(turn: Turn) -> Move | None:
    """The one move of this deployment that is worth most, None where all is well."""
    agents = turn.settled()
    rules = turn.deployment.placement
    if not agents:
        return None
    wishes = Wishes(turn)
    if wishes.lacks_owned:
        return _to_owned(turn, wishes, agents)
    if len(agents) > 1 and rules.spread == "node":
        return _even(turn, wishes, agents, lambda name: name)
    if len(agents) > 1 and rules.spread == "region":
        return _even(turn, wishes, agents, lambda name: _region(turn, name))
    return _ease(turn, wishes, agents) if rules.prefer == "speed" and rules.spread == "none" else None


def _to_owned(turn: Turn, wishes: Wishes, agents: Sequence[AgentFacts]) -> Move | None:
    """One of the first agents goes from a preemptible node to an owned one."""
    astray = [one for one in agents if _is_preemptible(turn, one.node)]
    for agent in choose_victims(turn, astray, 1):
        found = _target(turn, wishes, agent)
        if found is not None and not found.preemptible:
            return _move(turn, agent, found, "the first agents go on nodes that are not preemptible")
    return None


def _even(
    turn: Turn, wishes: Wishes, agents: Sequence[AgentFacts], part_of: Callable[[str], str]
) -> Move | None:
    """One goes from the part that has most to one that has at least two fewer."""
    counts = Counter(part_of(agent.node) for agent in agents)
    fullest, most = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    for agent in choose_victims(turn, [one for one in agents if part_of(one.node) == fullest], 1):
        found = _target(turn, wishes, agent)
        if found is not None and _keeps_rank(turn, agent, found) and counts[part_of(found.name)] + 2 <= most:
            there = counts[part_of(found.name)]
            return _move(turn, agent, found, f"{fullest or 'no region'} has {most}, there are {there}")
    return None


def _ease(turn: Turn, wishes: Wishes, agents: Sequence[AgentFacts]) -> Move | None:
    """One goes from a crowded node, or from the only one, to a node with free cores."""
    capacity = Capacity(turn, agents)
    shares = {name: _share(turn, name) for name in {agent.node for agent in agents}}
    worst = min(shares, key=lambda name: (shares[name], name))
    alone = len(agents) > 1 and len(shares) == 1
    crowded = shares[worst] < 1.0
    if not crowded and not alone:
        return None
    for agent in choose_victims(turn, [one for one in agents if one.node == worst], 1):
        found = _target(turn, wishes, agent)
        if found is None:
            continue
        own = turn.spaces.threads_of_new(found.name, turn.deployment)
        if not capacity.leaves_free(found.name, own):
            continue
        here = turn.spaces.threads_of_new(worst, turn.deployment)
        now = (capacity.alone(worst) or here) * shares[worst]
        then = capacity.alone(found.name) or own
        if not _keeps_rank(turn, agent, found) or then < now * (AS_GOOD if alone else GAIN):
            continue
        why = f"it has {shares[worst]:.0%} of {worst}, and would have all of it there"
        why = why if crowded else f"all are on {worst}"
        return _move(turn, agent, found, why)
    return None


def _target(turn: Turn, wishes: Wishes, agent: AgentFacts) -> NodeSpace | None:
    """Where it would go if it were new, and not where it is."""
    wish = wishes.next(without=agent.node)
    found = turn.spaces.look(turn.deployment.model_bytes, wish, patient=True)
    if isinstance(found, Refusal) or not _does_enough(turn, agent, found):
        return None
    return turn.spaces.node(found)


def _does_enough(turn: Turn, agent: AgentFacts, to_node: str) -> bool:
    """Whether they do what is asked, or no less than now, once it is there: one takes the place of one."""
    if not counts_speeds(turn.deployment):
        return True
    capacity = Capacity(turn, turn.settled())
    before = capacity.total
    capacity.add(agent.node, agent.threads, agents=-1)
    capacity.add(to_node, turn.spaces.threads_of_new(to_node, turn.deployment))
    return capacity.total >= min(before, turn.asked_agents or 0) - SPARE


def _keeps_rank(turn: Turn, agent: AgentFacts, found: NodeSpace) -> bool:
    """Whether it is no worse there by region, and none of the first agents lands on a preemptible node."""
    rules, here = turn.deployment.placement, turn.spaces.node(agent.node)
    if here is None or rules.region_rank(found.region) > rules.region_rank(here.region):
        return False
    return rules.base == "any" or not found.preemptible or here.preemptible


def _share(turn: Turn, name: str) -> float:
    """What an agent keeps of that node beside all that are to stay there."""
    return share_of_box(turn.spaces.cores(name), turn.spaces.lasting_threads(name))


def _move(turn: Turn, agent: AgentFacts, found: NodeSpace, why: str) -> Move:
    return Move(agent.id, turn.deployment.name, found.name, why)


def _region(turn: Turn, name: str) -> str:
    node = turn.spaces.node(name)
    return node.region if node is not None else ""


def _is_preemptible(turn: Turn, name: str) -> bool:
    node = turn.spaces.node(name)
    return node is not None and node.preemptible

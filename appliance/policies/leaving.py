"""Agents that leave: out of service, empty, ended, forgotten. Standard library only.

An agent ends only after a handshake: every gateway has taken it out of service, and it says itself that it
holds nothing.
"""

from dataclasses import replace

from appliance.policies.actions import Forget, Stop
from appliance.policies.fleet import AgentFacts
from appliance.policies.turn import Turn


def let_go(turn: Turn) -> None:
    """Take each a step further; those that have ended are forgotten, or rest until they are called back."""
    for agent in turn.those(lambda one: one.wanted == "resting" and _is_given_up(turn, one)):
        turn.put(replace(agent, wanted="draining" if agent.away_at is None else "stopped"))
    for agent in turn.those(lambda one: one.wanted not in ("warm", "parked")):
        if agent.wanted == "resting":
            _let_rest(turn, agent)
        elif agent.state == "stopped" or _is_out_of_reach(turn, agent):
            turn.actions.append(Forget(agent.id, agent.node))
            turn.agents.remove(agent)
        elif agent.wanted == "draining" and may_stop(turn, agent):
            turn.put(replace(agent, wanted="stopped", leaving_at=turn.snapshot.now))
            turn.actions.append(Stop(agent.id, agent.node))
            turn.did.append(f"stop {agent.id}: out of service and idle")
        elif agent.wanted == "stopped" and turn.waited_s(agent) > turn.longest_s():
            turn.actions.append(Stop(agent.id, agent.node, kill=True))
            turn.did.append(f"end {agent.id}: it did not end by itself")


def _is_given_up(turn: Turn, agent: AgentFacts) -> bool:
    """Whether nobody waits for a resting agent to come back."""
    return turn.deployment.removing or turn.stay(agent) == "leave"


def _is_out_of_reach(turn: Turn, agent: AgentFacts) -> bool:
    """Whether it is out of the routes on a lost node: should it still run there, it ends as an orphan."""
    late = turn.waited_s(agent) > turn.longest_s()
    return agent.wanted == "stopped" and turn.snapshot.is_lost(agent) and late


def _let_rest(turn: Turn, agent: AgentFacts) -> None:
    """Told to end once; `away_at` says since when."""
    if agent.state == "stopped":
        return
    if agent.away_at is None and may_stop(turn, agent):
        turn.put(replace(agent, away_at=turn.snapshot.now, leaving_at=turn.snapshot.now))
        turn.actions.append(Stop(agent.id, agent.node))
        turn.did.append(f"stop {agent.id} for a while: out of service and idle")
    elif agent.away_at is not None and turn.waited_s(agent) > turn.longest_s():
        turn.actions.append(Stop(agent.id, agent.node, kill=True))


def may_stop(turn: Turn, agent: AgentFacts) -> bool:
    """The handshake. Its steps may be skipped only when no request can be under way any more."""
    if agent.draining_generation is None:
        return False
    if turn.waited_s(agent) > turn.longest_s():
        return True
    if turn.snapshot.silent or not turn.snapshot.out_of_service(agent.id, agent.draining_generation):
        return False
    if agent.ready_at is None:
        return True  # it never took a request
    link = turn.snapshot.link(agent)
    busy = link.busy if link is not None and link.busy is not None else turn.snapshot.busy.get(agent.id)
    return busy == 0

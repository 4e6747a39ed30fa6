"""Agents that should run and do not: started, given up, called back. Standard library only."""

from dataclasses import replace

from appliance.policies.actions import Start, Stop
from appliance.policies.fleet import AgentFacts
from appliance.policies.standing import give_up, not_ready_in_time, start_limit_s
from appliance.policies.turn import Turn

#: The port was taken: the next start takes another one.
EXIT_PORT_TAKEN = 4


def call_back(turn: Turn) -> None:
    """Agents that rested while their node was worked on serve again, once it is done."""
    if turn.deployment.removing:
        return
    for agent in turn.those(lambda one: one.wanted == "resting" and one.state == "stopped"):
        node = turn.snapshot.node(agent.node)
        if node is not None and node.stay == "stay" and not node.lost and turn.snapshot.can_tell(agent):
            back = replace(
                agent, wanted="warm", state="starting", attempt=0, error="", retry_at=None,
                started_at=None, ready_at=None, leaving_at=None, draining_generation=None,
            )  # fmt: skip
            turn.put(back)
            turn.did.append(f"call {agent.id} back: node {agent.node} is done")


def mend(turn: Turn) -> None:
    """Start those that do not run, once they may; end those that are not ready in time."""
    now = turn.snapshot.now
    for agent in turn.warm():
        if not turn.snapshot.can_tell(agent) or agent.id in turn.snapshot.in_hand:
            continue
        alive = turn.snapshot.pid(agent) is not None
        if alive and not_ready_in_time(agent, turn.snapshot, longest_s=turn.longest_s()):
            limit_s = start_limit_s(agent.model_bytes, agent.attempt)
            turn.put(give_up(agent, now, f"it was not ready within {limit_s:.0f} s"))
            turn.actions.append(Stop(agent.id, agent.node, kill=True))
            turn.did.append(f"end {agent.id}: not ready within {limit_s:.0f} s")
        elif alive and agent.retry_at is not None and now >= agent.retry_at:
            turn.actions.append(Stop(agent.id, agent.node, kill=True))
        elif not alive and (agent.retry_at or 0.0) <= now:
            _start(turn, agent)


def _start(turn: Turn, agent: AgentFacts) -> None:
    if not turn.spaces.may_start(agent.deployment, agent.node):
        return  # the next tick goes on
    turn.spaces.count_start(agent.deployment, agent.node)
    now = turn.snapshot.now
    again = agent.started_at is not None
    ended = turn.snapshot.exits.get(agent.id)
    turn.put(
        replace(
            agent,
            state="starting",
            attempt=agent.attempt + 1 if again else agent.attempt,
            started_at=now,
            unready_at=now,
            ready_at=None,
            retry_at=None,
        )
    )
    port_taken = ended is not None and ended.code == EXIT_PORT_TAKEN
    turn.actions.append(Start(agent.id, agent.node, new_port=port_taken))
    first_line = agent.error.partition("\n")[0]
    turn.did.append(f"restart {agent.id}: {first_line}" if again else f"start {agent.id}")

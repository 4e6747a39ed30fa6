"""Which agents go where there are too many, or where they are not what is wanted. Standard library only."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from appliance.policies.fleet import AgentFacts
from appliance.policies.turn import Turn

#: How long agents of a node that is to be empty wait for others to take their place.
REPLACEMENT_S = 120.0


def drain_surplus(turn: Turn, target: int, short: int) -> None:
    """Drain what is too much: of the settled agents, then of others as settled ones are ready.

    Others are those of an older revision, and those on a node that they are to leave; for `short` of
    these no room was found elsewhere.
    """
    settled = turn.settled()
    coming_back = [one for one in settled if one.away_at is not None]
    old = [one for one in turn.warm() if turn.is_old(one) and turn.stay(one) == "stay"]
    going = [one for one in turn.warm() if turn.stay(one) != "stay"]
    ready = sum(agent.state == "ready" for agent in settled)
    _drain(
        turn,
        [one for one in settled if one not in coming_back],
        len(settled) - len(coming_back) - target,
        "more than wanted",
    )
    _drain(turn, coming_back, len(coming_back) - target, "more than wanted")
    keep = max(0, target - ready)
    _drain(turn, old, len(old) - keep, "of an older revision or profile")
    keep = max(0, keep - len(old) - short)
    if turn.deployment.removing:
        lost = [one for one in turn.warm() if turn.snapshot.is_lost(one)]
        _drain(turn, lost, len(lost), "the deployment is being removed")
    for agent in sorted(going, key=lambda one: one.state != "ready"):
        waited_long = turn.snapshot.now - turn.leaving_since(agent) > REPLACEMENT_S
        if waited_long or keep == 0:
            _drain(turn, [agent], 1, f"node {agent.node} is to be empty")
        else:
            keep -= 1


def _drain(turn: Turn, agents: Iterable[AgentFacts], count: int, why: str) -> None:
    """Those that serve nothing first, then on the node with most of them, the idle, the newest.

    So what is left is spread, and warm longest.
    """
    in_flight = turn.in_flight
    crowd = Counter(agent.node for agent in turn.warm() if not turn.snapshot.is_lost(agent))
    order = sorted(
        agents,
        key=lambda agent: (
            agent.state == "ready", -crowd[agent.node], in_flight(agent) > 0, -agent.created_at,
        ),
    )  # fmt: skip
    for agent in order[: max(0, count)]:
        turn.put(
            replace(
                agent,
                wanted="resting" if turn.rests(agent) else "draining",
                state="draining",
                leaving_at=turn.snapshot.now,
                away_at=None,
                draining_generation=None,
                retry_at=None,
            )
        )
        turn.did.append(f"drain {agent.id}: {why}")

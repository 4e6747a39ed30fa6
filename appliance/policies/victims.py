"""Which agents go where there are too many, or where they are not what is wanted. Standard library only.

Who serves nothing goes first: failed, starting, ejected. Then who is idle; of these one on a preemptible node
beyond the first agents, one whose node saves most when it is empty, one beside others of its deployment, and
whoever was needed longest ago. Nobody goes whose leaving puts the others below what is wanted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from appliance.policies.capacity import Capacity, counts_speeds
from appliance.policies.fleet import AgentFacts
from appliance.policies.levels import room_to_park
from appliance.policies.standing import has_failed
from appliance.policies.turn import Turn

#: What counts before how many are where an agent is, and what after. Lower goes first.
_Key = tuple[tuple[int, bool, bool, float], tuple[float | str, ...]]
#: How long agents of a node that is to be empty wait for others to take their place.
REPLACEMENT_S = 120.0
#: In average agents: so little may lack once an agent has gone.
SPARE = 0.05


class Rest:
    """Those that stay while others are chosen to go: they, and those of them that are ready, do enough.

    `asked` is in average agents. `total` is what they do. An agent that adds nothing beside the others of its
    box may go where more agents are left than were asked.
    """

    def __init__(self, turn: Turn, agents: Sequence[AgentFacts], asked: int) -> None:
        self._least = max(asked, turn.least)
        self._asked = asked
        self._count = len(agents)
        self._all = Capacity(turn, agents)
        self._ready = Capacity(turn, (one for one in agents if one.state == "ready"))

    @property
    def total(self) -> float:
        """What they do together."""
        return self._all.total

    def let_go(self, agent: AgentFacts) -> bool:
        """Take it away where that leaves enough; whether that is so."""
        serves = agent.state == "ready"
        if not self._spares(self._all, agent) or (serves and not self._spares(self._ready, agent)):
            return False
        self._count -= 1
        self._all.add(agent.node, agent.threads, agents=-1)
        if serves:
            self._ready.add(agent.node, agent.threads, agents=-1)
        return True

    def _spares(self, those: Capacity, agent: AgentFacts) -> bool:
        loss = -those.gain(agent.node, agent.threads, agents=-1)
        return those.total - loss >= self._asked - SPARE or (self._count > self._least and loss < SPARE)


def choose_victims(
    turn: Turn, agents: Sequence[AgentFacts], most: int, *, rest: Rest | None = None
) -> list[AgentFacts]:
    """At most so many of them, in the order in which they go."""
    if most <= 0:
        return []
    chosen: list[AgentFacts] = []
    for agent in _in_order(turn, agents):
        if len(chosen) == most:
            break
        if rest is None or rest.let_go(agent):
            chosen.append(agent)
    return chosen


def drain_surplus(turn: Turn, target: int, short: int, asked: int | None = None) -> None:
    """Drain what is too much: of the settled agents, then of others as settled ones are ready.

    Others are those of an older revision, and those on a node that they are to leave; for `short` of
    these no room was found elsewhere. `asked` is the want in average agents, where that is what counts.
    """
    settled = turn.settled()
    coming_back = [one for one in settled if one.away_at is not None]
    here = [one for one in settled if one.away_at is None]
    old = [one for one in turn.warm() if turn.is_old(one) and turn.stay(one) == "stay"]
    going = [one for one in turn.warm() if turn.stay(one) != "stay"]
    ready = sum(agent.state == "ready" for agent in settled)
    counted = asked is not None and counts_speeds(turn.deployment) and len(here) > target
    rest = Rest(turn, here, asked or 0) if counted else None
    surplus = choose_victims(turn, here, len(here) - target, rest=rest)
    if len(here) - len(surplus) > turn.most:
        surplus = choose_victims(turn, here, len(here) - turn.most)
    _drain(turn, surplus, "more than wanted", parks=room_to_park(turn, target))
    _drain(turn, choose_victims(turn, coming_back, len(coming_back) - target), "more than wanted")
    _drain_failed(turn, target)
    keep = max(0, target - ready)
    _drain(turn, choose_victims(turn, old, len(old) - keep), "another takes its place")
    keep = max(0, keep - len(old) - short)
    if turn.deployment.removing:
        lost = [one for one in turn.warm() if turn.snapshot.is_lost(one)]
        _drain(turn, lost, "the deployment is being removed")
    for agent in sorted(going, key=lambda one: one.state != "ready"):
        waited_long = turn.snapshot.now - turn.leaving_since(agent) > REPLACEMENT_S
        if waited_long or keep == 0:
            _drain(turn, [agent], f"node {agent.node} is to be empty")
        else:
            keep -= 1


def _drain_failed(turn: Turn, target: int) -> None:
    """Failed agents that others stand in for are kept for people to see, but not beyond a lower want."""
    failed = turn.made_up_for()
    fewer = max(0, turn.deployment.desired - target)
    count = len(failed) if target == 0 else max(fewer, len(failed) - target)
    _drain(turn, failed[: max(0, count)], "it failed, and is not wanted any more")


def _in_order(turn: Turn, agents: Sequence[AgentFacts]) -> list[AgentFacts]:
    """Who goes first comes first.

    Of those alike on one node each counts how many stay there after those before it, and so in its region: so
    what is left is spread. Where nodes are to be emptied that with the fewest comes first, and all of it.
    """
    rules = turn.deployment.placement
    serving = [one.node for one in turn.warm() if not turn.snapshot.is_lost(one)]
    on_node = Counter(serving)
    keyed = sorted(((_key(turn, agent), agent) for agent in agents), key=lambda pair: pair[0])
    if rules.packs:
        keyed.sort(key=lambda pair: (pair[0][0], on_node[pair[1].node], pair[1].node, pair[0][1]))
        return [agent for _, agent in keyed]
    placed = _counted_down(keyed, on_node, lambda agent: agent.node)
    if rules.spread == "region":
        in_region = Counter(_region(turn, name) for name in serving)
        placed = _counted_down(placed, in_region, lambda agent: _region(turn, agent.node))
    return [agent for _, agent in placed]


def _counted_down(
    keyed: Sequence[tuple[_Key, AgentFacts]], left: Counter[str], part_of: Callable[[AgentFacts], str]
) -> list[tuple[_Key, AgentFacts]]:
    """In the order in which they go when it is always one from where most are left."""
    placed: list[tuple[_Key, AgentFacts]] = []
    for (first, last), agent in keyed:
        placed.append(((first, (-left[part_of(agent)], *last)), agent))
        left[part_of(agent)] -= 1
    placed.sort(key=lambda pair: pair[0])
    return placed


def _region(turn: Turn, name: str) -> str:
    node = turn.snapshot.node(name)
    return node.region if node is not None else ""


def _key(turn: Turn, agent: AgentFacts) -> _Key:
    """What counts before how many are where it is, and what after."""
    link = turn.snapshot.link(agent)
    busy = link is not None and link.in_flight > 0
    idle_s = link.idle_s if link is not None and link.idle_s is not None else turn.snapshot.now
    space = turn.spaces.node(agent.node)
    lasts = space is None or not space.preemptible or turn.deployment.placement.base == "any"
    alone = turn.spaces.others_threads(agent.node, turn.deployment.name) == 0
    saves = space.saving_per_hour if space is not None and alone else 0.0
    return (_serves(turn, agent), busy, lasts, -saves), (-idle_s, -agent.created_at, agent.id)


def _serves(turn: Turn, agent: AgentFacts) -> int:
    """0 failed, 1 not ready, 2 ready and not trusted yet or not any more, 3 ready."""
    if agent.state != "ready":
        return 0 if has_failed(agent) else 1
    link = turn.snapshot.link(agent)
    return 2 if agent.attempt > 0 or (link is not None and link.ejected) else 3


def _drain(turn: Turn, agents: Iterable[AgentFacts], why: str, parks: int = 0) -> None:
    """Take them out of service. Of those that are ready and trusted the first `parks` will be parked."""
    for agent in agents:
        link = turn.snapshot.link(agent)
        is_parked = parks > 0 and agent.state == "ready" and not (link is not None and link.ejected)
        parks -= is_parked
        leaves_as = "resting" if turn.rests(agent) else "draining"
        turn.put(
            replace(
                agent,
                wanted="parked" if is_parked else leaves_as,
                state="draining",
                leaving_at=turn.snapshot.now,
                away_at=None,
                draining_generation=None,
                retry_at=None,
                moving_at=None,
                moving_to="",
            )
        )
        turn.did.append(f"drain {agent.id}{' to park it' if is_parked else ''}: {why}")

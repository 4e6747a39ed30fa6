"""What a deployment lacks is created, on nodes that suit it. Standard library only."""

from collections import Counter

from appliance.policies.actions import Create
from appliance.policies.placement import Refusal, Wish
from appliance.policies.spaces import LATER
from appliance.policies.turn import Turn


class Wishes:
    """What the next new agent of a deployment asks of its node, counting those that are there already."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._on_node: Counter[str] = Counter()
        self._in_region: Counter[str] = Counter()
        self._owned = 0
        self._base = turn.deployment.policy.min_agents + turn.deployment.policy.warm_floor
        left = {agent.node for agent in turn.warm() if agent.moving_at is not None}
        self._shun = frozenset(left | {agent.node for agent in turn.made_up_for()})
        # Where one was to move in vain: new agents may go there, no other moves there.
        self._tried = {agent.moving_to for agent in turn.warm() if agent.moving_to and not agent.moving_at}
        for agent in turn.settled():
            self.add(agent.node)

    def next(self, *, without: str = "") -> Wish:
        """The wish; `without` names a node where one that is counted makes room."""
        turn, on_node, in_region = self._turn, self._on_node, self._in_region
        owned, shun = self._owned, self._shun
        if without:
            on_node = on_node - Counter([without])
            in_region = in_region - Counter([self._region(without)])
            owned -= self._is_owned(without)
            shun |= {without, *self._tried}
        return Wish(
            turn.deployment.capacities, turn.deployment.placement, base=owned < self._base,
            on_node=on_node, in_region=in_region, shun=shun, threads=turn.deployment.policy.threads,
        )  # fmt: skip

    @property
    def lacks_owned(self) -> bool:
        """Whether fewer than the first agents are on owned nodes, though they are to be there."""
        return self._turn.deployment.placement.base == "owned" and self._owned < self._base

    def add(self, node: str) -> None:
        """One more is there."""
        self._on_node[node] += 1
        self._in_region[self._region(node)] += 1
        self._owned += self._is_owned(node)

    def _region(self, node: str) -> str:
        found = self._turn.snapshot.node(node)
        return found.region if found is not None else ""

    def _is_owned(self, node: str) -> bool:
        found = self._turn.snapshot.node(node)
        return found is not None and not found.preemptible


def create_missing(turn: Turn, target: int) -> int:
    """Create what is missing, as many as one tick makes; for how many there was no room."""
    revision = turn.deployment.revision
    if revision is None:
        turn.problem = "it has no revision: deploy it again"
        return target
    new = turn.settled()
    missing = _missing(turn, target)
    if missing <= 0:
        return 0
    wishes = Wishes(turn)
    for number in range(missing):
        node = turn.spaces.place(turn.deployment, wishes.next(), patient=bool(new) or number > 0)
        if node is LATER:
            return 0
        if isinstance(node, Refusal):
            turn.problem = _problem(turn, target, node)
            return missing - number
        wishes.add(node)
        turn.actions.append(Create(turn.deployment.name, revision, node))
        turn.did.append(f"create an agent on {node}")
    return 0


def _missing(turn: Turn, target: int) -> int:
    """How many to create now."""
    new, warm = turn.settled(), turn.warm()
    missing = target - len(new)
    if any(turn.is_old(agent) for agent in warm):
        # One more than is proven: the first new agent is ready before a second comes, or an old one goes.
        proven = 1 + sum(agent.state == "ready" for agent in new) - len(new)
        # What lacks altogether comes at once, unless a revision has to prove itself first.
        missing = min(missing, proven if _rolls(turn) else max(proven, target - len(warm)))
    return missing


def _rolls(turn: Turn) -> bool:
    return any(agent.revision != turn.deployment.revision for agent in turn.warm())


def _problem(turn: Turn, target: int, refusal: Refusal) -> str:
    """What a refusal means to people; '' where all that is wanted is there, and only could be better."""
    astray = next((one for one in turn.warm() if turn.misplaced(one)), None)
    if astray is not None:
        return f"agent {astray.id} stays on {astray.node}, which {turn.misplaced(astray)}: {refusal.reason}"
    if _rolls(turn) or len(turn.warm()) < target:
        return refusal.reason
    return turn.problem

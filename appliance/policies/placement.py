"""On which node a new agent goes. Standard library only.

RAM is the hard limit: 1.5 times the model, and what an agent's process needs beside it, must fit into
what is not yet promised to others. So are the labels that people require or avoid. Cores are a score: nodes
with free cores come first, then the node where the agent is expected to do most, beside what runs there
already; where no speed is known, that is the one with the fewest engine threads per core. Before that count
owned nodes for the agents that are always there, preferred regions, and how agents are to be spread.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from appliance.policies.placement_rules import DEFAULT_RULES, PlacementRules
from appliance.policies.profiles import MOST_THREADS_PER_CORE, share_of_box

RAM_FACTOR = 1.5
#: Interpreter, libraries and activations of one agent beside its weights.
PROCESS_BYTES = 256 * 1024 * 1024
#: What sleep is worth an hour where no cost is set: enough to prefer it, less than any box costs.
SLEEP_SAVES: Final = 0.001
#: Of a whole fleet that refuses, so many nodes are named each with its reason.
_NAMED: Final = 8
#: Why a node that sleeps, or is on its way there or back, takes none.
_OUT: Final = {
    "leaving": "goes to sleep",
    "sleeping": "goes to sleep",
    "asleep": "is asleep",
    "waking": "is being woken",
}


@dataclass(slots=True)
class NodeSpace:
    """A node with what is promised on it. `ram_bytes` is None until its hardware was read.

    `capacity_rps` is what an agent of the model in question does that has the node for itself, 0: not known.
    One that is `settling` would accept, but was not looked at yet: it will be within seconds, or not at all.
    `agents` are those that are to stay there. An hour of it costs `cost_per_hour`, 0 where nobody said.
    """

    name: str
    ram_bytes: int | None
    cores: int
    promised_bytes: int = 0
    engine_threads: int = 0
    accepts: bool = True
    settling: bool = False
    capacity_rps: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    region: str = ""
    cost_per_hour: float = 0.0
    preemptible: bool = False
    can_sleep: bool = False
    power_stage: str = ""
    agents: int = 0

    @property
    def saving_per_hour(self) -> float:
        """What an hour without it saves: its cost, and something where it can sleep."""
        return self.cost_per_hour + (SLEEP_SAVES if self.can_sleep else 0.0)


@dataclass(frozen=True, slots=True)
class Wish:
    """What an agent asks of the node it goes to; `capacities` are by node, as `DeploymentFacts` has them.

    `base`: it is one of those that are always there. `on_node` and `in_region` count the others of its
    deployment. `shun` names nodes where it may not go. It `packs` where it is brought beside others, crowded
    or not. It starts with at most `threads` engine threads, None: with one for each core.
    """

    capacities: Mapping[str, float] = field(default_factory=dict)
    rules: PlacementRules = DEFAULT_RULES
    base: bool = False
    on_node: Mapping[str, int] = field(default_factory=dict)
    in_region: Mapping[str, int] = field(default_factory=dict)
    shun: frozenset[str] = frozenset()
    packs: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """The node taken."""

    node: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no node takes the agent, in words for people."""

    reason: str


def agent_bytes(model_bytes: int) -> int:
    """RAM that an agent is promised: a model of 24 MB needs 36 MB and 256 MiB for its process."""
    return int(RAM_FACTOR * model_bytes) + PROCESS_BYTES


def place(
    model_bytes: int, nodes: Iterable[NodeSpace], *, patient: bool = False, wish: Wish | None = None
) -> Placement | Refusal:
    """The best node with room; ties go to the one with most RAM left, then by name.

    Where that is one that is settling, who is `patient` is refused for now: else all agents of a fleet that
    is just being looked at would crowd on the node that answered first.
    """
    wish = wish or Wish()
    need = agent_bytes(model_bytes)
    reasons: list[str] = []
    fitting: list[NodeSpace] = []
    for node in nodes:
        reason = _why_not(node, need, wish, patient=patient)
        if reason:
            reasons.append(reason)
        else:
            fitting.append(node)
    if fitting:
        per_core = mean_per_core(fitting, wish.capacities, wish.threads)
        best = min(fitting, key=lambda node: _rank(node, per_core, wish))
        if best.settling:
            return Refusal(f"waiting for the first look at {best.name}, where an agent would do best")
        return Placement(best.name)
    why = "; ".join(reasons[:_NAMED]) or "there is no node"
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    return Refusal(f"an agent needs {_mb(need)} of RAM (1.5 x the model, and its process): {why}{more}")


def threads_of_new(cores: int, threads: int | None) -> int:
    """Engine threads of a new agent on so many cores, where it is to start with at most `threads`."""
    return max(1, cores) if threads is None else min(max(1, cores), threads)


def mean_per_core(
    nodes: Iterable[NodeSpace], capacities: Mapping[str, float], threads: int | None = None
) -> float:
    """What a core in use does where it is known, for nodes of which it is not; 0: it is known nowhere."""
    known = [
        rps / threads_of_new(node.cores, threads)
        for node in nodes
        if (rps := capacities.get(node.name, 0.0) or node.capacity_rps)
    ]
    return sum(known) / len(known) if known else 0.0


def _why_not(node: NodeSpace, need: int, wish: Wish, *, patient: bool) -> str:
    """Why it cannot be taken, '' where it can."""
    if node.settling and not patient:
        return f"{node.name} was not looked at yet"
    if not node.accepts and not node.settling:
        return f"{node.name} {_OUT.get(node.power_stage, 'takes no new agents')}"
    if node.name in wish.shun:
        return f"{node.name} is where it leaves"
    if wish.rules.limits and (forbidden := wish.rules.why_not(node.labels)):
        return f"{node.name} {forbidden}"
    return _lack_of_ram(node, need)


def _lack_of_ram(node: NodeSpace, need: int) -> str:
    if node.ram_bytes is None:
        return f"{node.name}: its hardware is not known yet"
    if node.ram_bytes - node.promised_bytes < need:
        left = max(0, node.ram_bytes - node.promised_bytes)
        return f"{node.name} has {_mb(left)} of RAM left of {_mb(node.ram_bytes)}"
    return ""


_Rank = tuple[bool, bool, int, int, int, bool, float, float, float, int, str]


def _rank(node: NodeSpace, per_core: float, wish: Wish) -> _Rank:
    """Lower is better. With `per_core` 0 no speed is known anywhere."""
    cores, rules = max(1, node.cores), wish.rules
    own = threads_of_new(cores, wish.threads)
    crowding = node.engine_threads / cores
    alone_rps = wish.capacities.get(node.name, 0.0) or node.capacity_rps or per_core * own
    expected_rps = alone_rps * share_of_box(cores, node.engine_threads + own)
    left = (node.ram_bytes or 0) - node.promised_bytes
    return (
        (node.engine_threads + own) / cores > MOST_THREADS_PER_CORE,
        wish.base and node.preemptible and rules.base == "owned",
        rules.region_rank(node.region),
        wish.in_region.get(node.region, 0) if rules.spread == "region" else 0,
        wish.on_node.get(node.name, 0) if rules.spread != "none" else 0,
        crowding >= 1.0 and not wish.packs,
        _price(node, rules),
        -expected_rps,
        crowding,
        -left,
        node.name,
    )


def _price(node: NodeSpace, rules: PlacementRules) -> float:
    """What one more agent there costs an hour: nothing where others keep the node on anyway."""
    if rules.prefer == "cost":
        return 0.0 if node.agents else node.saving_per_hour
    if rules.prefer == "fewest":
        return 0.0 if node.agents else 1.0
    return 0.0


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"

"""On which node a new agent goes. Standard library only.

RAM is the hard limit: 1.5 times the model, and what an agent's process needs beside it, must fit into
what is not yet promised to others. Cores are a score: nodes with free cores come first, then the node
where the agent is expected to do most, beside what runs there already. Where no speed is known, that is
the one with the fewest engine threads per core.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.policies.profiles import share_of_box

RAM_FACTOR = 1.5
#: Interpreter, libraries and activations of one agent beside its weights.
PROCESS_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NodeSpace:
    """A node with what is promised on it. `ram_bytes` is None until its hardware was read.

    `capacity_rps` is what an agent of the model in question does that has the node for itself, 0: not known.
    One that is `settling` would accept, but was not looked at yet: it will be within seconds, or not at all.
    """

    name: str
    ram_bytes: int | None
    cores: int
    promised_bytes: int = 0
    engine_threads: int = 0
    accepts: bool = True
    settling: bool = False
    capacity_rps: float = 0.0


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


def place(model_bytes: int, nodes: Iterable[NodeSpace], *, patient: bool = False) -> Placement | Refusal:
    """The best node with room; ties go to the one with most RAM left, then by name.

    Where that is one that is settling, who is `patient` is refused for now: else all agents of a fleet that
    is just being looked at would crowd on the node that answered first.
    """
    need = agent_bytes(model_bytes)
    reasons: list[str] = []
    fitting: list[NodeSpace] = []
    for node in nodes:
        if node.settling and not patient:
            reasons.append(f"{node.name} was not looked at yet")
        elif not node.accepts and not node.settling:
            reasons.append(f"{node.name} takes no new agents")
        elif node.ram_bytes is None:
            reasons.append(f"{node.name}: its hardware is not known yet")
        elif node.ram_bytes - node.promised_bytes < need:
            left = max(0, node.ram_bytes - node.promised_bytes)
            reasons.append(f"{node.name} has {_mb(left)} of RAM left of {_mb(node.ram_bytes)}")
        else:
            fitting.append(node)
    if fitting:
        per_core = _mean_per_core(fitting)
        best = min(fitting, key=lambda node: _rank(node, per_core))
        if best.settling:
            return Refusal(f"waiting for the first look at {best.name}, where an agent would do best")
        return Placement(best.name)
    why = "; ".join(reasons) or "there is no node"
    return Refusal(f"an agent needs {_mb(need)} of RAM (1.5 x the model, and its process): {why}")


def _rank(node: NodeSpace, per_core: float) -> tuple[bool, float, float, int, str]:
    """Lower is better. With `per_core` 0 no speed is known anywhere."""
    cores = max(1, node.cores)
    crowding = node.engine_threads / cores
    alone_rps = node.capacity_rps or per_core * cores
    expected_rps = alone_rps * share_of_box(cores, node.engine_threads + cores)
    left = (node.ram_bytes or 0) - node.promised_bytes
    return crowding >= 1.0, -expected_rps, crowding, -left, node.name


def _mean_per_core(nodes: Iterable[NodeSpace]) -> float:
    """What a core does where it is known, for nodes of which it is not."""
    known = [node.capacity_rps / max(1, node.cores) for node in nodes if node.capacity_rps]
    return sum(known) / len(known) if known else 0.0


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"

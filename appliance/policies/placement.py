"""On which node a new agent goes. Standard library only.

RAM is the hard limit: 1.5 times the model, and what an agent's process needs beside it, must fit into
what is not yet promised to others. Cores are a score: the node with the fewest engine threads per core
is taken, so free cores come first and crowding comes last.
"""

from collections.abc import Iterable
from dataclasses import dataclass

RAM_FACTOR = 1.5
#: Interpreter, libraries and activations of one agent beside its weights.
PROCESS_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NodeSpace:
    """A node with what is promised on it. `ram_bytes` is None until its hardware was read."""

    name: str
    ram_bytes: int | None
    cores: int
    promised_bytes: int = 0
    engine_threads: int = 0
    accepts: bool = True


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


def place(model_bytes: int, nodes: Iterable[NodeSpace]) -> Placement | Refusal:
    """The least crowded node with room; ties go to the one with most RAM left, then by name."""
    need = agent_bytes(model_bytes)
    reasons: list[str] = []
    fitting: list[tuple[float, int, str]] = []
    for node in nodes:
        if not node.accepts:
            reasons.append(f"{node.name} takes no new agents")
        elif node.ram_bytes is None:
            reasons.append(f"{node.name}: its hardware is not known yet")
        elif node.ram_bytes - node.promised_bytes < need:
            left = max(0, node.ram_bytes - node.promised_bytes)
            reasons.append(f"{node.name} has {_mb(left)} of RAM left of {_mb(node.ram_bytes)}")
        else:
            left = node.ram_bytes - node.promised_bytes
            fitting.append((node.engine_threads / max(1, node.cores), -left, node.name))
    if fitting:
        return Placement(min(fitting)[2])
    why = "; ".join(reasons) or "there is no node"
    return Refusal(f"an agent needs {_mb(need)} of RAM (1.5 x the model, and its process): {why}")


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"

"""Room on nodes while a plan is made. Standard library only."""

from collections.abc import Mapping
from dataclasses import replace

from appliance.policies.fleet import FleetSnapshot
from appliance.policies.placement import NodeSpace, Refusal, agent_bytes, place


class Spaces:
    """What is promised on the nodes, counting what this tick adds."""

    def __init__(self, snapshot: FleetSnapshot) -> None:
        self._nodes = {
            node.name: NodeSpace(
                node.name,
                node.ram_bytes,
                node.cores,
                accepts=node.accepts and not node.lost,
                settling=node.settling,
            )
            for node in snapshot.nodes
        }
        for agent in snapshot.agents:
            self._promise(agent.node, agent.model_bytes, agent.threads)

    def place(self, model_bytes: int, capacities: Mapping[str, float], *, patient: bool) -> str | Refusal:
        """Take room for one agent: the node's name, or why there is none.

        One who is `patient` rather waits for the first look at a node than takes a worse one.
        """
        spaces = [replace(node, capacity_rps=capacities.get(name, 0.0)) for name, node in self._nodes.items()]
        found = place(model_bytes, spaces, patient=patient)
        if isinstance(found, Refusal):
            return found
        self._promise(found.node, model_bytes, self._nodes[found.node].cores)
        return found.node

    def _promise(self, name: str, model_bytes: int, threads: int) -> None:
        if name in self._nodes:
            node = self._nodes[name]
            self._nodes[name] = replace(
                node,
                promised_bytes=node.promised_bytes + agent_bytes(model_bytes),
                engine_threads=node.engine_threads + threads,
            )

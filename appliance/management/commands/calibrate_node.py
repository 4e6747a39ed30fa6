"""`manage.py calibrate_node`."""

from typing import Any

from appliance.management.base import actor
from appliance.management.node_commands import OrderCommand
from appliance.models import Node
from appliance.node_waiting import Tell, wait_until_calibrated
from appliance.nodes import calibrate_node
from appliance.profiles import profiles_of


class Command(OrderCommand):
    help = (
        "Measure how fast the models that run on a node are there: workers, threads, batch size. Agents are "
        "measured one at a time, for some seconds, out of service, while others carry the load.\n"
        "Example: manage.py calibrate_node local --timeout 120"
    )

    def order(self, name: str, **options: Any) -> Node:
        return calibrate_node(name, actor=actor())

    def wait(self, name: str, timeout_s: float, tell: Tell) -> None:
        wait_until_calibrated(name, timeout_s=timeout_s, tell=tell)

    def answer(self, node: Node) -> tuple[dict[str, Any], str]:
        document = {"name": node.name, "profiles": profiles_of(node)}
        if node.calibration_at is not None:
            return document, f"node {node.name} is going to be measured"
        return document, _say(document)


def _say(document: dict[str, Any]) -> str:
    lines = [
        f"{one['deployment']}: {one['workers']} x {one['threads']} threads, batch {one['batch_size']}, "
        f"{one['capacity_rps']:.1f} requests/s, {one['tokens_per_s']:.0f} tokens/s ({one['source']})"
        for one in document["profiles"]
    ]
    return "\n".join([f"node {document['name']} was measured", *lines])

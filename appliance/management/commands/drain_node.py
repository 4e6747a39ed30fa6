"""`manage.py drain_node`."""

from typing import Any

from appliance.management.base import actor
from appliance.management.node_commands import OrderCommand
from appliance.models import Node
from appliance.node_waiting import Tell, wait_until_drained
from appliance.nodes import drain_node


class Command(OrderCommand):
    help = (
        "Have all agents leave a node once their requests are answered; no new ones come until it is "
        "uncordoned.\n"
        "Example: manage.py drain_node box-1 --timeout 300"
    )

    def order(self, name: str, **options: Any) -> Node:
        return drain_node(name, actor=actor())

    def wait(self, name: str, timeout_s: float, tell: Tell) -> None:
        wait_until_drained(name, timeout_s=timeout_s, tell=tell)

    def answer(self, node: Node) -> tuple[dict[str, Any], str]:
        left = node.agents.count()
        document = {"name": node.name, "wanted": node.wanted, "agents": left}
        return document, f"node {node.name} {'drains' if left else 'is drained'}"

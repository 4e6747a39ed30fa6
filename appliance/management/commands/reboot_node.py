"""`manage.py reboot_node`."""

from typing import Any

from appliance.management.base import actor
from appliance.management.node_commands import OrderCommand
from appliance.models import Node
from appliance.node_waiting import Tell, wait_until_rebooted
from appliance.nodes import reboot_node


class Command(OrderCommand):
    help = (
        "Restart a node: its agents leave service first, and come back afterwards.\n"
        "Example: manage.py reboot_node box-1 --timeout 600"
    )

    def order(self, name: str, **options: Any) -> Node:
        return reboot_node(name, actor=actor())

    def wait(self, name: str, timeout_s: float, tell: Tell) -> None:
        wait_until_rebooted(name, timeout_s=timeout_s, tell=tell)

    def answer(self, node: Node) -> tuple[dict[str, Any], str]:
        words = "is going to be rebooted" if node.operation else "was rebooted"
        return {"name": node.name, "operation": node.operation}, f"node {node.name} {words}"

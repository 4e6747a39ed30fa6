"""`manage.py wake_node`."""

import time
from typing import Any

from appliance.fleet import node_state
from appliance.management.base import actor
from appliance.management.node_commands import OrderCommand
from appliance.models import Node
from appliance.node_waiting import Tell, wait_until_awake
from appliance.power import wake_node


class Command(OrderCommand):
    help = (
        "Wake a node that sleeps or is switched off, by Wake-on-LAN or the program set as its power.\n"
        "Example: manage.py wake_node box-1 --timeout 300"
    )

    def order(self, name: str, **options: Any) -> Node:
        return wake_node(name, actor=actor())

    def wait(self, name: str, timeout_s: float, tell: Tell) -> None:
        wait_until_awake(name, timeout_s=timeout_s, tell=tell)

    def answer(self, node: Node) -> tuple[dict[str, Any], str]:
        words = "is being woken" if node.power_wanted or node.power_stage else "is awake"
        return {"name": node.name, "state": node_state(node, time.time())}, f"node {node.name} {words}"

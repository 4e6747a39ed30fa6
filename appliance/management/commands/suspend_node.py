"""`manage.py suspend_node`."""

import time
from typing import Any

from django.core.management.base import CommandParser

from appliance.fleet import node_state
from appliance.management.base import actor
from appliance.management.node_commands import OrderCommand
from appliance.models import Node
from appliance.node_waiting import Tell, wait_until_asleep
from appliance.power import suspend_node


class Command(OrderCommand):
    help = (
        "Put a node to sleep: its agents leave first, and others take their place elsewhere. It sleeps until "
        "wake_node, or until agents find no room without it.\n"
        "Example: manage.py suspend_node box-1 --power-off"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--power-off", action="store_true", help="switch it off instead of suspending it to memory"
        )
        parser.add_argument(
            "--no-wake",
            action="store_true",
            help="also where nothing could wake it: people will switch it on",
        )

    def order(self, name: str, **options: Any) -> Node:
        how = "power_off" if options["power_off"] else ""
        return suspend_node(name, how=how, no_wake=options["no_wake"], actor=actor())

    def wait(self, name: str, timeout_s: float, tell: Tell) -> None:
        wait_until_asleep(name, timeout_s=timeout_s, tell=tell)

    def answer(self, node: Node) -> tuple[dict[str, Any], str]:
        state = node_state(node, time.time())
        words = "is asleep" if state == "asleep" else "goes to sleep once its agents have left"
        return {"name": node.name, "state": state}, f"node {node.name} {words}"

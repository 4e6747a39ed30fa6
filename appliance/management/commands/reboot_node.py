"""`manage.py reboot_node`."""

from typing import Any

from django.core.management.base import CommandParser

from appliance.management.base import actor
from appliance.management.node_commands import NodeCommand
from appliance.node_waiting import wait_until_rebooted
from appliance.nodes import reboot_node


class Command(NodeCommand):
    help = (
        "Restart a node: its agents leave service first, and come back afterwards.\n"
        "Example: manage.py reboot_node box-1 --timeout 600"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_name(parser)
        self.add_waiting(parser)

    def run(self, **options: Any) -> None:
        if not options["no_wait"]:
            self.require_worker()
        node = reboot_node(options["name"], actor=actor())
        self.poke()
        if not options["no_wait"]:
            name, timeout_s = node.name, options["timeout"]
            self.wait_for(lambda tell: wait_until_rebooted(name, timeout_s=timeout_s, tell=tell))
        node.refresh_from_db()
        document = {"name": node.name, "operation": node.operation}
        under_way = f"node {node.name} is going to be rebooted"
        self.told(options, document, under_way if node.operation else f"node {node.name} was rebooted")

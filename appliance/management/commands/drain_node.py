"""`manage.py drain_node`."""

from functools import partial
from typing import Any

from django.core.management.base import CommandParser

from appliance.management.base import actor
from appliance.management.node_commands import NodeCommand
from appliance.node_waiting import wait_until_drained
from appliance.nodes import drain_node


class Command(NodeCommand):
    help = (
        "Have all agents leave a node once their requests are answered; no new ones come until it is "
        "uncordoned.\n"
        "Example: manage.py drain_node box-1 --timeout 300"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_name(parser)
        self.add_waiting(parser)

    def run(self, **options: Any) -> None:
        if not options["no_wait"]:
            self.require_worker()
        node = drain_node(options["name"], actor=actor())
        self.poke()
        if not options["no_wait"]:
            self.wait_for(partial(_wait, node.name, options["timeout"]))
        left = node.agents.count()
        document = {"name": node.name, "wanted": node.wanted, "agents": left}
        self.told(options, document, f"node {node.name} drains" if left else f"node {node.name} is drained")


def _wait(name: str, timeout_s: float, tell: Any) -> None:
    wait_until_drained(name, timeout_s=timeout_s, tell=tell)

"""`manage.py uncordon_node`."""

from typing import Any

from django.core.management.base import CommandParser

from appliance.management.base import actor
from appliance.management.node_commands import NodeCommand
from appliance.nodes import uncordon_node


class Command(NodeCommand):
    help = "Have a node take agents again, after a cordon or a drain.\nExample: manage.py uncordon_node box-1"

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_name(parser)

    def run(self, **options: Any) -> None:
        node = uncordon_node(options["name"], actor=actor())
        self.poke()
        document = {"name": node.name, "wanted": node.wanted}
        self.told(options, document, f"node {node.name} takes agents")

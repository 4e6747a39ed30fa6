"""`manage.py cordon_node`."""

from typing import Any

from django.core.management.base import CommandParser

from appliance.management.base import actor
from appliance.management.node_commands import NodeCommand
from appliance.nodes import cordon_node


class Command(NodeCommand):
    help = "Take no new agents on a node; those that are there stay.\nExample: manage.py cordon_node box-1"

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_name(parser)

    def run(self, **options: Any) -> None:
        node = cordon_node(options["name"], actor=actor())
        self.poke()
        line = f"node {node.name} takes no new agents"
        if node.wanted == node.Wanted.DRAINED:
            line += " (it is drained)"
        self.told(options, {"name": node.name, "wanted": node.wanted}, line)

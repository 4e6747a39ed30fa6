"""`manage.py retire_node`."""

from typing import Any

from django.core.management.base import CommandParser

from appliance.management.base import actor
from appliance.management.node_commands import NodeCommand
from appliance.node_waiting import wait_until_retired
from appliance.nodes import retire_node


class Command(NodeCommand):
    help = (
        "Take a node out for good: its agents leave, then all that is ours is removed from the box. With "
        "--force the box is not touched, for one that is lost.\n"
        "Example: manage.py retire_node box-1"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_name(parser)
        parser.add_argument("--force", action="store_true", help="do not touch the box: it is lost")
        self.add_waiting(parser)

    def run(self, **options: Any) -> None:
        if not (options["no_wait"] or options["force"]):
            self.require_worker()
        node = retire_node(options["name"], force=options["force"], actor=actor())
        self.poke()
        if not options["no_wait"]:
            name, timeout_s = node.name, options["timeout"]
            self.wait_for(lambda tell: wait_until_retired(name, timeout_s=timeout_s, tell=tell))
        node.refresh_from_db()
        over = node.retired_at is not None
        document = {"name": node.name, "retired": over}
        self.told(options, document, f"node {node.name} is {'retired' if over else 'going to be retired'}")

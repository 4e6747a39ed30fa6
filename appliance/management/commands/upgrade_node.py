"""`manage.py upgrade_node`."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from appliance.management.base import actor
from appliance.management.enrolment_input import refuse
from appliance.management.node_commands import NodeCommand
from appliance.node_waiting import wait_until_upgraded
from appliance.nodes import upgrade_nodes


class Command(NodeCommand):
    help = (
        "Bring nodes what agents of this version run, one node at a time; where the first fails, the others "
        "keep what they have.\n"
        "Example: manage.py upgrade_node --all --timeout 1800"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="*", help="nodes, as `manage.py fleet` shows them")
        parser.add_argument("--all", action="store_true", help="every enrolled node")
        self.add_json(parser)
        self.add_waiting(parser)

    def run(self, **options: Any) -> None:
        if bool(options["name"]) == options["all"]:
            raise refuse("give one NAME or more, or --all (one of the two)")
        if not options["no_wait"]:
            self.require_worker()
        nodes = upgrade_nodes(None if options["all"] else options["name"], actor=actor())
        names = [node.name for node in nodes]
        if not names:
            self.told(options, {"nodes": []}, "there is no node to upgrade")
            return
        self.poke()
        failure: CommandError | None = None
        if not options["no_wait"]:
            timeout_s = options["timeout"]
            try:
                self.wait_for(lambda tell: wait_until_upgraded(names, timeout_s=timeout_s, tell=tell))
            except CommandError as error:
                failure = error
        for node in nodes:
            node.refresh_from_db()
        document = {
            "nodes": [
                {"name": node.name, "operation": node.operation, "release": node.release_sha256}
                for node in nodes
            ]
        }
        if failure is None or options["json"]:
            left = [node.name for node in nodes if node.operation]
            verb = f"{len(left)} of {len(names)} nodes are going to be upgraded" if left else "upgraded"
            self.told(options, document, verb if left else f"upgraded: {', '.join(names)}")
        if failure is not None:
            raise failure

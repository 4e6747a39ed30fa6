"""`manage.py wake_node`."""

import time
from functools import partial
from typing import Any

from django.core.management.base import CommandParser

from appliance.fleet import node_state
from appliance.management.base import actor
from appliance.management.node_commands import NodeCommand
from appliance.node_waiting import Tell, wait_until_awake
from appliance.power import wake_node


class Command(NodeCommand):
    help = (
        "Wake a node that sleeps or is switched off, by Wake-on-LAN or the program set as its power.\n"
        "Example: manage.py wake_node box-1 --timeout 300"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_name(parser)
        self.add_waiting(parser)

    def run(self, **options: Any) -> None:
        if not options["no_wait"]:
            self.require_worker()
        node = wake_node(options["name"], actor=actor())
        self.poke()
        if not options["no_wait"]:
            self.wait_for(partial(_wait, node.name, options["timeout"]))
        node.refresh_from_db()
        state = node_state(node, time.time())
        words = "is being woken" if node.power_wanted or node.power_stage else "is awake"
        self.told(options, {"name": node.name, "state": state}, f"node {node.name} {words}")


def _wait(name: str, timeout_s: float, tell: Tell) -> None:
    wait_until_awake(name, timeout_s=timeout_s, tell=tell)

"""`manage.py calibrate_node`."""

from typing import Any

from django.core.management.base import CommandParser

from appliance.management.base import actor
from appliance.management.node_commands import NodeCommand
from appliance.node_waiting import wait_until_calibrated
from appliance.nodes import calibrate_node
from appliance.profiles import profiles_of


class Command(NodeCommand):
    help = (
        "Measure how fast the models that run on a node are there: workers, threads, batch size. Agents are "
        "measured one at a time, for some seconds, out of service, while others carry the load.\n"
        "Example: manage.py calibrate_node local --timeout 120"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_name(parser)
        self.add_waiting(parser)

    def run(self, **options: Any) -> None:
        if not options["no_wait"]:
            self.require_worker()
        node = calibrate_node(options["name"], actor=actor())
        self.poke()
        if not options["no_wait"]:
            name, timeout_s = node.name, options["timeout"]
            self.wait_for(lambda tell: wait_until_calibrated(name, timeout_s=timeout_s, tell=tell))
        node.refresh_from_db()
        document = {"name": node.name, "profiles": profiles_of(node)}
        self.told(
            options, document, _say(document) if node.calibration_at is None else _say_ordered(node.name)
        )


def _say_ordered(name: str) -> str:
    return f"node {name} is going to be measured"


def _say(document: dict[str, Any]) -> str:
    lines = [
        f"{one['deployment']}: {one['workers']} x {one['threads']} threads, batch {one['batch_size']}, "
        f"{one['capacity_rps']:.1f} requests/s, {one['tokens_per_s']:.0f} tokens/s ({one['source']})"
        for one in document["profiles"]
    ]
    return "\n".join([f"node {document['name']} was measured", *lines])

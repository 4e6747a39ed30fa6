"""`manage.py set_serving`."""

from typing import Any

from django.core.management.base import CommandParser

from appliance.deployments import ServingChanged, find_deployment, set_serving
from appliance.management.base import ApplianceCommand, actor, format_table
from appliance.models import Deployment
from appliance.row_settings import parse_pairs, show_values, to_text
from appliance.serving_settings import SERVING


class Command(ApplianceCommand):
    help = (
        "Change how a deployment is served, or print all settings with what they mean.\n"
        "Example: manage.py set_serving minilm cache_mb=64 sticky=yes"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the deployment's name")
        parser.add_argument(
            "changes", nargs="*", metavar="KEY=VALUE", help="what is to be another; none: print all"
        )
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        name = options["name"]
        pairs = parse_pairs(options["changes"])
        if not pairs:
            self._print(find_deployment(name), in_json=options["json"])
            return
        done = set_serving(name, pairs, actor())
        if done.generation is not None:
            self.wait_for_gateways(done.generation)
        if options["json"]:
            self.print_json(
                {"name": name, "changes": done.changes, "settings": show_values(SERVING, done.deployment)}
            )
        else:
            self.stdout.write(describe(done))

    def _print(self, deployment: Deployment, *, in_json: bool) -> None:
        values = show_values(SERVING, deployment)
        if in_json:
            self.print_json({"name": deployment.name, "changes": {}, "settings": values})
            return
        rows = [(one.key, to_text(values[one.key]), one.meaning, one.accepted) for one in SERVING]
        self.stdout.write(format_table(("setting", "value", "meaning", "accepted"), rows))


def describe(done: ServingChanged) -> str:
    """What changed, one line a value."""
    name = done.deployment.name
    if not done.changes:
        return f"deployment {name} is served as asked already"
    lines = [f"  {key}: {to_text(old)} -> {to_text(new)}" for key, (old, new) in done.changes.items()]
    return "\n".join((f"deployment {name} changed", *lines))

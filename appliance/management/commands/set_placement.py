"""`manage.py set_placement`."""

from typing import Any

from django.core.management.base import CommandParser

from appliance.deployments import find_deployment
from appliance.management.base import ApplianceCommand, actor, format_table
from appliance.models import Deployment
from appliance.placement import PlacementChanged, forbidden_nodes, set_placement, show_placement
from appliance.placement_settings import PLACEMENT
from appliance.row_settings import parse_pairs, to_text


class Command(ApplianceCommand):
    help = (
        "Change where a deployment's agents go, or print all settings with what they mean.\n"
        "Example: manage.py set_placement minilm require=disk=ssd spread=region prefer=cost"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the deployment's name")
        parser.add_argument(
            "changes", nargs="*", metavar="KEY=VALUE", help="what is to be another; none: print all"
        )
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        pairs = parse_pairs(options["changes"])
        if not pairs:
            row = find_deployment(options["name"])
            done = PlacementChanged(row, {})
        else:
            done = set_placement(options["name"], pairs, actor())
            row = done.deployment
        if options["json"]:
            self.print_json(
                {
                    "name": row.name,
                    "changes": done.changes,
                    "settings": show_placement(row),
                    "forbidden": forbidden_nodes(row),
                }
            )
        elif pairs:
            self.stdout.write("\n".join((describe(done), *_forbidden(row))))
        else:
            values = show_placement(row)
            rows = [(one.key, to_text(values[one.key]), one.meaning, one.accepted) for one in PLACEMENT]
            table = format_table(("setting", "value", "meaning", "accepted"), rows)
            self.stdout.write("\n".join((table, *_forbidden(row))))


def describe(done: PlacementChanged) -> str:
    """What changed, one line a value."""
    name = done.deployment.name
    if not done.changes:
        return f"agents of {name} go where they are to go already"
    lines = [f"  {key}: {old} -> {new}" for key, (old, new) in done.changes.items()]
    return "\n".join((f"deployment {name} changed", *lines))


def _forbidden(row: Deployment) -> list[str]:
    """One line for each node that its rules forbid."""
    return [f"  not on {name}: it {why}" for name, why in forbidden_nodes(row).items()]

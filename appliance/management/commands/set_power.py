"""`manage.py set_power`."""

from typing import Any

from django.core.management.base import CommandParser

from appliance.management.base import ApplianceCommand, actor, format_table
from appliance.power import PowerChanged, set_power
from appliance.power_settings import POWER
from appliance.row_settings import parse_pairs, show_values, to_text


class Command(ApplianceCommand):
    help = (
        "Change when nodes sleep and wake by themselves, or print all settings with what they mean. Only "
        "nodes with a power set are concerned.\n"
        "Example: manage.py set_power sleep_after_s=1800 headroom_nodes=2"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "changes", nargs="*", metavar="KEY=VALUE", help="what is to be another; none: print all"
        )
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        pairs = parse_pairs(options["changes"])
        done = set_power(pairs, actor())
        values = show_values(POWER, done.rules)
        if options["json"]:
            self.print_json({"changes": done.changes, "settings": values})
        elif pairs:
            self.stdout.write(describe(done))
        else:
            rows = [(one.key, to_text(values[one.key]), one.meaning, one.accepted) for one in POWER]
            self.stdout.write(format_table(("setting", "value", "meaning", "accepted"), rows))


def describe(done: PowerChanged) -> str:
    """What changed, one line a value."""
    if not done.changes:
        return "power is as asked already"
    lines = [f"  {key}: {to_text(old)} -> {to_text(new)}" for key, (old, new) in done.changes.items()]
    return "\n".join(("power changed", *lines))

"""`manage.py create_key`."""

from typing import Any

from django.core.management.base import CommandParser

from appliance.keys import SCOPES, create_key
from appliance.management.base import ApplianceCommand, actor, count


class Command(ApplianceCommand):
    help = (
        "Create an API key. The key is printed once, alone on the last line; only its digest is kept.\n"
        "Example: manage.py create_key laptop --team search --rpm 600"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what to call the key")
        parser.add_argument("--team", default="", help="whose it is")
        parser.add_argument(
            "--rpm", type=count, default=None, metavar="N", help="requests per minute; no limit unless given"
        )
        parser.add_argument(
            "--scope", action="append", choices=SCOPES, help="what it opens (default inference); may repeat"
        )
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        created = create_key(
            options["name"],
            team=options["team"],
            rpm=options["rpm"],
            scopes=tuple(options["scope"] or ("inference",)),
            actor=actor(),
        )
        self.wait_for_gateways(created.generation)
        if options["json"]:
            self.print_json({"name": created.name, "key": created.secret})
        else:
            self.stdout.write(f"key {created.name} is made; it is not shown again:\n{created.secret}")

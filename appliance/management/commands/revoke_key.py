"""`manage.py revoke_key`."""

from typing import Any

from django.core.management.base import CommandParser

from appliance.keys import revoke_key
from appliance.management.base import ApplianceCommand, actor


class Command(ApplianceCommand):
    help = "End an API key: requests with it are refused from now on.\nExample: manage.py revoke_key laptop"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the key's name")
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        self.wait_for_gateways(revoke_key(options["name"], actor=actor()))
        if options["json"]:
            self.print_json({"name": options["name"], "revoked": True})
        else:
            self.stdout.write(f"key {options['name']} is revoked")

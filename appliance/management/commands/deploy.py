"""`manage.py deploy`."""

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from appliance.deployments import Deployed, deploy
from appliance.management.base import ApplianceCommand, actor, count, poke_worker
from appliance.management.node_progress import ProgressBar, ProgressLines
from appliance.waiting import DeploymentFailedError, wait_until_ready


class Command(ApplianceCommand):
    help = (
        "Create or update a deployment: NAME is what clients send as `model`.\n"
        "Example: manage.py deploy minilm --model minilm --min 1 --max 4 --wait"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the deployment's name")
        parser.add_argument("--model", required=True, help="a model of the catalog")
        parser.add_argument(
            "--min", type=count, metavar="N", help="warm agents at least (a new deployment: 1)"
        )
        parser.add_argument(
            "--max", type=count, metavar="N", help="warm agents at most (a new deployment: max(min, 1))"
        )
        parser.add_argument("--wait", action="store_true", help="until max(min, 1) agents were ready once")
        self.add_timeout(parser)
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        if options["wait"]:
            self.require_worker()
        deployed = deploy(
            options["name"],
            model=options["model"],
            min_agents=options["min"],
            max_agents=options["max"],
            actor=actor(),
        )
        poke_worker()
        self.wait_for_gateways(deployed.generation)
        if options["wait"]:
            self._wait(deployed.deployment.name, options["timeout"])
        if options["json"]:
            self.print_json(
                {"name": deployed.deployment.name, "created": deployed.created, "changes": deployed.changes}
            )
        else:
            self.stdout.write(describe(deployed))

    def _wait(self, name: str, timeout_s: float) -> None:
        tell = ProgressBar(sys.stderr) if sys.stderr.isatty() else ProgressLines(self.say)

        def say(line: str) -> None:
            tell.close()
            self.say(line)

        try:
            wait_until_ready(name, timeout_s=timeout_s, say=say, tell=tell)
        except DeploymentFailedError as error:
            raise CommandError(str(error)) from None
        finally:
            tell.close()


def describe(deployed: Deployed) -> str:
    """What changed, one line a value."""
    name = deployed.deployment.name
    if not deployed.changes:
        return f"deployment {name} is as asked already"
    verb = "created" if deployed.created else "changed"
    lines = [
        f"  {key}: {'' if old is None or deployed.created else f'{old} -> '}{new}"
        for key, (old, new) in deployed.changes.items()
    ]
    return "\n".join((f"deployment {name} {verb}", *lines))

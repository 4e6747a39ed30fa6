"""`manage.py collect_runtime`."""

import time
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from appliance.management.base import ApplianceCommand
from appliance.management.enrolment_input import refuse
from provisioning.bundle import build_release
from provisioning.errors import BundleError
from provisioning.planning import ARCHITECTURES, MIN_PYTHON


class Command(ApplianceCommand):
    help = (
        "Collect what nodes of a Python version and processor run, so that enrolling one downloads nothing.\n"
        "Example: manage.py collect_runtime --python 3.11 --arch x86_64"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--python", required=True, metavar="V", help="a version such as 3.11")
        parser.add_argument("--arch", choices=ARCHITECTURES, default="x86_64", help="default x86_64")
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        version, arch = _checked_version(options["python"]), options["arch"]
        self.say(f"collecting the runtime for Python {version} on {arch}")
        began = time.monotonic()
        try:
            release = build_release(settings.ENVIRONMENT.home / "releases", version, arch)
        except BundleError as error:
            raise CommandError(error.line) from None
        if options["json"]:
            self.print_json(
                {"python": version, "arch": arch, "sha256": release.sha256, "size_bytes": release.size_bytes}
            )
        else:
            self.stdout.write(
                f"runtime for Python {version} on {arch}: {release.size_bytes / 1e6:.1f} MB, "
                f"digest {release.sha256[:12]}, {time.monotonic() - began:.0f} s"
            )


def _checked_version(text: str) -> str:
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts[:3]):
        raise refuse(f"--python {text[:40]!r} is not accepted: a version such as 3.11 is")
    if (int(parts[0]), int(parts[1])) < MIN_PYTHON or parts[0] != "3":
        least = ".".join(map(str, MIN_PYTHON))
        raise refuse(f"--python {text[:40]!r} is not accepted: {least} or newer is")
    return ".".join(parts[:2])

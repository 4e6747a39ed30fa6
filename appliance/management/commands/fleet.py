"""`manage.py fleet`."""

import time
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from appliance.agent_shapes import shape_text
from appliance.fleet import read_fleet
from appliance.gateways import read_reports
from appliance.management.base import ApplianceCommand, format_table

#: Of an agent what is told in one cell, and what is long.
_APART = frozenset({"workers", "threads", "batch_size", "stretched", "grown_from", "reported", "health"})


class Command(ApplianceCommand):
    help = "Show nodes, deployments and agents as they are now.\nExample: manage.py fleet --json"

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        reports = read_reports(settings.ENVIRONMENT.run_dir)
        if not reports:
            self.say("no gateway answers: numbers of requests are not known")
        fleet = read_fleet(reports, time.time())
        if options["json"]:
            self.print_json(fleet)
            return
        for title in ("nodes", "deployments", "agents"):
            rows = [narrow(row) for row in fleet[title]]
            self.stdout.write(f"{title.upper()}{'' if rows else ': none'}")
            if rows:
                cells = ([_cell(key, value) for key, value in row.items()] for row in rows)
                heads = [key.removesuffix("_bytes").replace("_percent", "") for key in rows[0]]
                self.stdout.write(format_table(heads, cells) + "\n")


def narrow(row: dict[str, Any]) -> dict[str, Any]:
    """A row as people read it: how large an agent is in one cell, and what is long at the end."""
    if "workers" not in row:
        return row
    rest = {key: value for key, value in row.items() if key not in _APART}
    return rest | {"shape": shape_text(row), "health": row["health"]}


def _cell(key: str, value: object) -> str:
    if value is None or value == "":
        return "-"
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / 2**30:.1f} GiB"
    if key.endswith("_percent") and isinstance(value, float | int):
        return f"{value:.0f}%"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value)

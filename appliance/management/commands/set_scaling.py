"""`manage.py set_scaling`."""

from collections.abc import Mapping
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser

from appliance.deployments import find_deployment
from appliance.management.base import ApplianceCommand, actor, format_table
from appliance.models import Deployment
from appliance.policies.scaling_keys import KEYS, SCHEDULES
from appliance.policies.schedules import EXAMPLE
from appliance.scaling import ScalingChanged, set_scaling
from appliance.scaling_preview import (
    compare_last_hour,
    compare_rows,
    comparison_document,
    comparison_lines,
)
from appliance.scaling_settings import (
    DRY_RUN,
    GROUPS,
    PAUSED,
    default_of,
    parse_changes,
    say,
    show_scaling,
)
from appliance.simulate.last_hour import Comparison

#: What each setting means, and what it accepts.
_SAID: Final[Mapping[str, tuple[str, str]]] = {
    **{name: (key.meaning, key.accepted) for name, key in KEYS.items()},
    **{one.key: (one.meaning, one.accepted) for one in (PAUSED, DRY_RUN)},
    SCHEDULES: ("bounds by the clock; += adds one, -= takes one away", EXAMPLE),
}


class Command(ApplianceCommand):
    help = (
        "Change how a deployment scales, or print all settings with what they mean.\n"
        "Example: manage.py set_scaling minilm min=0 max=4 idle_s=60\n"
        f'         manage.py set_scaling minilm "schedule+={EXAMPLE}"\n'
        "         manage.py set_scaling minilm hold=2 | hold=none | paused=yes | schedule-=1\n"
        "         manage.py set_scaling minilm idle_s=default\n"
        "         manage.py set_scaling minilm max=8 --preview"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the deployment's name")
        parser.add_argument(
            "changes",
            nargs="*",
            metavar="KEY=VALUE",
            help="what is to be another, KEY=default takes it back; none: print all",
        )
        parser.add_argument(
            "--preview", action="store_true",
            help="change nothing, and show what the last hour would have been under these values",
        )  # fmt: skip
        self.add_json(parser)
        parser.epilog = _list_settings()

    def run(self, **options: Any) -> None:
        name = options["name"]
        changes = parse_changes(options["changes"])
        if not changes and options["preview"]:
            raise CommandError("--preview needs values: set_scaling NAME KEY=VALUE --preview", returncode=2)
        if not changes:
            self._print(find_deployment(name), in_json=options["json"])
            return
        if options["preview"]:
            self._preview(compare_last_hour(name, changes), in_json=options["json"])
            return
        before = find_deployment(name)
        done = set_scaling(name, changes, actor())
        if done.generation is not None:
            self.wait_for_gateways(done.generation)
        if options["json"]:
            self.print_json(
                {
                    "name": name,
                    "changes": done.changes,
                    "settings": show_scaling(done.deployment),
                    "last_hour": comparison_document(compare_rows(before, done.deployment)),
                }
            )
        else:
            self.stdout.write(describe(done))
            compared = compare_rows(before, done.deployment)
            if done.changes and compared.new is not None:
                self.stdout.write("\n".join(("", *comparison_lines(compared))))

    def _preview(self, comparison: Comparison, *, in_json: bool) -> None:
        if in_json:
            self.print_json(comparison_document(comparison))
        else:
            self.stdout.write("\n".join(comparison_lines(comparison)))

    def _print(self, deployment: Deployment, *, in_json: bool) -> None:
        values = show_scaling(deployment)
        if in_json:
            self.print_json(
                {"name": deployment.name, "changes": {}, "settings": values, "reason": deployment.reason}
            )
            return
        rows: list[tuple[str, str, str, str]] = []
        for heading, names in GROUPS.items():
            rows.append((heading.upper(), "", "", ""))
            rows += [
                (name, _with_default(name, values[name]), *_SAID[name]) for name in names if name != SCHEDULES
            ]
            if SCHEDULES in names:
                rows += _schedule_rows(values[SCHEDULES])
        self.stdout.write(format_table(("setting", "value", "meaning", "accepted"), rows))
        if deployment.reason:
            self.stdout.write(f"\nnow {deployment.desired} wanted: {deployment.reason}")


def _list_settings() -> str:
    """All settings with what they mean, for `--help`."""
    lines = ["settings; without a pair all are printed, with what is accepted:"]
    for heading, names in GROUPS.items():
        lines += [f"  {heading}", *(f"    {name:<21} {_SAID[name][0]}" for name in names)]
    return "\n".join(lines)


def _with_default(name: str, value: object) -> str:
    """A value in words, and the default where it is another; minimum and maximum have none."""
    default = default_of(name) if name in KEYS else False
    has_default = name not in ("min", "max") and value != default
    return f"{say(value)} (default {say(default)})" if has_default else say(value)


def _schedule_rows(schedules: object) -> list[tuple[str, str, str, str]]:
    """One line that says what they are, and one each."""
    kept = schedules if isinstance(schedules, list) else []
    lines = [("", f"{number}: {text}", "", "") for number, text in enumerate(kept, 1)]
    return [(SCHEDULES, "" if kept else "none", *_SAID[SCHEDULES]), *lines]


def describe(done: ScalingChanged) -> str:
    """What changed, one line a value."""
    name = done.deployment.name
    if not done.changes:
        return f"deployment {name} scales as asked already"
    lines = [f"  {key}: {say(old)} -> {say(new)}" for key, (old, new) in done.changes.items()]
    return "\n".join((f"deployment {name} changed", *lines))

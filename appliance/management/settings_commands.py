"""What the commands that change settings share: KEY=VALUE, what became another, and the table of all."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.management.base import CommandParser

from appliance.management.base import ApplianceCommand, format_table
from appliance.row_settings import DEFAULT, Setting, Value, meant, parse_pairs, to_text


@dataclass(frozen=True, slots=True)
class Told:
    """What is set of a `subject` by now, each value by key, and what became another (old, new).

    `same` says in words that nothing did. `more` stands in the document beside it, `lines` below it.
    """

    subject: str
    same: str
    values: Mapping[str, Value]
    changes: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    more: Mapping[str, object] = field(default_factory=dict)
    lines: Sequence[str] = ()

    def describe(self) -> str:
        """What changed, one line a value."""
        if not self.changes:
            return self.same
        lines = [f"  {key}: {to_text(old)} -> {to_text(new)}" for key, (old, new) in self.changes.items()]
        return "\n".join((f"{self.subject} changed", *lines))


class SettingsCommand(ApplianceCommand):
    """A command that changes `settings`, or prints all of them. Subclasses write `change`.

    Where they are a deployment's, the command has its NAME.
    """

    settings: Sequence[Setting] = ()
    of_deployment = True

    def add_arguments(self, parser: CommandParser) -> None:
        if self.of_deployment:
            parser.add_argument("name", help="the deployment's name")
        parser.add_argument(
            "changes",
            nargs="*",
            metavar="KEY=VALUE",
            help="what is to be another, KEY=default takes it back; none: print all",
        )
        self.add_json(parser)

    @abstractmethod
    def untouched(self) -> object:
        """What has the defaults in the fields of the settings."""

    @abstractmethod
    def change(self, name: str, pairs: Mapping[str, object]) -> Told:
        """Change these, which may be none. `name` is '' where the settings are no deployment's."""

    def run(self, **options: Any) -> None:
        name, pairs = options.get("name", ""), parse_pairs(options["changes"])
        resets = dict.fromkeys(key for key, value in pairs.items() if value == DEFAULT)
        told = self.change(name, {**pairs, **meant(self.settings, resets, self.untouched())})
        if options["json"]:
            head = {"name": name} if self.of_deployment else {}
            self.print_json({**head, "changes": told.changes, "settings": told.values, **told.more})
        else:
            self.stdout.write("\n".join((told.describe() if pairs else self._table(told), *told.lines)))

    def _table(self, told: Told) -> str:
        rows = [(one.key, to_text(told.values[one.key]), one.meaning, one.accepted) for one in self.settings]
        return format_table(("setting", "value", "meaning", "accepted"), rows)

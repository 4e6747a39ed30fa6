"""What the commands on enrolled nodes share: a name, waiting with progress, and what is printed."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser

from appliance.management.base import ApplianceCommand, poke_worker
from appliance.management.node_progress import ProgressLines
from appliance.models import Node
from appliance.node_waiting import NotDoneError, Tell


class NodeCommand(ApplianceCommand):
    """A command that asks something of nodes and can wait until it is done."""

    def add_name(self, parser: CommandParser) -> None:
        """Add NAME and `--json`."""
        parser.add_argument("name", help="the node's name, as `manage.py fleet` shows it")
        self.add_json(parser)

    def add_waiting(self, parser: CommandParser) -> None:
        """Add `--timeout` and `--no-wait`."""
        self.add_timeout(parser)
        parser.add_argument(
            "--no-wait", action="store_true", help="ask for it, and do not wait until it is done"
        )

    def poke(self) -> None:
        """Have the worker look at once."""
        poke_worker()

    def wait_for(self, wait: Callable[[Tell], None]) -> None:
        """Wait with progress lines. Raises CommandError where it fails or takes too long."""
        try:
            wait(ProgressLines(self.say))
        except NotDoneError as error:
            raise CommandError("; ".join(filter(None, (str(error), error.hint)))) from None

    def told(self, options: dict[str, Any], document: dict[str, Any], line: str) -> None:
        """The document with `--json`, else the line."""
        if options["json"]:
            self.print_json(document)
        else:
            self.stdout.write(line)


class OrderCommand(NodeCommand):
    """An order to one node. Subclasses say how it is given, how waited for, and how it stands then."""

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_name(parser)
        self.add_waiting(parser)

    @abstractmethod
    def order(self, name: str, **options: Any) -> Node:
        """Write the order down. `options` are those of the command."""

    @abstractmethod
    def wait(self, name: str, timeout_s: float, tell: Tell) -> None:
        """Until it is carried out. Raises NotDoneError."""

    @abstractmethod
    def answer(self, node: Node) -> tuple[dict[str, Any], str]:
        """The document, and the line for people, on the node as it is by now."""

    def run(self, **options: Any) -> None:
        waits = not options["no_wait"]
        if waits:
            self.require_worker()
        node = self.order(**options)
        self.poke()
        if waits:
            self.wait_for(lambda tell: self.wait(node.name, options["timeout"], tell))
        node.refresh_from_db()
        self.told(options, *self.answer(node))

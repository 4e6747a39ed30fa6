"""`manage.py enroll_node`."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from appliance.enrolling import EnrolmentRequest, known_host_key
from appliance.management.base import ApplianceCommand, actor, format_table
from appliance.management.enrolment_input import choose_way, read_targets, refuse
from appliance.management.enrolment_run import Enrolling, Result, failed_result, place, read_host_keys
from appliance.management.node_progress import ProgressBar, ProgressLines
from appliance.models import Node
from appliance.ssh_identity import ensure_identity
from provisioning import ssh
from provisioning.hostkeys import HostKey


class Declined(Exception):
    """Somebody looked at a fingerprint and said no."""


class Command(ApplianceCommand):
    help = (
        "Make boxes nodes: log in once over SSH, install an account, the steward and the appliance's key, "
        "and send what agents run. It may be run again at any time: it goes on where it stopped.\n"
        "Without --host-key the box's fingerprint is shown and asked about. Without --identity and "
        "--password-stdin a key of ssh-agent or of ~/.ssh is used.\n"
        "Example: manage.py enroll_node 10.0.0.2 --name box-1 --user admin --identity ~/.ssh/id_ed25519\n"
        "Example: manage.py enroll_node --from boxes.csv --password-stdin --accept-host-key < password"
    )
    #: How boxes are reached; tests play others.
    connect = staticmethod(ssh.connect)
    read_host_key = staticmethod(ssh.read_host_key)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "address", nargs="*", help="host name or IP address; several are enrolled at once"
        )
        parser.add_argument(
            "--from", dest="source", metavar="FILE.csv",
            help="many boxes: a heading with address, and any of name, user, port, host_key, label "
            "(k=v;k=v), region, cost_per_hour, preemptible, power",
        )  # fmt: skip
        parser.add_argument("--name", default="", help="what to call the node (default: from its address)")
        parser.add_argument("--user", default="root", help="whom to log in as (default root)")
        parser.add_argument("--port", default="22", help="of its sshd (default 22)")
        way = parser.add_mutually_exclusive_group()
        way.add_argument("--identity", metavar="FILE", help="a private key to log in with")
        way.add_argument("--password-stdin", action="store_true", help="read the password from stdin")
        pin = parser.add_mutually_exclusive_group()
        pin.add_argument("--host-key", default="", metavar="SHA256:...", help="the fingerprint it must show")
        pin.add_argument("--accept-host-key", action="store_true", help="pin whatever key it shows, unasked")
        parser.add_argument("--label", action="append", metavar="K=V", help="may repeat")
        parser.add_argument("--region", help="where it stands")
        parser.add_argument("--cost-per-hour", metavar="X", help="what an hour costs, a number from 0")
        parser.add_argument("--preemptible", action="store_true", help="it may be taken away at any time")
        parser.add_argument("--power", metavar="wol:MAC|exec:NAME", help="how it is woken")
        self.add_timeout(parser)
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        try:
            self._enroll(options)
        except KeyboardInterrupt:
            raise CommandError("interrupted; the same command goes on") from None

    def _enroll(self, options: Mapping[str, Any]) -> None:
        targets = read_targets(options)
        self.require_worker()
        way = choose_way(options)
        pinned, failed = self._pin(targets, options)
        tell = (
            ProgressBar(sys.stderr) if len(targets) == 1 and sys.stderr.isatty() else ProgressLines(self.say)
        )
        try:
            identity = ensure_identity(settings.ENVIRONMENT)
        except ValueError as error:
            raise CommandError(f"{error}: restore ssh/id_ed25519 in the state directory") from None
        work = Enrolling(
            way, identity, actor=actor(), timeout_s=options["timeout"], tell=tell, poke=_poke,
            connect=self.connect,
        )  # fmt: skip
        results = list(failed)
        try:
            for result in work.run(pinned):
                tell.close()
                results.append(result)
                if len(targets) > 1:
                    self.say(f"{result.name or result.address}: {result.line or 'ready'}")
        finally:
            tell.close()
        order = {place(target): number for number, target in enumerate(targets)}
        self._report(sorted(results, key=lambda one: order[one.address]), as_json=options["json"])

    def _pin(
        self, targets: list[EnrolmentRequest], options: Mapping[str, Any]
    ) -> tuple[list[EnrolmentRequest], list[Result]]:
        """Requests with the host key that each must show, and those that ended here already."""
        known: dict[str, HostKey] = {}
        for target in targets:
            said = (
                HostKey(target.host_key) if target.host_key else known_host_key(target.address, target.port)
            )
            if said is not None:
                known[place(target)] = said
        shown = read_host_keys(targets, known, self.read_host_key)
        open_ones = [
            one for one in targets if place(one) not in known and isinstance(shown[place(one)], HostKey)
        ]
        refused = set()
        if open_ones and not options["accept_host_key"]:
            refused = _ask_about(open_ones, shown, from_stdin=not options["password_stdin"])
        pinned, failed = [], []
        for target in targets:
            key = shown[place(target)]
            if isinstance(key, Exception):
                failed.append(failed_result(target, key))
            elif place(target) in refused:
                failed.append(
                    replace(
                        failed_result(target, None), code="not_accepted",
                        error=f"the host key {key} was not accepted",
                    )
                )  # fmt: skip
            else:
                pinned.append(replace(target, host_key=key.fingerprint, host_key_kind=key.kind))
        return pinned, failed

    def _report(self, results: list[Result], *, as_json: bool) -> None:
        bad = [one for one in results if not one.ok]
        if as_json:
            self.print_json({"nodes": [one.document() for one in results]})
        elif len(results) > 1:
            heads = ("name", "address", "outcome", "seconds", "error")
            rows = [(one.name, one.address, one.state, f"{one.seconds:.1f}", one.line) for one in results]
            self.stdout.write(format_table(heads, rows))
        elif not bad:
            self.stdout.write(_describe(results[0]))
        if bad and len(results) == 1:
            raise CommandError(f"{bad[0].name or bad[0].address}: {bad[0].line}")
        if bad:
            raise CommandError(f"{len(bad)} of {len(results)} boxes are no nodes; run it again for those")


def _ask_about(
    targets: list[EnrolmentRequest], shown: Mapping[str, HostKey | Exception], *, from_stdin: bool
) -> set[str]:
    """Ask about each fingerprint; the places that were refused.

    Raises CommandError (2) where nobody can be asked.
    """
    terminal = _terminal(from_stdin=from_stdin)
    if terminal is None:
        lines = [f"{place(one)} shows {shown[place(one)]}" for one in targets[:20]]
        raise refuse(
            "\n".join(lines)
            + "\nnobody can be asked whether that is right: compare it on the box's own console "
            "(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then pass --host-key SHA256:..., "
            "a host_key column, or --accept-host-key"
        )
    read, close = terminal
    refused = set()
    try:
        for target in targets:
            sys.stderr.write(
                f"{place(target)} shows {shown[place(target)]}\nIs that the box's own key? [y/N] "
            )
            sys.stderr.flush()
            if read().strip().lower() not in ("y", "yes"):
                refused.add(place(target))
    finally:
        close()
    return refused


def _terminal(*, from_stdin: bool) -> tuple[Callable[[], str], Callable[[], None]] | None:
    """Where to read an answer from: stdin where that is a terminal and free, else the terminal itself."""
    if from_stdin and sys.stdin.isatty():
        return sys.stdin.readline, lambda: None
    opened = open_terminal()
    return None if opened is None else (opened.readline, opened.close)


def open_terminal() -> TextIO | None:
    """This process' terminal; None where it has none."""
    try:
        return Path("/dev/tty").open(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _describe(result: Result) -> str:
    node = Node.objects.filter(name=result.name).first()
    if result.again:
        done = f"done again: {', '.join(result.done)}" if result.done else "nothing was missing"
        return f"node {result.name} is enrolled already: {done}"
    if node is None:
        return f"node {result.name} is ready"
    system = node.hardware.get("os") or "unknown system"
    return (
        f"node {result.name} is ready: {result.address}, {node.cores} cores, "
        f"{node.ram_bytes / 2**30:.1f} GiB, {system}; {result.seconds:.0f} s"
    )


def _poke() -> None:
    """Have the worker look at once."""
    from appliance import tasks  # noqa: PLC0415 - the queue opens a file, which help needs not

    tasks.poke("verb")

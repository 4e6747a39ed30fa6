"""`manage.py load_test`."""

import contextlib
import json
import secrets
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from agents.protocol import TASK_PATHS
from appliance.deployments import find_deployment
from appliance.environment import Environment
from appliance.keys import create_key, revoke_key
from appliance.load_test import BadPlan, LoadPlan, Summary, Target, render_summary, run_load
from appliance.load_test.summary import SecondRow
from appliance.management.base import ApplianceCommand, actor, count, positive_number

MAX_INPUTS_BYTES = 16 * 1024 * 1024
INPUTS = (
    "The shop opens at eight in the morning.",
    "A parcel for the second floor has arrived.",
    "Please send the invoice to the new address.",
    "Rain is expected along the coast tonight.",
)


class Command(ApplianceCommand):
    help = (
        "Send requests to a deployment through this appliance's own gateway, on a schedule that does not\n"
        "wait for answers; latency counts from when a request was due. Exits 1 if any request failed.\n"
        "A key is made for the run and revoked after it.\n"
        "Example: manage.py load_test minilm --rps 100 --duration 30"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("deployment", help="the deployment's name")
        parser.add_argument(
            "--rps", type=positive_number, required=True, metavar="N", help="requests per second"
        )
        parser.add_argument(
            "--duration", type=positive_number, required=True, metavar="SECONDS", help="how long"
        )
        parser.add_argument("--connections", type=count, default=64, metavar="N", help="at most (default 64)")
        parser.add_argument("--inputs-file", type=Path, metavar="FILE", help="one input text per line")
        parser.add_argument(
            "--timeout", type=positive_number, default=120.0, metavar="SECONDS",
            help="a request without answer has failed by then (default 120)",
        )  # fmt: skip
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        deployment = find_deployment(options["deployment"])
        environment = settings.ENVIRONMENT
        texts = INPUTS if options["inputs_file"] is None else read_inputs(options["inputs_file"])
        bodies = build_bodies(deployment.name, texts)
        name = f"load-test-{secrets.token_hex(4)}"

        def plan(key: str) -> LoadPlan:
            target = build_target(environment, TASK_PATHS[deployment.model.task], key)
            return LoadPlan(
                target, bodies, connections=options["connections"], duration_s=options["duration"],
                rps=options["rps"], timeout_s=options["timeout"],
            )  # fmt: skip

        try:
            plan("")  # what is out of bounds is refused before anything is made
        except BadPlan as error:
            raise CommandError(str(error), returncode=2) from None
        require_gateway(environment)
        summary = self._run_with_key(name, plan)
        if options["json"]:
            self.print_json(summary.to_json())
        else:
            self.stdout.write(render_summary(summary))
        if summary.interrupted:
            raise CommandError(f"interrupted after {summary.window_s:.1f} s; key {name} is revoked")
        if summary.not_ok:
            raise CommandError(f"{summary.not_ok} of {summary.requests} requests failed")

    def _run_with_key(self, name: str, plan: Callable[[str], LoadPlan]) -> Summary:
        """Run with a key of its own, which is revoked whatever happens."""
        with _terminated_as_interrupted():
            try:
                created = create_key(name, team="load-test", actor=actor())
                self.wait_for_gateways(created.generation)
                return run_load(plan(created.secret), self._show)
            except KeyboardInterrupt:
                raise CommandError(f"interrupted before the first request; key {name} is revoked") from None
            finally:
                with _signals_ignored():
                    self.wait_for_gateways(revoke_key(name, actor=actor()))

    def _show(self, row: SecondRow) -> None:
        p99 = "" if row.p99_ms is None else f", p99 {row.p99_ms:.1f} ms"
        self.say(f"{row.second + 1} s: {row.sent} sent, {row.answered} answered, {row.failed} failed{p99}")


def read_inputs(path: Path) -> Sequence[str]:
    """The texts of a file, one a line, empty lines left out. Raises CommandError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_INPUTS_BYTES + 1)
        texts = [line for line in content.decode().splitlines() if line.strip()]
    except OSError as error:
        raise CommandError(f"inputs file {str(path)!r}: {error.strerror}", returncode=2) from None
    except UnicodeDecodeError as error:
        raise CommandError(f"inputs file {str(path)!r} is not UTF-8: {error}", returncode=2) from None
    if len(content) > MAX_INPUTS_BYTES:
        raise CommandError(
            f"inputs file {str(path)!r} is over {MAX_INPUTS_BYTES} bytes: take fewer lines", returncode=2
        )
    if not texts:
        raise CommandError(
            f"inputs file {str(path)!r} has no text: one input per line is accepted", returncode=2
        )
    return texts


def build_bodies(deployment: str, texts: Sequence[str]) -> tuple[bytes, ...]:
    """A request body for each text."""
    return tuple(json.dumps({"model": deployment, "input": text}).encode() for text in texts)


def build_target(environment: Environment, path: str, key: str) -> Target:
    """This appliance's own gateway; over TLS it must show the very certificate that it was given."""
    context = None
    if environment.tls_certificate is not None:
        context = ssl.create_default_context(cafile=str(environment.tls_certificate))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False  # it is addressed by where it listens, not by its names
    headers = (("Authorization", f"Bearer {key}"),)
    return Target(environment.reachable_host, environment.gateway_port, path, context, headers)


def require_gateway(environment: Environment) -> None:
    """Raise CommandError where nobody listens."""
    address = (environment.reachable_host, environment.gateway_port)
    try:
        socket.create_connection(address, timeout=3).close()
    except OSError as error:
        raise CommandError(
            f"no gateway answers at {address[0]}:{address[1]} ({error.strerror or error}): "
            "start the appliance with `make run`, or set GATEWAY_PORT to where it is"
        ) from None


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does, so that the key is revoked."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

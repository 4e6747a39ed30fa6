"""`manage.py control`: the control plane's process."""

import logging
import signal
import socket
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from appliance.environment import Environment


class Command(BaseCommand):
    help = (
        "Run the control plane (admin, dashboard, websockets) in the foreground until SIGTERM or SIGINT. "
        "`up` runs it together with the worker and the gateway. "
        "Example: APPLIANCE_PORT=8000 manage.py control"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """None: all is said in the environment."""

    def handle(self, *args: Any, **options: Any) -> None:
        environment: Environment = settings.ENVIRONMENT
        _check_port(environment)
        logging.getLogger("daphne").setLevel(logging.WARNING)
        # Importing Daphne installs its event loop, so it is done where it is used.
        from daphne.server import Server  # noqa: PLC0415 - see above

        from appliance.asgi import application  # noqa: PLC0415 - after Daphne's event loop is there

        # Twisted leaves an ignored SIGINT ignored, as a shell gives it to a job in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        server = Server(
            application,
            endpoints=[build_endpoint(environment)],
            action_logger=None,
            http_timeout=120,
            application_close_timeout=5,
            server_name="millwright",
            verbosity=1,
        )
        server.run()
        if not server.listening_addresses:
            raise CommandError(_taken(environment, "it could not be listened on"))


def build_endpoint(environment: Environment) -> str:
    """Twisted's description of where to listen; in it a colon inside a value is escaped."""
    interface = _escape(environment.bind)
    if environment.tls_certificate is None or environment.tls_key is None:
        return f"tcp:{environment.control_port}:interface={interface}"
    certificate, key = _escape(str(environment.tls_certificate)), _escape(str(environment.tls_key))
    return f"ssl:{environment.control_port}:interface={interface}:privateKey={key}:certKey={certificate}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")


def _check_port(environment: Environment) -> None:
    """Find a taken port before anything is started. Raises CommandError naming it."""
    family = socket.AF_INET6 if ":" in environment.bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((environment.bind, environment.control_port))
        except OSError as error:
            raise CommandError(_taken(environment, (error.strerror or str(error)).lower())) from None


def _taken(environment: Environment, why: str) -> str:
    return (
        f"APPLIANCE_PORT={environment.control_port} on {environment.bind}: {why}; "
        "set APPLIANCE_PORT to a free port, or end what uses it"
    )

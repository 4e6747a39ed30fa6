"""`python -m appliance.gateway [--name gateway-1]`: one gateway process, until a signal ends it."""

import argparse
import asyncio
import contextlib
import gc
import logging
import resource
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address

import uvloop

from appliance.environment import BadEnvironment, Environment, read_environment
from appliance.gateway.connection import ConnectionLimits
from appliance.gateway.logs import configure_logs
from appliance.gateway.routes import RouteFile
from appliance.gateway.server import build_server, serve
from appliance.gateway.service import Gateway, GatewayLimits
from appliance.inner_socket import InnerSocketTaken, bind_inner, check_name, inner_socket_path

log = logging.getLogger("appliance.gateway")

#: Descriptors kept back for agents, readers, files and connections that are just being refused.
_RESERVED_DESCRIPTORS = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code: 0 stopped, 1 something is in the way, 2 bad settings."""
    parser = argparse.ArgumentParser(
        prog="python -m appliance.gateway",
        description="Serve the inference API on GATEWAY_PORT.",
        epilog="example: GATEWAY_PORT=8080 python -m appliance.gateway --name gateway-1",
    )
    parser.add_argument(
        "--name", default="gateway-1", type=_name, help="its name in reports (default: %(default)s)"
    )
    name = parser.parse_args(arguments).name
    try:
        environment = read_environment()
    except BadEnvironment as error:
        return _say(str(error), 2)
    configure_logs(name)
    try:
        public = _listen(environment)
    except OSError as error:
        where = f"GATEWAY_PORT={environment.gateway_port} on {environment.bind}"
        return _say(f"{where} cannot be listened on: {error.strerror}; free it or choose another port", 1)
    with public:
        return _run(name, environment, public)


def _run(name: str, environment: Environment, public: socket.socket) -> int:
    try:
        environment.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        inner = bind_inner(environment.run_dir, name)
    except (InnerSocketTaken, OSError) as error:
        return _say(str(error), 1)
    try:
        with inner, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(name, environment, public, inner))
    finally:
        inner_socket_path(environment.run_dir, name).unlink(missing_ok=True)


async def _serve(name: str, environment: Environment, public: socket.socket, inner: socket.socket) -> int:
    limits = GatewayLimits(
        open_metrics=ip_address(environment.bind).is_loopback,
        connections=ConnectionLimits(max_connections=_affordable_connections()),
    )
    kept = environment.run_dir / f"{name}.routes.json"
    gateway = Gateway(name, RouteFile(environment.routes_file, kept), environment.ca_dir, limits)
    try:
        server = build_server(gateway, environment)
    except OSError as error:
        return _say(f"TLS_CERT={environment.tls_certificate} and TLS_KEY cannot be used: {error}", 2)
    _calm_garbage_collection()
    log.info("listening on %s://%s:%d", environment.scheme, environment.bind, environment.gateway_port)
    await serve(gateway, server, public, inner)
    log.info("stopped")
    return 0


def _listen(environment: Environment) -> socket.socket:
    family = socket.AF_INET6 if ip_address(environment.bind).version == 6 else socket.AF_INET
    return socket.create_server((environment.bind, environment.gateway_port), family=family, backlog=2048)


def _affordable_connections() -> int:
    """As many connections as the system's limit on descriptors allows, which is raised first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    default = ConnectionLimits().max_connections
    return default if soft == resource.RLIM_INFINITY else max(64, min(default, soft - _RESERVED_DESCRIPTORS))


def _calm_garbage_collection() -> None:
    """Look for cycles less often, and not among what lives as long as the process.

    Requests hold few objects and leave hardly a cycle; the default looks every 700 of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _name(text: str) -> str:
    try:
        return check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr)  # noqa: T201 - the one line for the operator
    return code


if __name__ == "__main__":
    sys.exit(main())

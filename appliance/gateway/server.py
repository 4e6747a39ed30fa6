"""A gateway on its public port: uvicorn, told how to stop."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn

from appliance.environment import Environment
from appliance.gateway.app import GatewayApp
from appliance.gateway.connection import GatewayConnection
from appliance.gateway.inference import Inference
from appliance.gateway.service import Gateway

KEEP_ALIVE_S = 75
FINISH_S = 8.0
GRACE_S = 10


class GatewayServer(uvicorn.Server):
    """Stops on SIGTERM and SIGINT: accepts no more, finishes what it has within a bound, then returns.

    What is not done after `finish_s` seconds is answered with 503.
    """

    def __init__(self, config: uvicorn.Config, gateway: Gateway, finish_s: float = FINISH_S) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._finish_s = finish_s

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals also where they were ignored at the start, and end with exit code 0."""
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal stops in good order, a second one at once."""
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish in-flight and queued requests within the bound."""
        self._gateway.stopping = True
        loop = asyncio.get_running_loop()
        last_call = loop.call_later(self._finish_s, self._gateway.dispatcher.abandon_all)
        try:
            await super().shutdown(sockets)
        finally:
            last_call.cancel()


def build_server(
    gateway: Gateway, environment: Environment | None = None, finish_s: float = FINISH_S
) -> GatewayServer:
    """A server for the gateway; with a certificate where the environment names one.

    Raises OSError (ssl.SSLError is one) where certificate and key cannot be used.
    """
    tls: dict[str, Any] = {}
    if environment is not None and environment.tls_certificate is not None:
        tls = {"ssl_certfile": environment.tls_certificate, "ssl_keyfile": environment.tls_key}
    gateway.guard.whole = inference = Inference(gateway)
    config = uvicorn.Config(
        cast("Any", GatewayApp(gateway, inference)),
        http=cast("Any", partial(GatewayConnection, gateway.guard)),
        loop="uvloop",
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        **tls,
    )
    config.load()
    return GatewayServer(config, gateway, finish_s)


async def serve(
    gateway: Gateway, server: GatewayServer, public_socket: socket.socket, inner_socket: socket.socket
) -> None:
    """Serve until a signal says stop, then clean up."""
    await gateway.start(inner_socket)
    try:
        await server.serve(sockets=[public_socket])
    finally:
        await gateway.close()

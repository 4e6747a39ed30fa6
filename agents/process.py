"""Puts an agent together and runs it until it is told to stop."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agents.config import AgentConfig
from agents.engines.base import create_engine
from agents.errors import BadConfig, PortTaken, StartError
from agents.link import LinkProtocol
from agents.protocol import ALPN_LINK
from agents.server import HttpSide
from agents.service import AgentService
from agents.tls import ServerTls

logger = logging.getLogger(__name__)

#: Connections that have not read their last answer this long after a drain are cut.
CLOSE_TIMEOUT_S = 5
MAX_CONNECTIONS = 1024
#: How long a thread may keep the interpreter while another wants it: a worker back from its
#: batch should not wait for the default 5 ms.
SWITCH_INTERVAL_S = 0.0005
EXIT_DRAINED, EXIT_CUT_SHORT = 0, 1


def run_agent(config: AgentConfig) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. Raises StartError."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    tls = ServerTls(config.tls)
    with bind(config.host, config.port) as listener:
        return uvloop.run(_serve(config, tls, listener))


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to the address. Raises PortTaken, or BadConfig where there is no such address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, address = found[0]
        listener = socket.socket(family, kind, number)
    except OSError as error:
        raise BadConfig(f"configuration key 'host' is {host!r}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(f"port {port} of {host} is taken by another process") from error
        raise BadConfig(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


async def _serve(config: AgentConfig, tls: ServerTls, listener: socket.socket) -> int:
    service = AgentService(config, create_engine(config))
    server = _Server(
        uvicorn.Config(
            HttpSide(service),
            http=_protocol_for(service),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
            ssl_context_factory=lambda _config, _default: tls.context,
        )
    )
    stop = _Stop()
    logger.info("agent %s listens on %s port %d", config.agent, *listener.getsockname()[:2])
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    following = asyncio.ensure_future(tls.follow())
    service.start()
    try:
        return await _until_stopped(service, stop, serving)
    finally:
        server.should_exit = True
        await serving
        following.cancel()
        await service.close()


async def _until_stopped(service: AgentService, stop: "_Stop", serving: "asyncio.Future[None]") -> int:
    """Wait for the first of: asked to stop, the model failed, the server failed."""
    asked = asyncio.ensure_future(stop.first.wait())
    any_of: set[asyncio.Future[Any]] = {asked, service.model.fatal, serving}
    await asyncio.wait(any_of, return_when=asyncio.FIRST_COMPLETED)
    if service.model.fatal.done():
        service.model.fatal.result()
    if serving.done():
        raise StartError("the server ended by itself")
    draining = asyncio.ensure_future(service.drain())
    twice = asyncio.ensure_future(stop.second.wait())
    any_of = {draining, twice}
    await asyncio.wait(any_of, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        logger.warning("told twice to stop: %d requests are cut short", service.admission.in_hand)
        draining.cancel()
        return EXIT_CUT_SHORT
    twice.cancel()
    logger.info("drained")
    return EXIT_DRAINED


class _Stop:
    """SIGTERM and SIGINT, also where the process was started with SIGINT ignored."""

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked)

    def _asked(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


class _Server(uvicorn.Server):
    """Leaves the signals to us: an agent drains before its server stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _protocol_for(service: AgentService) -> type[HttpToolsProtocol]:
    """HTTP, unless the client asked for a link when the connection was secured."""

    class AgentProtocol(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
            secured = transport.get_extra_info("ssl_object")
            if secured is None or secured.selected_alpn_protocol() != ALPN_LINK:
                super().connection_made(transport)
                return
            link = LinkProtocol(service, self.connections)
            transport.set_protocol(link)
            link.connection_made(transport)

    return AgentProtocol

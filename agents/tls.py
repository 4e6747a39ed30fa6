"""Mutual TLS: an agent answers only to those who show a client certificate of the appliance's authority.

Its own certificate is replaced while it runs: handshakes begun after that show the new one, and
connections that are open go on.
"""

import asyncio
import logging
import ssl
from pathlib import Path

from agents.config import TlsFiles
from agents.errors import BadConfig
from agents.protocol import ALPN_HTTP, ALPN_LINK

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0

#: Modification time, inode and size of the certificate's file and of the key's.
_Stamps = tuple[tuple[int, int, int], ...]


class ServerTls:
    """What an agent serves with: `context`, whose handshakes show the newest certificate that could be used.

    Raises BadConfig where the files cannot be used at the start. Later they are looked at by `follow`.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = _stamps(files)  # before they are read: a change meanwhile is seen then
        self.context = self._newest = _create_context(files)
        self.context.sni_callback = self._choose
        self._complaint = ""

    async def follow(self) -> None:
        """Look at the files each second, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Take the pair over where its files changed; one that cannot be used is tried again next time.

        The new pair is loaded into a context of its own: whatever is wrong with it, the one in use stays.
        """
        stamps = _stamps(self._files)
        if stamps == self._seen:
            self._complaint = ""
            return
        try:
            self._newest = _create_context(self._files)
        except BadConfig as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.warning("the certificate in use stays: %s", error)
            return
        self._seen, self._complaint = stamps, ""
        logger.info("the certificate was renewed from %s", self._files.certificate)

    def _choose(self, secured: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """In each handshake, whether or not the client names a host."""
        secured.context = self._newest


def _create_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.3, client certificate required and checked for its purpose. Raises BadConfig."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([ALPN_LINK, ALPN_HTTP])
    context.num_tickets = 0  # connections are few and long; resumption would only carry old trust on
    try:
        context.load_verify_locations(files.ca)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(f"tls.ca {str(files.ca)!r} cannot be used: {error}; a PEM file is needed") from error
    try:
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(
            f"tls.certificate {str(files.certificate)!r} and tls.key {str(files.key)!r} cannot be used: "
            f"{error}; PEM files that belong together are needed"
        ) from error
    return context


def _stamps(files: TlsFiles) -> _Stamps:
    """Zeros stand for a file that is not there."""
    return tuple(_stamp(path) for path in (files.certificate, files.key))


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)

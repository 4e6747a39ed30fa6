"""Mutual TLS: an agent answers only to those who show a client certificate of the appliance's authority."""

import ssl

from agents.config import TlsFiles
from agents.errors import BadConfig
from agents.protocol import ALPN_HTTP, ALPN_LINK


def create_server_context(files: TlsFiles) -> ssl.SSLContext:
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

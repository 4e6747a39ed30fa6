"""The appliance's authority, proved by real handshakes between what it issues."""

import datetime as dt
import hashlib
import ssl
import tempfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from provisioning.certificates import ISSUED_DAYS, create_authority, valid_until

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
HOSTS = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(scope="module")
def authority():
    """An authority of this hour."""
    return create_authority(NOW)


def context(side, authority, issued):
    """A TLS context of one side, which demands a certificate of the other."""
    made = ssl.SSLContext(side)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata=authority.certificate_pem.decode())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pair.pem"
        path.write_bytes(issued.certificate_pem + issued.key_pem)
        made.load_cert_chain(path)
    return made


def shake_hands(server, client, host=None):
    """Let two contexts speak in memory; return what each side saw of the other, server first."""
    client.check_hostname = host is not None
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=host),
    ]
    waiting = list(sides)
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return [side.getpeercert() for side in sides]
    raise AssertionError("the handshake did not end")


def test_agent_and_gateway_know_each_other(authority):
    """A server certificate and a client certificate of the same authority make mutual TLS, names checked."""
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue_server("a-1", HOSTS, NOW))
    client = context(ssl.PROTOCOL_TLS_CLIENT, authority, authority.issue_client("gateway-1", NOW))
    for host in HOSTS:
        seen_by_server, seen_by_client = shake_hands(server, client, host)
        assert seen_by_server["subject"] == ((("commonName", "gateway-1"),),)
        assert seen_by_client["subject"] == ((("commonName", "a-1"),),)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(server, client, "127.0.0.2")


def test_an_agent_certificate_opens_no_agent(authority):
    """A server's certificate is refused as a client's."""
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue_server("a-1", HOSTS, NOW))
    wrong = context(ssl.PROTOCOL_TLS_CLIENT, authority, authority.issue_server("a-2", HOSTS, NOW))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"purpose|unsuitable"):
        shake_hands(server, wrong)


def test_a_gateway_certificate_poses_as_no_agent(authority):
    """A client's certificate is refused as a server's."""
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue_client("gateway-1", NOW))
    client = context(ssl.PROTOCOL_TLS_CLIENT, authority, authority.issue_client("gateway-2", NOW))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"purpose|unsuitable"):
        shake_hands(server, client)


def test_another_authority_is_a_stranger(authority):
    """A client of another appliance is refused, though it trusts ours."""
    stranger = create_authority(NOW).issue_client("gateway-1", NOW)
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue_server("a-1", HOSTS, NOW))
    client = context(ssl.PROTOCOL_TLS_CLIENT, authority, stranger)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client)


def test_validity_begins_an_hour_back_and_ends(authority):
    """A certificate is valid from an hour ago for 90 days; its end can be read from the PEM alone."""
    issued = authority.issue_client("gateway-1", NOW)
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    assert certificate.not_valid_before_utc == NOW - dt.timedelta(hours=1)
    assert valid_until(issued.certificate_pem) == NOW + dt.timedelta(days=ISSUED_DAYS)


def test_an_expired_certificate_is_refused(authority):
    """What ended yesterday opens nothing."""
    old = authority.issue_client("gateway-1", NOW - dt.timedelta(days=ISSUED_DAYS + 1))
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue_server("a-1", HOSTS, NOW))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(server, context(ssl.PROTOCOL_TLS_CLIENT, authority, old))


def test_the_digest_is_that_of_the_der(authority):
    """A certificate is named by the SHA-256 of its DER, as a TLS peer sees it."""
    issued = authority.issue_server("a-1", HOSTS, NOW)
    der = ssl.PEM_cert_to_DER_cert(issued.certificate_pem.decode())
    assert issued.sha256 == hashlib.sha256(der).hexdigest()


def test_an_issued_certificate_cannot_issue(authority):
    """Issued certificates are no authorities, and serve one purpose."""
    issued = authority.issue_server("a-1", HOSTS, NOW)
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_keys_do_not_show_in_reprs(authority):
    """Printing what was issued does not print its key."""
    issued = authority.issue_client("gateway-1", NOW)
    assert b"PRIVATE KEY" in issued.key_pem
    assert "PRIVATE KEY" not in repr(issued) + repr(authority)

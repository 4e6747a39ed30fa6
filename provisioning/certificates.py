"""The appliance's own certificate authority, and what it issues to agents and their clients.

An agent's certificate is for servers only, a gateway's for clients only, so no node's
certificate opens an agent. All keys are ECDSA P-256. Certificates are valid from one hour back,
for clocks that are not quite right.
"""

import datetime as dt
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
ISSUED_DAYS = 90
BACKDATE = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its private key, both PEM. `sha256` is the hex digest of its DER."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    sha256: str


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority: its certificate and its private key, both PEM."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    def issue_server(self, name: str, hosts: Sequence[str], now: dt.datetime) -> Issued:
        """A certificate that an agent shows; `hosts` are host names and IP addresses."""
        return self._issue(name, hosts, ExtendedKeyUsageOID.SERVER_AUTH, now)

    def issue_client(self, name: str, now: dt.datetime) -> Issued:
        """A certificate that opens agents: for a gateway, or for the control loop."""
        return self._issue(name, (), ExtendedKeyUsageOID.CLIENT_AUTH, now)

    def _issue(
        self, name: str, hosts: Sequence[str], usage: x509.ObjectIdentifier, now: dt.datetime
    ) -> Issued:
        issuer = x509.load_pem_x509_certificate(self.certificate_pem)
        issuer_key = serialization.load_pem_private_key(self.key_pem, password=None)
        assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(name, key.public_key(), now, ISSUED_DAYS)
            .issuer_name(issuer.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
                critical=False,
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_alternative_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return _seal(builder.sign(issuer_key, hashes.SHA256()), key)


def create_authority(now: dt.datetime) -> Authority:
    """A new authority, valid for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder("Millwright appliance", key.public_key(), now, AUTHORITY_DAYS)
    certificate = (
        builder.issuer_name(x509.Name([_common_name("Millwright appliance")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    issued = _seal(certificate, key)
    return Authority(issued.certificate_pem, issued.key_pem)


def valid_until(certificate_pem: bytes) -> dt.datetime:
    """When a certificate ends, in UTC."""
    return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc


def _builder(
    name: str, public_key: ec.EllipticCurvePublicKey, now: dt.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([_common_name(name)]))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _seal(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return Issued(pem, key_pem, hashlib.sha256(der).hexdigest())


def _common_name(name: str) -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.COMMON_NAME, name[:64])


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

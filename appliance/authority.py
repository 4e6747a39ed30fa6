"""The appliance's certificate authority on disk, and the client certificates of its own processes.

All of it lies in `ca/` of the state directory, readable by its owner alone. No Django.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from appliance.environment import Environment
from appliance.secrets import write_private
from provisioning.certificates import Authority, create_authority, valid_until
from provisioning.file_lock import hold_lock

#: Certificates are renewed once they have no more than this left.
RENEW_WITH_LEFT = dt.timedelta(days=30)
LOCK_TIMEOUT_S = 30.0
#: Who opens agents: the gateways, and the control loop.
CLIENTS = ("gateway", "control")


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """A client's certificate and key, and the authority that agents' certificates come from."""

    ca: Path
    certificate: Path
    key: Path


def ensure_authority(environment: Environment, now: dt.datetime | None = None) -> Authority:
    """The authority; made where there is none yet, and client certificates where missing or soon over.

    Safe to call from several processes at once. Raises OSError where the files cannot be written or stay
    locked, ValueError where they are damaged.
    """
    now = now or dt.datetime.now(dt.UTC)
    folder = environment.ca_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with hold_lock(folder / ".lock", LOCK_TIMEOUT_S):
        authority = _authority(folder, now)
        for name in CLIENTS:
            _keep_pair(folder, name, now, authority)
        return authority


def client_files(environment: Environment, name: str) -> ClientFiles:
    """Where the certificate of a client (`gateway` or `control`) lies."""
    folder = environment.ca_dir
    return ClientFiles(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")


def _authority(folder: Path, now: dt.datetime) -> Authority:
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if not (certificate.exists() and key.exists()):
        made = create_authority(now)
        write_private(key, made.key_pem)
        write_private(certificate, made.certificate_pem)  # last: with it the pair is complete
    return Authority(certificate.read_bytes(), key.read_bytes())


def _keep_pair(folder: Path, name: str, now: dt.datetime, authority: Authority) -> None:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    if _fits(certificate, key, authority) and valid_until(certificate.read_bytes()) - now > RENEW_WITH_LEFT:
        return
    issued = authority.issue_client(name, now)
    write_private(key, issued.key_pem)
    write_private(certificate, issued.certificate_pem)


def _fits(certificate: Path, key: Path, authority: Authority) -> bool:
    """Whether both are there, belong together and come from the authority.

    A crash between the two writes leaves a stranger, an authority that was made anew two of them.
    """
    try:
        shown = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        shown.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate_pem))
    except (OSError, ValueError, InvalidSignature):
        return False
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    public = shown.public_key().public_bytes(encoding, form)
    return public == private.public_key().public_bytes(encoding, form)

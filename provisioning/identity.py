"""The appliance's own SSH key: made once, its public half installed on each node."""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from provisioning.transport import Secret


@dataclass(frozen=True, slots=True)
class Identity:
    """An Ed25519 key: the private half in OpenSSH's format, the public as one `ssh-ed25519 AAAA...` line."""

    private: Secret
    public: str


def create_identity() -> Identity:
    """A new key."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return Identity(Secret(private.decode()), public.decode())


def load_identity(private: str) -> Identity:
    """The key again from its private half. Raises ValueError where it is none."""
    key = load_ssh_private_key(private.encode(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("the appliance's SSH key is not an Ed25519 key")  # noqa: TRY004 - a value read from a file
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return Identity(Secret(private), public.decode())

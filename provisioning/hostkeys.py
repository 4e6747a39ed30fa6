"""Host keys: how they are named for people, and how one is pinned. Pure.

A pin is the SHA-256 fingerprint as OpenSSH prints it (`SHA256:` and 43 characters), with the key's type
where it is known; `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows it on the box.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from provisioning.errors import HostKeyChanged, NodeError

#: Preferred first. The negotiated names of RSA signatures stand for one type of key.
KEY_TYPES: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)
_FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host key as it was shown or pinned; `kind` is '' where only the fingerprint is known."""

    fingerprint: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.kind})" if self.kind else self.fingerprint


def fingerprint(key_blob: bytes) -> str:
    """The fingerprint of a public key in SSH's wire format."""
    digest = base64.b64encode(hashlib.sha256(key_blob).digest()).decode()
    return f"SHA256:{digest.rstrip('=')}"


def parse_pin(text: str) -> HostKey:
    """A fingerprint that a person gave. Raises NodeError naming what is accepted."""
    stripped = text.strip().rstrip("=")
    if not _FINGERPRINT.fullmatch(stripped):
        raise NodeError(
            f"host key {text[:80]!r} is no fingerprint",
            remedy="give it as ssh-keygen -lf prints it: SHA256: and 43 characters",
        )
    return HostKey(stripped)


def check_pin(pinned: HostKey, shown: HostKey, address: str) -> None:
    """Raise HostKeyChanged where the box shows another key than the pinned one."""
    if pinned.fingerprint != shown.fingerprint:
        raise HostKeyChanged(f"HOST KEY CHANGED: {address} shows {shown}, pinned is {pinned}")


def kinds_to_try(pinned: HostKey | None) -> tuple[tuple[str, ...], ...]:
    """In which orders to ask for key types: a pin of unknown type may be any of those a box has."""
    if pinned is None:
        return (KEY_TYPES,)
    if pinned.kind in KEY_TYPES:
        return ((pinned.kind, *(kind for kind in KEY_TYPES if kind != pinned.kind)),)
    return (KEY_TYPES, *((kind,) for kind in KEY_TYPES[1:]))

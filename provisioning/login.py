"""Where to log in, as whom, and with what."""

from dataclasses import dataclass
from pathlib import Path

from provisioning.transport import Secret


@dataclass(frozen=True, slots=True)
class Password:
    """Log in with a password."""

    password: Secret


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Log in with a private key in a file."""

    path: Path
    passphrase: Secret | None = None


@dataclass(frozen=True, slots=True)
class KeyText:
    """Log in with a private key that is at hand: the appliance's own."""

    private: Secret


@dataclass(frozen=True, slots=True)
class SshAgent:
    """Log in with any key of the ssh-agent that `SSH_AUTH_SOCK` names."""


Way = Password | KeyFile | KeyText | SshAgent


@dataclass(frozen=True, slots=True)
class Address:
    """Where and as whom."""

    host: str
    port: int = 22
    user: str = "root"

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"

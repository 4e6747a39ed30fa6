"""What the operator says in environment variables, checked once at the start. Standard library only.

Every process reads the same `Environment`: the gateway without Django, the rest through
`appliance.settings`.
"""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class BadEnvironment(Exception):
    """A variable with a value that cannot be used; the message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The outside settings of one appliance. Paths are absolute."""

    home: Path
    bind: str
    control_port: int
    gateway_port: int
    hosts: tuple[str, ...]
    tls_certificate: Path | None
    tls_key: Path | None

    @property
    def scheme(self) -> str:
        """`https` where a certificate is given, else `http`."""
        return "https" if self.tls_certificate else "http"

    @property
    def reachable_host(self) -> str:
        """The host to name in addresses shown to people on this machine."""
        return "127.0.0.1" if self.bind in ("0.0.0.0", "::") else self.bind  # noqa: S104 - compared, not bound

    def create_directories(self) -> None:
        """Make the state directory and its parts, for the owner alone. Raises BadEnvironment."""
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            inner = (self.run_dir, self.ca_dir, self.models_dir, self.agents_dir, self.logs_dir)
            for part in (*inner, self.power_dir):
                part.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise BadEnvironment(
                f"APPLIANCE_HOME={str(self.home)!r} cannot be used ({error.strerror}): "
                "a directory that can be written is accepted"
            ) from error

    # Where things lie in the state directory. One place, so that nothing is spelt twice.
    @property
    def routes_file(self) -> Path:
        """The route snapshot."""
        return self.home / "routes.json"

    @property
    def run_dir(self) -> Path:
        """Sockets, locks and process records."""
        return self.home / "run"

    @property
    def ca_dir(self) -> Path:
        """ca.pem, ca.key, and the client certificates gateway.pem/.key and control.pem/.key."""
        return self.home / "ca"

    @property
    def power_dir(self) -> Path:
        """Programs of the operator's own that switch machines on; see `provisioning.power`."""
        return self.home / "power"

    @property
    def models_dir(self) -> Path:
        """The content-addressed model store."""
        return self.home / "models"

    @property
    def agents_dir(self) -> Path:
        """One directory per local agent: config.json, cert.pem, key.pem."""
        return self.home / "agents"

    @property
    def logs_dir(self) -> Path:
        """Logs of the appliance's processes; those of local agents in `agents/` below."""
        return self.home / "logs"


def read_environment(variables: Mapping[str, str] | None = None) -> Environment:
    """Read and check the variables (default: the process's own).

    Raises BadEnvironment naming the variable, its value and what is accepted.
    """
    given = os.environ if variables is None else variables
    for name in ("DATABASE_URL", "REDIS_URL"):
        if given.get(name):
            raise BadEnvironment(
                f"{name} is set, but this version keeps everything in APPLIANCE_HOME: unset {name}"
            )
    certificate, key = _file(given, "TLS_CERT"), _file(given, "TLS_KEY")
    if (certificate is None) != (key is None):
        raise BadEnvironment("TLS_CERT and TLS_KEY go together: set both or none")
    bind = _address(given, "APPLIANCE_BIND", "127.0.0.1")
    if not _is_loopback(bind) and certificate is None and given.get("APPLIANCE_PLAIN_HTTP") != "1":
        raise BadEnvironment(
            f"APPLIANCE_BIND={bind!r} opens the appliance to the network without TLS: "
            "set TLS_CERT and TLS_KEY, or APPLIANCE_PLAIN_HTTP=1 to accept plain HTTP"
        )
    control_port = _port(given, "APPLIANCE_PORT", 8000)
    gateway_port = _port(given, "GATEWAY_PORT", 8080)
    if control_port == gateway_port:
        raise BadEnvironment(
            f"APPLIANCE_PORT and GATEWAY_PORT are both {control_port}: two different ports are needed"
        )
    hosts = tuple(host.strip() for host in given.get("APPLIANCE_HOSTS", "").split(",") if host.strip())
    home = Path(given.get("APPLIANCE_HOME") or "var").expanduser().absolute()
    if home.exists() and not home.is_dir():
        raise BadEnvironment(f"APPLIANCE_HOME={str(home)!r} is not a directory")
    return Environment(home, bind, control_port, gateway_port, hosts, certificate, key)


def _port(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise BadEnvironment(f"{name}={text!r} is no port: a number from 1 to 65535 is accepted")
    return int(text)


def _address(given: Mapping[str, str], name: str, default: str) -> str:
    text = given.get(name) or default
    if text == "localhost":
        return "127.0.0.1"
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise BadEnvironment(
            f"{name}={text!r} is no IP address: for example 127.0.0.1, ::1 or 0.0.0.0 is accepted"
        ) from None
    return text


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _file(given: Mapping[str, str], name: str) -> Path | None:
    text = given.get(name)
    if not text:
        return None
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise BadEnvironment(f"{name}={text!r} is no file: the path of a PEM file is accepted")
    return path

"""Switches machines on from afar: Wake-on-LAN, or a program of the operator's own, as for a BMC.

What a node's row says is a text: `wol:52:54:00:12:34:56` or `exec:NAME`. Sending is quick for Wake-on-LAN and
bounded for programs; both block, so call it from a thread of its own.
"""

import contextlib
import fcntl
import ipaddress
import os
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from provisioning.errors import ProvisioningError

#: "Discard" and its old neighbour: where machines that sleep listen by custom.
WOL_PORTS: Final = (9, 7)
#: A datagram may be lost, and a network card may be slow to listen.
ROUNDS: Final = 3
_APART_S: Final = 0.3
PROGRAM_LIMIT_S: Final = 30.0
_MAX_SAID: Final = 300
#: A program's file in the operator's directory; no path.
PROGRAM_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B
#: Networks of two have no broadcast address.
_POINT_TO_POINT: Final = 31

#: Given an address as text, the machine's own networks' broadcast addresses to send to.
Broadcasts = Callable[[str], list[str]]


class PowerError(ProvisioningError):
    """A machine could not be sent for."""

    code = "power"


class PowerSwitch(Protocol):
    """Anything that can switch a machine on."""

    def wake(self, address: str) -> None:
        """Send for the machine that was last at this address or name; returns before it is up.

        Raises PowerError. Sending for one that is up is harmless.
        """


def open_switch(power: str, programs: Path) -> PowerSwitch:
    """The switch that a node's `power` names; `programs` holds the operator's own. Raises PowerError."""
    kind, _, rest = power.partition(":")
    if kind == "wol":
        return WakeOnLan(rest)
    if kind == "exec":
        return Program(programs, rest)
    raise PowerError(
        "it is not known how to switch it on",
        permanent=True,
        remedy="set the node's power: wol:MAC or exec:NAME",
    )


def why_unusable(power: str, programs: Path) -> str:
    """Why a machine could not be sent for by this `power`, in one line; '' where it can be tried."""
    try:
        switch = open_switch(power, programs)
        if isinstance(switch, Program):
            switch.find()
    except PowerError as error:
        return error.line
    return ""


def magic_packet(mac: str) -> bytes:
    """Six bytes of ones, then the address sixteen times: 102 bytes. Raises ValueError for no MAC address."""
    address = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    if len(address) != 6:
        raise ValueError(f"{mac!r} is no MAC address")
    return b"\xff" * 6 + address * 16


@dataclass(frozen=True)
class WakeOnLan:
    """Magic packets over UDP, to the broadcast address of the machine's network and to its last address."""

    mac: str
    broadcasts: "Broadcasts | None" = None
    rounds: int = ROUNDS

    def wake(self, address: str) -> None:
        """As `PowerSwitch.wake`; nobody answers, so all that can be told is whether it was sent."""
        packet = magic_packet(self.mac)
        last = resolve(address)
        targets = [*(self.broadcasts or own_broadcasts)(last), *([last] if last else [])]
        sent = 0
        why = ""
        for number in range(self.rounds):
            if number:
                time.sleep(_APART_S)
            for target in dict.fromkeys(targets):
                for port in WOL_PORTS:
                    try:
                        _send(packet, target, port)
                        sent += 1
                    except OSError as error:
                        why = f"{target}: {error.strerror or error}"
        if not sent:
            raise PowerError(f"no magic packet could be sent to {self.mac}: {why or 'no network'}")


@dataclass(frozen=True)
class Program:
    """An executable of the operator's own: `NAME wake ADDRESS`, without a shell, within a time limit."""

    folder: Path
    name: str
    limit_s: float = PROGRAM_LIMIT_S

    def find(self) -> Path:
        """The executable. Raises PowerError where there is none."""
        path = self.folder / self.name
        if not PROGRAM_NAME.fullmatch(self.name) or not path.is_file() or not os.access(path, os.X_OK):
            raise PowerError(
                f"there is no program {self.name!r} in {self.folder}",
                permanent=True, remedy="put an executable of that name there, or set another power",
            )  # fmt: skip
        return path

    def wake(self, address: str) -> None:
        """As `PowerSwitch.wake`: exit code 0 means that it was sent for."""
        path = self.find()
        try:
            done = subprocess.run(  # noqa: S603 - put there by the operator; arguments are checked, no shell
                [str(path), "wake", address], capture_output=True, stdin=subprocess.DEVNULL, check=False,
                timeout=self.limit_s, cwd=self.folder, env={"PATH": os.environ.get("PATH", os.defpath)},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PowerError(f"{self.name} wake did not end within {self.limit_s:g} s") from None
        except OSError as error:
            raise PowerError(f"{self.name} could not be run: {error.strerror}") from None
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())[-_MAX_SAID:]
            raise PowerError(f"{self.name} wake ended with {done.returncode}: {said or 'it said nothing'}")


def resolve(address: str) -> str:
    """An IP address of a name or address; '' where it has none."""
    try:
        return str(socket.getaddrinfo(address, None, type=socket.SOCK_DGRAM)[0][4][0])
    except OSError:
        return ""


def own_broadcasts(last: str) -> list[str]:
    """The broadcast address of the network of ours that this IP address is in.

    Where it is in none, or not known, the limited broadcast and those of all our networks.
    """
    networks = list(_networks())
    with contextlib.suppress(ValueError):
        found = [str(broadcast) for network, broadcast in networks if ipaddress.ip_address(last) in network]
        if found:
            return found
    return ["255.255.255.255", *(str(broadcast) for _, broadcast in networks)]


def _networks() -> Iterator[tuple[ipaddress.IPv4Network, ipaddress.IPv4Address]]:
    """Each IPv4 network that a device of this machine is in, with its broadcast address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                address, mask = (_ask_device(asking, name, what) for what in (_SIOCGIFADDR, _SIOCGIFNETMASK))
            except OSError:  # it has no IPv4 address
                continue
            network = ipaddress.IPv4Network(f"{address}/{mask}", strict=False)
            if not network.is_loopback and network.prefixlen < _POINT_TO_POINT:
                yield network, network.broadcast_address


def _ask_device(asking: socket.socket, name: str, what: int) -> str:
    answer = fcntl.ioctl(asking.fileno(), what, struct.pack("256s", name.encode()[:15]))
    return socket.inet_ntoa(answer[20:24])


def _send(packet: bytes, target: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as line:
        if family == socket.AF_INET:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        line.sendto(packet, (target, port))

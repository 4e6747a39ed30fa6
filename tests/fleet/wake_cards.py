"""Network cards that wake their host: they listen on the bridge for magic packets while it is off."""

import socket
import threading

from fleet_network import command, remove_link

ALL_FRAMES = 0x0003  # ETH_P_ALL
PORTS = (7, 9)
BODY = slice(42, 42 + 102)  # after Ethernet, IPv4 and UDP headers


class WakeCards:
    """Boots each host for the magic packet with its own address; `heard` keeps whom packets were for.

    They have one port of the bridge in common, which is up when all hosts are off, as a switch's is. A host
    in `deaf` stays off. Use as a context.
    """

    def __init__(self, bridge, hosts):
        self.heard, self.deaf = [], set()
        self._hosts = {mac_of(host): host for host in hosts}
        self._port, card = f"vb-{bridge}-port", f"vb-{bridge}-card"
        command("ip", "link", "add", self._port, "type", "veth", "peer", "name", card)
        command("ip", "link", "set", self._port, "master", bridge, "up")
        command("ip", "link", "set", card, "up")
        self._line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_FRAMES))
        self._line.bind((card, 0))
        self._line.settimeout(0.2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self._line.close()
        remove_link(self._port)

    def _listen(self):
        while not self._over.is_set():
            try:
                frame = self._line.recv(2048)
            except TimeoutError:
                continue
            host = self._hosts.get(addressee(frame))
            if host is None:
                continue
            self.heard.append(host.name)
            if host.name not in self.deaf and not host.is_on:
                host.start(wait=False)


def addressee(frame):
    """The address that a magic packet wakes; None where the frame is none."""
    is_udp = frame[12:14] == b"\x08\x00" and frame[14] == 0x45 and frame[23] == 17
    if not is_udp or int.from_bytes(frame[36:38], "big") not in PORTS:
        return None
    body = frame[BODY]
    mac = body[6:12]
    return mac.hex(":") if body == b"\xff" * 6 + mac * 16 else None


def mac_of(host):
    """The address of a running host's card."""
    return host.run("cat /sys/class/net/host0/address").strip()

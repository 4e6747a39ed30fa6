"""Delays and loses the packets of one host: a program that runs in the host's network namespace.

    slow_link.py DELAY_MS LOSS_PERCENT

The kernel hands each packet's number here (netfilter queue QUEUE) and keeps the packet until it is told what
to do, so no traffic-shaping module is needed, which small kernels lack. It says `ready` once the queue is its
own, and ends when its input does.
"""

import collections
import random
import select
import socket
import struct
import sys
import time

QUEUE = 77
NETLINK_NETFILTER = 12
PACKET, VERDICT, CONFIG = (
    3 << 8 | number for number in (0, 1, 2)
)  # messages of the queue subsystem, which is 3
ATTRIBUTE_PACKET, ATTRIBUTE_VERDICT = 1, 2
ATTRIBUTE_COMMAND, ATTRIBUTE_PARAMETERS, ATTRIBUTE_LENGTH, ATTRIBUTE_MASK, ATTRIBUTE_FLAGS = 1, 2, 3, 4, 5
BIND, COPY_METADATA, WHOLE_SEGMENTS = 1, 1, 1 << 2
REQUEST, ACKNOWLEDGE, ERROR = 1, 4, 2
RECEIVE_BUFFER_FORCE = 33
DROP, ACCEPT = 0, 1


def attribute(kind: int, content: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", len(content) + 4, kind) + content + b"\0" * (-len(content) % 4)


def message(kind: int, attributes: bytes, flags: int = REQUEST) -> bytes:
    """One netlink message to the queue."""
    body = struct.pack("!BBH", socket.AF_UNSPEC, 0, QUEUE) + attributes
    return struct.pack("=IHHII", len(body) + 16, kind, flags, 0, 0) + body


def verdict(number: int, what: int) -> bytes:
    """Let packet `number` pass, or lose it."""
    return message(VERDICT, attribute(ATTRIBUTE_VERDICT, struct.pack("!II", what, number)))


def packet_numbers(received: bytes):
    """The numbers of the packets announced in one datagram."""
    while len(received) >= 16:
        length, kind = struct.unpack_from("=IH", received)
        if kind == PACKET:
            rest = received[20:length]
            while len(rest) >= 4:
                size, name = struct.unpack_from("=HH", rest)
                if name == ATTRIBUTE_PACKET:
                    yield struct.unpack_from("!I", rest, 4)[0]
                rest = rest[size + (-size % 4) :]
        received = received[length + (-length % 4) :]


def open_queue() -> socket.socket:
    """A socket that the kernel sends this namespace's packets to; OSError where it refuses."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    link.setsockopt(socket.SOL_SOCKET, RECEIVE_BUFFER_FORCE, 8 << 20)
    flags = struct.pack("!I", WHOLE_SEGMENTS)
    for attributes in (
        attribute(ATTRIBUTE_COMMAND, struct.pack("!BBH", BIND, 0, socket.AF_INET)),
        attribute(ATTRIBUTE_PARAMETERS, struct.pack("!IB", 0, COPY_METADATA)),
        attribute(ATTRIBUTE_LENGTH, struct.pack("!I", 20_000)),
        attribute(ATTRIBUTE_MASK, flags) + attribute(ATTRIBUTE_FLAGS, flags),
    ):
        link.send(message(CONFIG, attributes, REQUEST | ACKNOWLEDGE))
        answer = link.recv(4096)
        kind, code = struct.unpack_from("=H", answer, 4)[0], struct.unpack_from("=i", answer, 16)[0]
        if kind == ERROR and code:
            raise OSError(-code, "the kernel gives no packet queue")
    return link


def main(delay_s: float, loss: float) -> None:
    """Hold each packet for `delay_s`, lose a share `loss` of them; until standard input ends."""
    link = open_queue()
    print("ready", flush=True)
    waiting: collections.deque[tuple[float, int]] = collections.deque()
    while True:
        until = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([link, sys.stdin], [], [], until)
        if sys.stdin in readable and not sys.stdin.read():
            return
        if link in readable:
            try:
                received = link.recv(1 << 16)
            except OSError:  # more came than the buffer holds: those are lost, as on a full line
                continue
            for number in packet_numbers(received):
                if random.random() < loss:
                    link.send(verdict(number, DROP))
                else:
                    waiting.append((time.monotonic() + delay_s, number))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            link.send(verdict(waiting.popleft()[1], ACCEPT))


if __name__ == "__main__":
    main(float(sys.argv[1]) / 1000, float(sys.argv[2]) / 100)

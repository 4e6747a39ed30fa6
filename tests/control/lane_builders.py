"""Nodes that are only played, for lanes: stewards that answer from memory, and break on order."""

import json
import threading
import time

from appliance.control.lane_pace import Pace
from appliance.control.node_lane import NodeLane
from appliance.control.node_seen import NodeAccess
from provisioning.errors import ConnectionLost
from provisioning.identity import create_identity
from provisioning.transport import Result

STEWARD = "5e" * 32
RELEASE = "4e" * 32
IDENTITY = create_identity()
#: Everything a hundred times as fast.
QUICK = Pace(
    rest_s=0.03, lively_s=0.01, lively_for_s=0.05, hello_s=0.1, facts_s=0.3, facts_again_s=0.05,
    retry_s=0.01, short_break_s=60.0, slower_retry_s=0.02, longest_retry_s=0.1,
)  # fmt: skip


def access(name="edge-1", **given):
    whole = {
        "host": "192.0.2.7", "port": 22, "account": "millwright", "host_key": "SHA256:" + "A" * 43,
        "host_key_kind": "ssh-ed25519", "release_sha256": RELEASE,
    }  # fmt: skip
    return NodeAccess(name=name, **{**whole, **given})


def unit(state="active", pid=100, code=0, status=0, **given):
    """An agent of an answer to `status`."""
    shown = {
        "ActiveState": state,
        "MainPID": str(pid),
        "ExecMainCode": str(code),
        "ExecMainStatus": str(status),
    }
    return {
        "unit": shown,
        "written": {"release": RELEASE, "model": None},
        "sha256": {"ca.pem": "ca" * 32},
        "certificate_sha256": "ce" * 32,
        **given,
    }


class PlayedNode:
    """A box with a steward. `asked` are the questions in order; a verb in `refuses` raises that error.

    Where `gate` is cleared every question waits; `down` is what connecting raises. `refused` are answers to
    `bring` by agent.
    """

    def __init__(self):
        self.asked, self.given, self.connects, self.closes = [], [], 0, 0
        self.agents, self.refuses, self.refused, self.log_lines = {}, {}, {}, ["last words"]
        self.facts = {"python": "3.11.2", "disk_bytes": 10**11, "disk_free_bytes": 10**10}
        self.boot_id, self.steward, self.ahead_s = "boot-1", STEWARD, 0.0
        self.down, self.gate, self.progress = None, threading.Event(), 0
        self.gate.set()
        self.pace = lambda: None

    def connect(self, address, host_key, way):
        self.connects += 1
        if self.down is not None:
            raise self.down
        return PlayedCarrier(self)

    def count(self, verb):
        return self.asked.count(verb)


class PlayedCarrier:
    """A connection to it; `close` ends what waits."""

    def __init__(self, node):
        self._node = node
        self._closed = False

    def close(self):
        self._closed = True
        self._node.closes += 1

    def run(self, command, *, stdin=(), limits=None, on_output=None):
        node = self._node
        head, *_body = list(stdin)
        asked = json.loads(head)
        verb = asked.pop("verb")
        node.asked.append(verb)
        node.given.append((verb, asked))
        while not node.gate.wait(0.005):
            if self._closed:
                raise ConnectionLost("the connection was cut")
        if self._closed or node.down is not None:
            self._closed = True
            raise node.down or ConnectionLost("the connection was cut")
        if verb in node.refuses:
            raise node.refuses[verb]
        if verb == "receive":
            for number in range(node.progress):
                node.pace()
                on_output(json.dumps({"progress": {"have": number}}).encode() + b"\n")
        on_output(json.dumps({"ok": True, **self._answer(verb, asked)}).encode() + b"\n")
        return Result(0, b"", b"")

    def _answer(self, verb, asked):
        node = self._node
        if verb == "hello":
            return {"boot_id": node.boot_id, "steward": node.steward, "time": time.time() + node.ahead_s}
        if verb == "facts":
            return node.facts
        if verb == "status":
            return {"agents": dict(node.agents)}
        if verb == "logs":
            return {"lines": node.log_lines}
        if verb == "missing":
            return {"models": asked["models"], "releases": [], "blobs": dict.fromkeys(asked["blobs"], 0)}
        if verb == "start":
            node.agents[asked["agent"]] = unit()
        return self._bring(asked) if verb == "bring" else {}

    def _bring(self, asked):
        names = [one["agent"] for one in asked["agents"]]
        told = {name: self._node.refused.get(name, {"changed": []}) for name in names}
        self._node.agents.update({name: unit() for name in names if "error" not in told[name]})
        return {"agents": told}


def make_lane(node, **given):
    return NodeLane(
        given.pop("access", access()), IDENTITY, connect=node.connect, steward_sha256=STEWARD,
        **{"pace": QUICK, **given},
    )  # fmt: skip


def wait(condition, timeout_s=10.0):
    """Wait until it holds; its value."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.002)
    raise AssertionError("it did not come true in time")

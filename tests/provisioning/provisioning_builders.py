"""Builders for the tests of provisioning: a tiny program in an agent's place."""

import time
from pathlib import Path

from provisioning.local import LocalNode

#: Prints how it was started as one JSON line, then waits; `mode` in its config.json says how it ends.
PROGRAM = """
import json, os, signal, sys
config = json.load(open(sys.argv[-1]))
mode = config.get("mode")
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "graceful":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
descriptors = []
for number in range(256):
    try:
        os.fstat(number)
        descriptors.append(number)
    except OSError:
        pass
umask = os.umask(0)
os.umask(umask)
print(json.dumps({
    "descriptors": descriptors, "umask": umask, "session": os.getsid(0), "pid": os.getpid(),
    "environment": dict(os.environ), "cwd": os.getcwd(),
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "blocked": sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())),
}), flush=True)
if mode == "fail":
    sys.exit("the model did not load")
while True:
    signal.pause()
"""


def wait_until(condition, timeout_s=10.0):
    """Poll until the condition gives something true, and return that."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("the condition did not come true in time")


def install(node: LocalNode, agent: str, **config) -> None:
    node.install(agent, {"agent": agent, **config}, b"certificate", b"key", b"ca")


def write_program(folder: Path) -> Path:
    path = folder / "program.py"
    path.write_text(PROGRAM)
    return path

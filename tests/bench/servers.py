"""What all measured servers have in common: an address, a check that they do the same work, load."""

import array
import base64
import contextlib
import http.client
import json
import math
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.bench.processes import BenchError

ROOT = Path(__file__).parents[2]
#: Below it lie the ports that services are known by.
FIRST_PORT = 12_000
#: Lower means a server computes something else; int8 kernels and padding move the fourth digit.
SAME_COSINE = 0.995


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `key_file` holds its API key, None where it asks for none."""

    name: str
    url: str
    key_file: Path | None = None

    @property
    def port(self) -> int:
        """The port of the address."""
        return int(self.url.split(":")[2].split("/")[0])


class Startable(Protocol):
    """Something that can be measured. `settings` is a line for the table's foot."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> str: ...

    def running(self) -> contextlib.AbstractContextManager[Server]:
        """Run it until the context ends. Raises BenchError."""
        ...


def find_free_port() -> int:
    """A port that was free a moment ago, on the loopback.

    None of those that the system gives to outgoing connections: one of them would take it while its server
    is away.
    """
    given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    below = range(FIRST_PORT, int(given[0]))
    for port in [*random.sample(below, min(len(below), 100)), 0]:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return int(listener.getsockname()[1])
    raise BenchError("no port is free on 127.0.0.1")


def ask(server: Server, body: bytes, timeout_s: float = 10.0) -> bytes:
    """One request. Raises OSError or BenchError where it is not answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout_s)
    headers = {"Content-Type": "application/json"}
    if server.key_file is not None:
        headers["Authorization"] = f"Bearer {server.key_file.read_text()}"
    with contextlib.closing(connection):
        connection.request("POST", "/v1/embeddings", body, headers)
        answer = connection.getresponse()
        content = answer.read()
    if answer.status != 200:
        raise BenchError(f"answered {answer.status}: {content[:200].decode(errors='replace')}")
    return content


def check_work(server: Server, bodies: Path, reference: Sequence[float], timeout_s: float = 60.0) -> None:
    """Wait for the first answer and compare it with the engine's own. Raises BenchError."""
    body = bodies.read_bytes().splitlines()[0]
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            answer = json.loads(ask(server, body))
            break
        except (OSError, http.client.HTTPException, BenchError) as error:
            if time.monotonic() > deadline:
                raise BenchError(f"no answer within {timeout_s:.0f} s: {error}") from error
            time.sleep(0.1)
    vector = array.array("f", base64.b64decode(answer["data"][0]["embedding"]))
    if len(vector) != len(reference):
        raise BenchError(f"answers {len(vector)} dimensions, the model has {len(reference)}")
    cosine = sum(a * b for a, b in zip(vector, reference, strict=True)) / (
        math.hypot(*vector) * math.hypot(*reference)
    )
    if cosine < SAME_COSINE:
        raise BenchError(f"does other work: cosine {cosine:.4f} to the engine's own vector")


def run_load(server: Server, bodies: Path, connections: int, seconds: float) -> dict[str, Any]:
    """Closed loop from a process of its own; the load generator's summary."""
    command = [
        sys.executable, "-m", "appliance.load_test", "--url", server.url, "--body-file", bodies,
        "--connections", connections, "--duration", seconds, "--json", "--quiet",
    ]  # fmt: skip
    if server.key_file is not None:
        command += ["--key-file", server.key_file]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT, env=dict(os.environ), capture_output=True, timeout=seconds + 90, check=False,
        start_new_session=True,
    )  # fmt: skip
    if done.returncode not in (0, 1) or not done.stdout:
        raise BenchError(f"load generator: {done.stderr.decode().strip()[-300:]}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary

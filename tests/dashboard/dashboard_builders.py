"""Reports and a scripted gateway for the dashboard's tests."""

import hashlib
import json
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from appliance.inner_socket import bind_inner
from appliance.policies.report import (
    LATENCY_BUCKETS_S,
    AgentReport,
    DeploymentReport,
    GatewayReport,
    Histogram,
    bucket_index,
)
from appliance.policies.snapshot import Generation, RouteSnapshot
from appliance.publish import read_generation

NO_TIMES = Histogram((0,) * (len(LATENCY_BUCKETS_S) + 1), 0.0)


def times(counts: dict[float, int]) -> Histogram:
    """A histogram of so many durations (in seconds)."""
    buckets = [0] * (len(LATENCY_BUCKETS_S) + 1)
    for seconds, count in counts.items():
        buckets[bucket_index(seconds)] += count
    return Histogram(tuple(buckets), sum(seconds * count for seconds, count in counts.items()))


def deployment_report(name="minilm", **fields) -> DeploymentReport:
    """Counters, all zero except those given."""
    empty = DeploymentReport(name, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0, NO_TIMES, NO_TIMES)
    return replace(empty, **fields)


def agent_report(agent="minilm-aaaaaa", **fields) -> AgentReport:
    """A ready agent on `local` that has spoken just now."""
    said = AgentReport(
        agent, "minilm", "local", "ready", 0, 0, 0, 0, 0, load_age_s=0.2, executing=0, waiting=0,
        tokens_total=0, cpu_percent=50.0, node_cpu_percent=40.0, rss_bytes=120_000_000,
        node_available_bytes=6_000_000_000,
    )  # fmt: skip
    return replace(said, **fields)


def gateway_report(
    at, *, deployments=(), agents=(), started_at=0.0, gateway="gateway-1", generation=None
) -> GatewayReport:
    """One report at an instant."""
    generation = generation or Generation("epoch", 1)
    return GatewayReport(gateway, 1, started_at, at, generation, tuple(deployments), tuple(agents))


class ScriptedGateway:
    """An inner listener whose counters grow steadily: 40 requests/s, answered in 6 to 20 ms."""

    def __init__(self, run_dir: Path, agents=("minilm-aaaaaa",), *, period_s: float = 0.5, rps: int = 40):
        self.started_at = time.time() - 30
        self.agents, self.period_s, self.rps = agents, period_s, rps
        self._run_dir = run_dir
        self._ended = threading.Event()
        self._listener = bind_inner(run_dir, "gateway-1")
        self._listener.settimeout(0.1)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def report(self) -> GatewayReport:
        """What it says at this instant."""
        now = time.time()
        count = int((now - self.started_at) * self.rps)
        moving = int(now * 2) % 7
        deployment = deployment_report(
            accepted=count + moving, answered=count, in_flight=moving, tokens=count * 12,
            duration=times({0.007: count * 9 // 10, 0.018: count - count * 9 // 10}),
            cache_hits=count // 3, cache_shared=count // 50, cache_misses=count // 2, cache_bytes=18_400_000,
        )  # fmt: skip
        agents = [
            agent_report(name, in_flight=moving, answered=count, cpu_percent=60.0 + moving)
            for name in self.agents
        ]
        return gateway_report(
            now, deployments=[deployment], agents=agents, started_at=self.started_at,
            generation=read_generation(self._run_dir.parent / "routes.json"),
        )  # fmt: skip

    def close(self) -> None:
        """End it, its socket file included."""
        self._ended.set()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()
        (self._run_dir / "gateway-1.sock").unlink(missing_ok=True)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._speak, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _speak(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(2)
            while True:
                try:
                    connection.sendall(msgspec.json.encode(self.report()) + b"\n")
                except OSError:
                    return
                if self._ended.wait(self.period_s):
                    return


class ScriptedApi:
    """The REST side of a gateway: checks keys against the published routes, embeds by counting letters."""

    def __init__(self, routes_file: Path, port: int = 0):
        self.refusal = None  # (status, code, message) to answer with instead
        self.requests = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                scripted.requests.append((self.path, dict(self.headers), body))
                status, answer = scripted._answer(routes_file, self.headers["Authorization"], body)
                raw = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.send_header("openai-processing-ms", "3")
                self.send_header("x-served-by", "local/minilm-aaaaaa")
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def _answer(self, routes_file, authorization, body):
        if self.refusal:
            status, code, message = self.refusal
            return status, {"error": {"code": code, "message": message}}
        digest = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).hexdigest()
        routes = msgspec.json.decode(routes_file.read_bytes(), type=RouteSnapshot)
        if digest not in {key.sha256 for key in routes.keys}:
            return 401, {"error": {"code": "invalid_api_key", "message": "unknown key"}}
        entries = [
            {
                "index": index,
                "embedding": [float(text.count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"],
            }
            for index, text in enumerate(body["input"])
        ]
        tokens = sum(len(text.split()) + 2 for text in body["input"])
        return 200, {"data": entries[::-1], "usage": {"prompt_tokens": tokens}}

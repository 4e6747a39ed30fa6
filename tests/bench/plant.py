"""A data plane without a control plane: one gateway and its agents, real processes and mutual TLS.

What the control plane would do is done here: certificates, configurations and the route snapshot.
"""

import contextlib
import datetime as dt
import http.client
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from appliance.authority import ClientFiles, client_files, ensure_authority
from appliance.environment import Environment, read_environment
from appliance.policies.snapshot import AgentRoute, DeploymentRoute, Generation, KeyRoute, RouteSnapshot
from tests.bench.inputs import MODEL_NAME
from tests.bench.plant_process import PlantProcess
from tests.bench.processes import BenchError
from tests.bench.servers import Server, find_free_port

HOST = "127.0.0.1"
_READY_AGENTS = re.compile(r"millwright_agents\{[^,]*,ready\}")
READY_S = 60.0
OUTCOMES = ("answered", "failed", "shed", "cancelled")
#: Settings of the appliance that whoever runs the benchmark may have for other purposes.
_FOREIGN = ("TLS_CERT", "TLS_KEY", "DATABASE_URL", "REDIS_URL", "APPLIANCE_BIND", "APPLIANCE_HOSTS")


@dataclass(frozen=True, slots=True)
class AgentKind:
    """What an agent is: with `model_dir` that model, else an engine of fixed service time.

    The defaults make one that executes one request at a time. `admits` None is what the control
    plane would set: a batch for each worker and one more.
    """

    service_ms: float = 10.0
    model_dir: Path | None = None
    workers: int = 1
    batch_size: int = 1
    threads: int = 1
    admits: int | None = None
    #: Of the fake engine: the service time is of a batch, or of each sequence in it.
    per: str = "batch"
    #: Another deployment than the plant's own; its route is added with `add_deployment`.
    deployment: str | None = None

    @property
    def slots(self) -> int:
        """How many requests it executes at once."""
        return self.workers * self.batch_size

    @property
    def capacity_rps(self) -> float:
        """Requests of one sequence per second, of the engine with a fixed service time."""
        assert self.model_dir is None, "a model's capacity is measured, not known"
        return self.slots * 1000 / (self.service_ms * (self.batch_size if self.per == "sequence" else 1))


class PlantAgent(PlantProcess):
    """One agent with its route; started again it has the same port and certificate."""

    def __init__(
        self, name: str, kind: AgentKind, folder: Path, route: AgentRoute, env: dict[str, str]
    ) -> None:
        command = [sys.executable, "-m", "agents", "--config", str(folder / "config.json")]
        super().__init__(name, command, env, folder / "agent.log")
        self.kind = kind
        self.route = route

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.route.host}:{self.route.port}"


@dataclass(slots=True)
class _Published:
    """What the route snapshot says besides the agents."""

    deployment: DeploymentRoute
    others: dict[str, DeploymentRoute] = field(default_factory=dict)
    keys: list[KeyRoute] = field(default_factory=list)
    number: int = 0


class Plant:
    """A gateway and agents in a state directory of their own; a context, which ends all it started.

    `deployment` changes fields of the deployment's route. `gateway=False` starts the agents only, for
    another balancer to stand before them.
    """

    def __init__(
        self,
        scratch: Path,
        agents: Sequence[AgentKind],
        *,
        deployment: dict[str, Any] | None = None,
        gateway: bool = True,
        ready_s: float = READY_S,
    ) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._scratch = scratch
        self._ready_s = ready_s
        self._wants_gateway = gateway
        self._env = {name: value for name, value in os.environ.items() if name not in _FOREIGN} | {
            "APPLIANCE_HOME": str(scratch / "home"),
            "APPLIANCE_PORT": str(find_free_port()),
            "GATEWAY_PORT": str(find_free_port()),
        }
        self._kinds = list(agents)
        route = DeploymentRoute(
            name=MODEL_NAME, model=MODEL_NAME, task="embed", revision="plant-1",
            created=1_700_000_000, max_agents=max(1, len(agents)),
        )  # fmt: skip
        self._published = _Published(replace(route, **(deployment or {})))
        self._environment: Environment = read_environment(self._env)
        command = [sys.executable, "-m", "appliance.gateway"]
        self.gateway = PlantProcess("gateway", command, self._env, scratch / "gateway.log")
        self.agents: list[PlantAgent] = []
        self.key_file = scratch / "key"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where to POST embeddings to."""
        return f"http://{HOST}:{self._environment.gateway_port}/v1/embeddings"

    @property
    def gateway_pid(self) -> int:
        """The gateway's process."""
        return self.gateway.pid

    @property
    def capacity_rps(self) -> float:
        """What its agents can do together."""
        return sum(agent.kind.capacity_rps for agent in self.agents)

    @property
    def server(self) -> Server:
        """As the load generator takes it."""
        return Server("millwright", self.url, self.key_file)

    @property
    def client(self) -> ClientFiles:
        """The certificate that opens the agents, for another balancer."""
        return client_files(self._environment, "gateway")

    def add_agent(self, kind: AgentKind, *, publish: bool = True) -> PlantAgent:
        """Start one more agent, and publish it; does not wait until it is ready."""
        agent = self._make_agent(kind)
        self.agents.append(agent)
        agent.start()
        if publish:
            self.write_routes()
        return agent

    def remove_agent(self, agent: PlantAgent) -> None:
        """Take an agent out of the snapshot and tell it to drain."""
        self.agents.remove(agent)
        self.write_routes()
        agent.end()

    def add_deployment(self, name: str, **changes: Any) -> None:
        """One more deployment like the plant's own; publish it with `write_routes`."""
        told = self._published
        told.others[name] = replace(told.deployment, name=name, **changes)

    def remove_deployment(self, name: str) -> DeploymentRoute:
        """Take it out of the next snapshot."""
        return self._published.others.pop(name)

    def restore_deployment(self, route: DeploymentRoute) -> None:
        """Put into the next snapshot what was taken out."""
        self._published.others[route.name] = route

    def add_key(self, name: str, **changes: Any) -> Path:
        """A new API key; its text is in the file that is returned. Publish it with `write_routes`."""
        text = f"mw-{secrets.token_urlsafe(24)}"
        path = self._scratch / f"key-{name}"
        path.touch(0o600)
        path.write_text(text)
        digest = sha256(text.encode()).hexdigest()
        self._published.keys.append(KeyRoute(digest, name, changes.pop("team", "bench"), **changes))
        return path

    def write_routes(self, agents: Sequence[AgentRoute] | None = None, **deployment: Any) -> Generation:
        """Publish all agents, or those given; `deployment` changes fields of the deployment for good."""
        told = self._published
        told.number += 1
        told.deployment = replace(told.deployment, **deployment)
        snapshot = RouteSnapshot(
            Generation("plant", told.number),
            time.time(),
            (told.deployment, *told.others.values()),
            tuple(agent.route for agent in self.agents) if agents is None else tuple(agents),
            tuple(told.keys),
        )
        path = self._environment.routes_file
        fresh = path.with_suffix(".new")
        fresh.touch(0o600)
        fresh.write_bytes(msgspec.json.encode(snapshot))
        fresh.replace(path)
        return snapshot.generation

    def scrape(self) -> dict[str, float]:
        """Samples of the gateway by name and label values: `name{a,b}`. Raises OSError."""
        connection = http.client.HTTPConnection(HOST, self._environment.gateway_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(sample.labels.values())
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def check_balance(self) -> dict[str, float]:
        """A scrape in which accepted = finished + in flight + queued. Raises BenchError where it is not."""
        samples = self.scrape()
        finished = sum(samples[f"millwright_finished_total{{{outcome}}}"] for outcome in OUTCOMES)
        in_flight, queued = samples["millwright_in_flight"], samples["millwright_queue_depth"]
        accepted = samples["millwright_accepted_total"]
        if accepted != finished + in_flight + queued or min(in_flight, queued) < 0:
            raise BenchError(
                f"{accepted:.0f} accepted, but {finished:.0f} finished, {in_flight:.0f} in flight "
                f"and {queued:.0f} queued"
            )
        return samples

    def check_conservation(self, *, idle_within_s: float = 10.0) -> dict[str, float]:
        """The scrape in which nothing is under way any more, all that was accepted having ended once.

        Raises BenchError where a scrape does not balance, or requests stay.
        """
        deadline = time.monotonic() + idle_within_s
        while True:
            samples = self.check_balance()
            held = samples["millwright_in_flight"] + samples["millwright_queue_depth"]
            if held == 0:
                return samples
            if time.monotonic() > deadline:
                raise BenchError(f"{held:.0f} requests are still held after {idle_within_s:g} s")
            time.sleep(0.05)

    def count_ready(self) -> int:
        """Agents that the gateway sees as ready, of all deployments; 0 where it does not answer."""
        try:
            samples = self.scrape()
            return int(sum(n for name, n in samples.items() if _READY_AGENTS.fullmatch(name)))
        except (OSError, http.client.HTTPException):
            return 0

    def wait_ready(self, count: int | None = None, timeout_s: float | None = None) -> None:
        """Wait until so many agents (default: all) are ready. Raises BenchError."""
        wanted = len(self.agents) if count is None else count
        if self._wants_gateway:
            self._wait(f"{wanted} agents ready", lambda: self.count_ready() >= wanted, timeout_s)
        else:
            self._wait("agents listening", self._all_listen, timeout_s)

    def close(self) -> None:
        """End everything, whatever fails or interrupts in between."""
        with contextlib.ExitStack() as stack:
            for process in (*self.agents, self.gateway):
                stack.callback(process.end)
            for process in (*self.agents, self.gateway):
                process.cont()
                process.terminate()

    def _start(self) -> None:
        self._environment.create_directories()
        self._authority = ensure_authority(self._environment)
        self.key_file = self.add_key("bench")
        for kind in self._kinds:
            self.add_agent(kind, publish=False)
        self.write_routes()
        if self._wants_gateway:
            self.gateway.start()
        self.wait_ready()

    def _make_agent(self, kind: AgentKind) -> PlantAgent:
        name = f"agent-{len(self.agents) + 1}-{secrets.token_hex(3)}"
        folder = self._environment.agents_dir / name
        folder.mkdir()
        issued = self._authority.issue_server(name, [HOST], dt.datetime.now(dt.UTC))
        key = folder / "key.pem"
        key.touch(0o600)
        key.write_bytes(issued.key_pem)
        (folder / "cert.pem").write_bytes(issued.certificate_pem)
        route = AgentRoute(
            id=name, deployment=kind.deployment or self._published.deployment.name,
            node=f"node-{name}", host=HOST,
            port=find_free_port(), certificates=(issued.sha256,), wanted="warm",
            slots=kind.slots, ahead=kind.batch_size,
        )  # fmt: skip
        (folder / "config.json").write_text(json.dumps(self._build_config(kind, route, folder)))
        return PlantAgent(name, kind, folder, route, self._env)

    def _build_config(self, kind: AgentKind, route: AgentRoute, folder: Path) -> dict[str, object]:
        told: dict[str, object] = {
            "agent": route.id,
            "deployment": route.deployment,
            "revision": self._published.deployment.revision,
            "task": "embed",
            "host": route.host,
            "port": route.port,
            "tls": {
                "ca": str(self.client.ca),
                "certificate": str(folder / "cert.pem"),
                "key": str(folder / "key.pem"),
            },
            "workers": kind.workers,
            "threads": kind.threads,
            "batch_size": kind.batch_size,
            "admits": kind.admits or kind.slots + kind.batch_size,
        }
        if kind.model_dir is not None:
            return told | {"engine": "ctranslate2", "model_dir": str(kind.model_dir)}
        return told | {
            "engine": "fake",
            "fake_service_ms": kind.service_ms,
            "fake_service_per": kind.per,
        }

    def _all_listen(self) -> bool:
        return all(" listens on " in agent.log.read_text(errors="replace") for agent in self.agents)

    def _wait(self, what: str, is_so: Callable[[], bool], timeout_s: float | None) -> None:
        deadline = time.monotonic() + (timeout_s or self._ready_s)
        while not is_so():
            for process in (self.gateway, *self.agents) if self._wants_gateway else self.agents:
                if not process.running and timeout_s is None:
                    raise BenchError(f"{process.name} ended before {what}: {process.last_line()}")
            if time.monotonic() > deadline:
                raise BenchError(f"not {what} within {timeout_s or self._ready_s:.0f} s")
            time.sleep(0.02)

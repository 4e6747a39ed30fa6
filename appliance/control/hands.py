"""What the loop does to a node: install, start, stop, forget. I/O only, decided elsewhere.

Each node has one lane: what is done to it happens in order, in a thread of its own and within a time
limit, so that a node that hangs delays no other and no tick for long.
"""

import datetime as dt
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from appliance.environment import Environment
from appliance.models import Agent
from provisioning.certificates import Authority, Issued
from provisioning.errors import ProvisioningError

LANE_S = 5.0
_PORT_TRIES = 50

log = logging.getLogger(__name__)
T = TypeVar("T")


class NodeProcess(Protocol):
    """A living agent process."""

    @property
    def pid(self) -> int: ...


class NodePort(Protocol):
    """What a node can be asked to do; `provisioning.local.LocalNode` is one."""

    def install(
        self, agent: str, config: Mapping[str, object], certificate_pem: bytes, key_pem: bytes, ca_pem: bytes
    ) -> None: ...
    def start(self, agent: str) -> NodeProcess: ...
    def running(self) -> Mapping[str, NodeProcess]: ...
    def stop(self, agent: str, *, kill: bool = False) -> None: ...
    def forget(self, agent: str) -> None: ...
    def exit_code(self, agent: str) -> int | None: ...
    def last_log_lines(self, agent: str, count: int = 20) -> list[str]: ...


class LaneBusy(Exception):
    """The node has not finished what it was asked before, or took too long."""


#: What a node may answer with instead of doing what it was asked.
NODE_ERRORS = (OSError, ProvisioningError, LaneBusy)


class Lane:
    """One thread that does a node's work in order."""

    def __init__(self, name: str, limit_s: float = LANE_S) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"lane-{name}")
        self._limit_s = limit_s
        self._last: Future[Any] | None = None

    def run(self, work: Callable[[], T]) -> T:
        """Do it and wait for the answer. Raises LaneBusy after the limit, or while older work hangs."""
        if self._last is not None and not self._last.done():
            raise LaneBusy("the node is still busy with earlier work")
        future = self._pool.submit(work)
        self._last = future
        try:
            return future.result(self._limit_s)
        except FutureTimeout:
            raise LaneBusy(f"the node did not answer within {self._limit_s:g} s") from None

    def close(self) -> None:
        """Take no more work; what hangs is left to the process's end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """All that an agent is installed from."""

    id: str
    deployment: str
    revision: str
    task: str
    digest: str
    host: str
    port: int
    profile: Mapping[str, int]
    engine: str = "ctranslate2"
    settings: Mapping[str, object] | None = None

    def config(self, models_dir: Path) -> dict[str, object]:
        """The agent's configuration document, without the `tls` part that the node fills in."""
        workers, batch_size = self.profile["workers"], self.profile["batch_size"]
        document: dict[str, object] = {
            "agent": self.id,
            "deployment": self.deployment,
            "revision": self.revision,
            "task": self.task,
            "engine": self.engine,
            "model_dir": str(models_dir / self.digest),
            "host": self.host,
            "port": self.port,
            "workers": workers,
            "threads": self.profile["threads"],
            "batch_size": batch_size,
            "admits": workers * batch_size + batch_size,
        }
        return document | dict(self.settings or {})


def describe(agent: Agent) -> AgentSpec:
    """What an agent's files are made from. Its deployment, revision and model must be loaded."""
    model = agent.revision.model
    return AgentSpec(
        id=agent.id,
        deployment=agent.deployment.name,
        revision=str(agent.revision),
        task=model.task,
        digest=agent.revision.digest,
        host=agent.host,
        port=agent.port,
        profile=agent.profile,
        engine=str(model.manifest.get("engine") or "ctranslate2"),
        settings=agent.revision.settings,
    )


class NodeHands(Protocol):
    """Acts on one node: at once on node `local`, through a lane's queue on all others.

    Every call raises one of `NODE_ERRORS` where it fails.
    """

    def running(self) -> Mapping[str, int]:
        """Process ids of the agents that really run."""

    def in_hand(self) -> frozenset[str]:
        """Agents that something queued or under way is about to bring or change."""

    def take_failures(self) -> Mapping[str, str]:
        """Agents of which that failed since the last call, and why."""

    def exit_of(self, agent: str) -> tuple[int | None, tuple[str, ...]]:
        """The exit code of an agent that ended, where it can be known, and its last log lines."""

    def new_port(self, host: str, taken: frozenset[int]) -> int:
        """A port that is promised to no other agent."""

    def install(self, spec: "AgentSpec", now: dt.datetime) -> Issued:
        """Put an agent's files in place, with a new certificate."""

    def is_installed(self, agent: str, certificates: Sequence[str]) -> bool:
        """Whether its files are in place, with one of those certificates of our present authority."""

    def installed_certificate(self, agent: str) -> str:
        """SHA-256 (DER) of the certificate that lies there, '' where it is not known."""

    def renew(self, spec: "AgentSpec", issued: Issued) -> None:
        """Put another certificate in place of an agent's present one; a running agent takes it up."""

    def start(self, agent: str) -> int | None:
        """Start an installed agent; its process id where it is known at once."""

    def stop(self, agent: str, *, kill: bool = False) -> None:
        """Ask it to end, or end it."""

    def forget(self, agent: str) -> None:
        """Remove the files of an agent that has ended."""

    def sweep(self, known: frozenset[str]) -> None:
        """Remove what is left of agents that have neither a row nor a process."""


class Hands:
    """Acts on node `local`, through its lane; a call raises one of `NODE_ERRORS` where it fails."""

    def __init__(
        self,
        environment: Environment,
        node: NodePort,
        authority: Authority,
        *,
        find_port: Callable[[str], int],
        lane: Lane | None = None,
    ) -> None:
        self._environment = environment
        self._node = node
        self._authority = authority
        self._find_port = find_port
        self._lane = lane or Lane("local")

    def running(self) -> dict[str, int]:
        """Process ids of the agents that really run."""
        return self._lane.run(lambda: {name: seen.pid for name, seen in self._node.running().items()})

    def exit_of(self, agent: str) -> tuple[int | None, tuple[str, ...]]:
        """The exit code of an agent that ended, where it can be known, and its last log lines."""
        node = self._node
        return self._lane.run(lambda: (node.exit_code(agent), tuple(node.last_log_lines(agent, 20))))

    def new_port(self, host: str, taken: frozenset[int]) -> int:
        """A port that is free, and promised to no other agent. Raises OSError where none is found."""
        for _ in range(_PORT_TRIES):
            port = self._find_port(host)
            if port not in taken:
                return port
        raise OSError(f"no free port was found on {host}")

    def install(self, spec: AgentSpec, now: dt.datetime) -> Issued:
        """Put an agent's files in place, with a new certificate."""
        issued = self._authority.issue_server(spec.id, (spec.host, "localhost"), now)
        self.renew(spec, issued)
        return issued

    def renew(self, spec: AgentSpec, issued: Issued) -> None:
        """Write an agent's files with this certificate; one that runs takes it up by itself."""
        self._lane.run(
            lambda: self._node.install(
                spec.id,
                spec.config(self._environment.models_dir),
                issued.certificate_pem,
                issued.key_pem,
                self._authority.certificate_pem,
            )
        )

    def is_installed(self, agent: str, certificates: Sequence[str]) -> bool:
        """Whether its files are in place, with one of those certificates of our present authority."""
        folder = self._environment.agents_dir / agent
        certificate = self._certificate(agent)
        try:
            trusted = (folder / "ca.pem").read_bytes()
        except OSError:
            return False
        return (
            certificate is not None
            and trusted == self._authority.certificate_pem
            and (folder / "config.json").is_file()
            and _digest(certificate) in certificates
        )

    def installed_certificate(self, agent: str) -> str:
        """SHA-256 (DER) of the certificate that lies there, '' where there is none."""
        certificate = self._certificate(agent)
        return "" if certificate is None else _digest(certificate)

    def in_hand(self) -> frozenset[str]:
        """None: what is asked is done when the call returns."""
        return frozenset()

    def take_failures(self) -> Mapping[str, str]:
        """None: a call that fails raises."""
        return {}

    def _certificate(self, agent: str) -> x509.Certificate | None:
        try:
            return x509.load_pem_x509_certificate(
                (self._environment.agents_dir / agent / "cert.pem").read_bytes()
            )
        except (OSError, ValueError):
            return None

    def start(self, agent: str) -> int:
        """Start an installed agent; its process id."""
        return self._lane.run(lambda: self._node.start(agent).pid)

    def stop(self, agent: str, *, kill: bool = False) -> None:
        """Ask it to end, or end it."""
        self._lane.run(lambda: self._node.stop(agent, kill=kill))

    def forget(self, agent: str) -> None:
        """Remove the files of an agent that has ended."""
        self._lane.run(lambda: self._node.forget(agent))

    def sweep(self, known: frozenset[str]) -> None:
        """Remove what is left of agents that have neither a row nor a process."""
        folder = self._environment.agents_dir
        left = {path.name for path in folder.iterdir() if path.is_dir()} - known if folder.is_dir() else set()
        for agent in sorted(left - set(self.running())):
            log.info("removing what is left of agent %s", agent)
            self.forget(agent)


def _digest(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()

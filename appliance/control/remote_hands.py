"""What the loop does to a node over SSH: as `hands.Hands`, but nothing here waits for the node.

What is asked is answered from the newest observation of its lane; what is to be done is queued there.
"""

import datetime as dt
import hashlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from appliance.control.hands import AgentSpec
from appliance.control.lane_jobs import Work
from appliance.control.node_lane import NodeLane
from appliance.control.node_seen import JobResult, Observation
from appliance.control.transfers import shown_transfer
from appliance.environment import Environment
from provisioning.certificates import Authority, Issued
from provisioning.delivery import deliver_model
from provisioning.errors import ProvisioningError
from provisioning.remote import AgentFiles, RemoteNode
from provisioning.steward_client import StewardClient

#: An observation that is older tells nothing of now.
FRESH_S: Final = 10.0
PORTS: Final = range(9200, 10000)
#: An agent may use its model twice, and so much besides.
BASE_MEMORY_BYTES: Final = 512 * 1024 * 1024
#: So many agents are brought in one question.
TOGETHER: Final = 16
_MAX_KEPT: Final = 1000

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Bringing:
    """An agent on its way to the node. `error` is why it was not brought, once it is `done`."""

    spec: AgentSpec
    issued: Issued
    done: bool = False
    error: ProvisioningError | None = None


class RemoteHands:
    """Acts on one remote node; keep one for as long as its lane. May be used from any thread."""

    def __init__(
        self,
        environment: Environment,
        lane: NodeLane,
        authority: Authority,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._environment = environment
        self._lane = lane
        self._authority = authority
        self._clock = clock
        self._ca_sha256 = hashlib.sha256(authority.certificate_pem).hexdigest()
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[AgentSpec, Issued]] = {}
        self._bringing: dict[str, _Bringing] = {}
        self._failures: dict[str, str] = {}

    def running(self) -> dict[str, int]:
        """Process ids of the agents that really run. Raises OSError where the node was not seen lately."""
        return {name: agent.pid for name, agent in self._seen().agents.items() if agent.is_living}

    def in_hand(self) -> frozenset[str]:
        """Agents that are being brought, renewed or removed: what is seen of them is no verdict yet."""
        return self._lane.in_hand()

    def take_failures(self) -> dict[str, str]:
        """What went wrong with agents since the last call, in one line each."""
        with self._lock:
            failures, self._failures = self._failures, {}
        return failures

    def exit_of(self, agent: str) -> tuple[int | None, tuple[str, ...]]:
        """The exit code of an agent that ended, where it is known, and its last log lines."""
        seen = self._seen().agents.get(agent)
        return (None if seen is None else seen.exit_code), self._lane.last_lines(agent)

    def new_port(self, host: str, taken: frozenset[int]) -> int:
        """A port that is promised to no other agent of the node. Raises OSError where none is left.

        Any of those: the node may use one itself, and then the next try finds another.
        """
        free = [port for port in PORTS if port not in taken]
        if not free:
            raise OSError(f"no port from {PORTS[0]} to {PORTS[-1]} is left on {host}")
        return secrets.choice(free)

    def install(self, spec: AgentSpec, now: dt.datetime) -> Issued:
        """Issue a certificate for an agent; with `start` it is brought to the node."""
        issued = self._authority.issue_server(spec.id, (spec.host, "localhost"), now)
        with self._lock:
            self._kept.pop(spec.id, None)
            while len(self._kept) >= _MAX_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[spec.id] = (spec, issued)
        return issued

    def is_installed(self, agent: str, certificates: Sequence[str]) -> bool:
        """Whether its files are there: our authority's, the node's release, one of these certificates.

        What waits for `start` counts. Raises OSError where the node was not seen lately.
        """
        with self._lock:
            kept = self._kept.get(agent)
        if kept is not None and kept[1].sha256 in certificates:
            return True
        seen = self._seen().agents.get(agent)
        return (
            seen is not None
            and seen.certificate_sha256 in certificates
            and seen.ca_sha256 == self._ca_sha256
            and seen.release == self._lane.access.release_sha256
        )

    def installed_certificate(self, agent: str) -> str:
        """SHA-256 (DER) of the certificate that lies there, '' where it is not known.

        Raises OSError where the node was not seen lately.
        """
        seen = self._seen().agents.get(agent)
        return "" if seen is None else seen.certificate_sha256

    def start(self, agent: str) -> int | None:
        """Have it brought, where it was installed anew, and started; its process id is not known yet."""
        with self._lock:
            kept = self._kept.get(agent)
        if kept is None:
            self._submit(f"agent:{agent}", lambda _node, client: _start(client, agent), agent, short=True)
            return None
        one = _Bringing(*kept)
        if self._submit(f"agent:{agent}", partial(self._bring, one), agent, short=False):
            with self._lock:
                if not one.done:
                    self._bringing[agent] = one
                if self._kept.get(agent) is kept:
                    del self._kept[agent]
        return None

    def _bring(self, one: _Bringing, node: RemoteNode, client: StewardClient) -> None:
        """Bring an agent, and with it those that wait for nothing but that: each question costs the node."""
        try:
            if not one.done:
                self._deliver(client, one.spec)
                together = [one, *self._alike(one)]
                outcomes = node.bring([self._files(each.spec, each.issued) for each in together])
                for each in together:
                    each.error, each.done = outcomes[each.spec.id], True
        finally:
            with self._lock:
                if self._bringing.get(one.spec.id) is one:
                    del self._bringing[one.spec.id]
        if one.error is not None:
            raise one.error

    def _alike(self, one: _Bringing) -> list[_Bringing]:
        """Others of the same model whose turn may be now."""
        with self._lock:
            others = [each for each in self._bringing.values() if each is not one and not each.done]
        alike = [
            each
            for each in others
            if (each.spec.engine, each.spec.digest) == (one.spec.engine, one.spec.digest)
            and self._lane.is_first(f"agent:{each.spec.id}")
        ]
        return alike[: TOGETHER - 1]

    def renew(self, spec: AgentSpec, issued: Issued) -> None:
        """Have an agent's files written with this certificate; it takes them by itself."""
        self._submit(
            f"renew:{spec.id}", lambda node, _client: self._write(node, spec, issued), spec.id, short=True
        )

    def stop(self, agent: str, *, kill: bool = False) -> None:
        """Have it end, or ended; what was to bring it is broken off."""
        self._drop(agent)
        self._lane.submit(
            f"kill:{agent}" if kill else f"stop:{agent}",
            lambda node, _client: node.stop(agent, kill=kill),
            about=agent,
            short=True,
            on_end=_log_failure,
        )

    def forget(self, agent: str) -> None:
        """Have what is left of an agent removed."""
        with self._lock:
            self._kept.pop(agent, None)
        self._drop(agent)
        self._lane.submit(
            f"forget:{agent}",
            lambda node, _client: node.forget(agent),
            agent=agent,
            short=True,
            yields=True,
            on_end=_log_failure,
        )

    def sweep(self, known: frozenset[str]) -> None:
        """Remove what is left of agents that have neither a row nor a process."""
        with self._lock:
            for agent in set(self._kept) - known:
                del self._kept[agent]
        for agent, seen in self._seen().agents.items():
            if agent not in known and not seen.is_living and agent not in self.in_hand():
                log.info("removing what is left of agent %s on node %s", agent, self._lane.access.name)
                self.forget(agent)

    # Inside.

    def _drop(self, agent: str) -> None:
        self._lane.drop(f"agent:{agent}")
        with self._lock:
            self._bringing.pop(agent, None)

    def _seen(self) -> Observation:
        seen = self._lane.observation()
        if seen is None or self._clock() - seen.at > FRESH_S:
            raise OSError(f"node {self._lane.access.name} was not seen within {FRESH_S:g} s")
        return seen

    def _submit(self, name: str, work: Work, agent: str, *, short: bool) -> bool:
        def ended(result: JobResult) -> None:
            if result.error:
                with self._lock:
                    self._failures[agent] = result.error

        return self._lane.submit(name, work, agent=agent, short=short, on_end=ended)

    def _deliver(self, client: StewardClient, spec: AgentSpec) -> None:
        if spec.engine == "fake":
            return
        model_dir = self._environment.models_dir / spec.digest
        try:
            with shown_transfer(self._lane.access.name, "model", spec.deployment, spec.digest) as row:
                deliver_model(client, model_dir, row.tell)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProvisioningError(
                f"model {spec.digest[:12]} cannot be read on the appliance: {error}",
                remedy="import the model again",
            ) from error

    def _write(self, node: RemoteNode, spec: AgentSpec, issued: Issued) -> None:
        files = self._files(spec, issued)
        node.install(
            files.agent,
            files.config,
            files.certificate_pem,
            files.key_pem,
            files.ca_pem,
            memory_max_bytes=files.memory_max_bytes,
            cpus=files.cpus,
        )

    def _files(self, spec: AgentSpec, issued: Issued) -> AgentFiles:
        models_dir = self._environment.models_dir
        config = spec.config(models_dir) | {"host": "::" if ":" in spec.host else "0.0.0.0"}  # noqa: S104 - agents are for gateways elsewhere, and take none without a certificate
        return AgentFiles(
            spec.id,
            config,
            issued.certificate_pem,
            issued.key_pem,
            self._authority.certificate_pem,
            memory_max_bytes=2 * _model_bytes(models_dir / spec.digest, spec.engine) + BASE_MEMORY_BYTES,
            cpus=self._cpus(),
        )

    def _cpus(self) -> list[int] | None:
        """One hardware thread of each core where cores have several; None where binding does not help.

        Two engine threads on one core share its units for nothing: int8 products fill them alone.
        """
        seen = self._lane.observation()
        threads = None if seen is None or seen.hardware is None else seen.hardware.get("cores_first_threads")
        return [int(one) for one in threads] if isinstance(threads, list) and threads else None


def _start(client: StewardClient, agent: str) -> None:
    client.ask("start", agent=agent)


def _model_bytes(model_dir: Path, engine: str) -> int:
    """The size of a model's files. Raises ProvisioningError where the appliance has no such model."""
    if engine == "fake":
        return 0
    try:
        manifest = json.loads((model_dir / "manifest.json").read_bytes())
        return sum(int(entry["bytes"]) for entry in manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProvisioningError(
            f"model {model_dir.name[:12]} cannot be read on the appliance: {error}",
            remedy="import the model again",
        ) from error


def _log_failure(result: JobResult) -> None:
    if result.error:
        log.warning("%s failed: %s", result.name, result.error)

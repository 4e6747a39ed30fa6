"""An enrolled node, reached through its steward: agents as `local.LocalNode` has them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from provisioning.errors import NodeError, ProvisioningError, StewardError
from provisioning.steward_client import StewardClient, refusal_of

#: What the node fills in by itself.
_OWN: Final = ("agent", "model_dir", "tls")
#: Unit states of an agent that is not at rest.
LIVING: Final = ("active", "activating", "deactivating", "reloading")
_MAX_LINES: Final = 1000


@dataclass(frozen=True, slots=True)
class RemoteAgent:
    """A living agent; `pid` is the node's number for it."""

    agent: str
    pid: int


@dataclass(frozen=True, slots=True)
class AgentFiles:
    """What an agent is written from. The last part of `model_dir` in `config` is the model's digest there.

    It may use `memory_max_bytes`, or what the node's agents may where that is None, and the processors
    `cpus` (numbers as the system counts them), or all where that is None.
    """

    agent: str
    config: Mapping[str, object]
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    ca_pem: bytes
    memory_max_bytes: int | None = None
    cpus: Sequence[int] | None = None


class RemoteNode:
    """A node with a steward. `release` is what agents that are installed from now on run.

    Every method is one question over the carrier, and raises ProvisioningError where it fails.
    """

    def __init__(self, client: StewardClient, release: str, memory_max_bytes: int | None = None) -> None:
        self._client = client
        self._release = release
        self._memory_max_bytes = memory_max_bytes

    def install(
        self,
        agent: str,
        config: Mapping[str, object],
        certificate_pem: bytes,
        key_pem: bytes,
        ca_pem: bytes,
        *,
        memory_max_bytes: int | None = None,
        cpus: Sequence[int] | None = None,
    ) -> None:
        """Write the agent's files and unit, as `AgentFiles` says."""
        self._write(AgentFiles(agent, config, certificate_pem, key_pem, ca_pem, memory_max_bytes, cpus))

    def bring(self, agents: Sequence[AgentFiles]) -> dict[str, NodeError | None]:
        """Write these and start them, now and at boot: of each why it was not, None where it was.

        A steward from before that verb is asked one thing after the other.
        """
        try:
            answer = self._client.ask("bring", agents=[self._asked(files) for files in agents])
        except StewardError as error:
            if error.reason != "bad_request":
                raise
            return {files.agent: self._bring_alone(files) for files in agents}
        told = answer.get("agents")
        return _outcomes(told if isinstance(told, dict) else {}, (files.agent for files in agents))

    def _bring_alone(self, files: AgentFiles) -> NodeError | None:
        try:
            self._write(files)
            self._client.ask("start", agent=files.agent)
        except StewardError as error:
            return error
        return None

    def _write(self, files: AgentFiles) -> None:
        self._client.ask("write_agent", **self._asked(files))

    def _asked(self, files: AgentFiles) -> dict[str, Any]:
        model_dir = files.config.get("model_dir")
        fake = files.config.get("engine") == "fake"
        return {
            "agent": files.agent,
            "release": self._release,
            "model": None if fake or model_dir is None else PurePosixPath(str(model_dir)).name,
            "config": {key: value for key, value in files.config.items() if key not in _OWN},
            "certificate": files.certificate_pem.decode(),
            "key": files.key_pem.decode(),
            "ca": files.ca_pem.decode(),
            "memory_max_bytes": files.memory_max_bytes or self._memory_max_bytes,
            "cpus": None if files.cpus is None else list(files.cpus),
        }

    def start(self, agent: str) -> RemoteAgent:
        """Start it, now and at boot. Its pid is 0 until the system has made the process."""
        self._client.ask("start", agent=agent)
        return self.running().get(agent, RemoteAgent(agent, 0))

    def running(self) -> dict[str, RemoteAgent]:
        """Agents whose unit is not at rest."""
        shown = {name: told["unit"] for name, told in self.status().items()}
        return {
            name: RemoteAgent(name, number_of(unit.get("MainPID")))
            for name, unit in shown.items()
            if unit.get("ActiveState") in LIVING
        }

    def stop(self, agent: str, *, kill: bool = False) -> None:
        """Have it drain and end, or end it, and not start at boot; returns at once."""
        self._client.ask("stop", agent=agent, kill=kill)

    def forget(self, agent: str) -> None:
        """Remove the unit and the files of an agent that has ended."""
        self._client.ask("forget", agent=agent)

    def exit_code(self, agent: str) -> int | None:
        """How it ended: its exit code, or minus the signal.

        None while it runs, where it never ran, and where it ended as it should after a stop: systemd forgets
        a stopped unit that did not fail.
        """
        return exit_code_of(self.status().get(agent, {}).get("unit", {}))

    def last_log_lines(self, agent: str, count: int = 20) -> list[str]:
        """The end of its journal, untrusted text; nothing where the node does not tell."""
        try:
            told = self._client.ask("logs", agent=agent, lines=max(1, min(count, _MAX_LINES)))
        except ProvisioningError:
            return []
        return [str(line) for line in told.get("lines", ())]

    def set_limits(self, agent: str, memory_max_bytes: int | None, cpus: list[int] | None = None) -> None:
        """Change what it may use, also while it runs."""
        self._client.ask("set_limits", agent=agent, memory_max_bytes=memory_max_bytes, cpus=cpus)

    def status(self) -> dict[str, Any]:
        """Every agent's unit as systemd shows it, and what it was written from."""
        agents = self._client.ask("status").get("agents")
        return agents if isinstance(agents, dict) else {}


def _outcomes(told: Mapping[str, Any], agents: Iterable[str]) -> dict[str, NodeError | None]:
    """Of each agent what a steward's `bring` answered; one it says nothing of was not brought."""
    outcomes: dict[str, NodeError | None] = {}
    for agent in agents:
        one = told.get(agent)
        if isinstance(one, dict):
            outcomes[agent] = refusal_of(one["error"]) if "error" in one else None
        else:
            outcomes[agent] = StewardError("the steward did not say what became of it", reason="bad_answer")
    return outcomes


def exit_code_of(unit: Mapping[str, Any]) -> int | None:
    """How an agent ended, of its unit as systemd shows it; see `RemoteNode.exit_code`."""
    kind = number_of(unit.get("ExecMainCode"))
    if unit.get("ActiveState") in LIVING or kind == 0:
        return None
    status = number_of(unit.get("ExecMainStatus"))
    return status if kind == 1 else -status  # CLD_EXITED is 1; others are signals


def number_of(text: object) -> int:
    """A whole number as systemd shows it; 0 where it is none."""
    digits = str(text)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else 0

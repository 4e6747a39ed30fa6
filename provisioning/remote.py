"""An enrolled node, reached through its steward: agents as `local.LocalNode` has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from provisioning.errors import ProvisioningError
from provisioning.steward_client import StewardClient

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
        """Write the agent's files and unit. The last part of `model_dir` is the model's digest there.

        It may use `memory_max_bytes`, or what the node's agents may where that is None, and the processors
        `cpus` (numbers as the system counts them), or all where that is None.
        """
        model_dir = config.get("model_dir")
        fake = config.get("engine") == "fake"
        self._client.ask(
            "write_agent",
            agent=agent,
            release=self._release,
            model=None if fake or model_dir is None else PurePosixPath(str(model_dir)).name,
            config={key: value for key, value in config.items() if key not in _OWN},
            certificate=certificate_pem.decode(),
            key=key_pem.decode(),
            ca=ca_pem.decode(),
            memory_max_bytes=memory_max_bytes or self._memory_max_bytes,
            cpus=None if cpus is None else list(cpus),
        )

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
